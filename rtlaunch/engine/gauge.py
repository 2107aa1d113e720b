"""Who stays beside a program that is being measured: a sentry that looks instead of watching.

It reads status every few milliseconds, and smaps where that has grown: the exception to the rule
that a running target is left alone, as this run is there to be measured. The last look is taken
while the program stands in its own exit, memory and all: PTRACE_O_TRACEEXIT, for which the main
thread alone is traced. Where that is forbidden (Yama, seccomp) what happened since the last look
is in the kernel's high-water marks only.
"""

from __future__ import annotations

import os
import time

from rtlaunch.core import fit, proof
from rtlaunch.core import proc as books_of
from rtlaunch.engine.sentry import SIGTERM, Sentry
from rtlaunch.linux import proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options
    from rtlaunch.core.outcome import Outcome
    from rtlaunch.core.proof import Books
    from rtlaunch.engine.listener import Listener

# How often status is read: a program's beginning, where most of its memory comes, more often.
YOUNG_NS, YOUNG_TICK_NS, TICK_NS = 250_000_000, 5_000_000, 20_000_000
# How often smaps is read where status shows no growth, and how long it rests after each reading,
# in times of what that took: a tenth of the program's time at most.
LOOK_NS, REST_FACTOR = 250_000_000, 10

GO_MARK = b"\xff Go buildinf:"  # debug/buildinfo of Go 1.13 on
SIGTRAP = 5
EVENT_SHIFT = 8  # ptrace(2): status >> 8 is SIGTRAP | event << 8


class Gauge(Sentry):
    """Measures one program from its first image to its end; ``course`` is the last image's.

    ``courses`` has that of each image, ``default_stack`` the stack that the last one's threads
    get, ``paths`` the files that were mapped. ``run_ns`` is how long to measure before SIGTERM,
    0 for as long as it lasts. ``traced`` tells whether its end was to be seen.
    """

    def __init__(
        self, options: Options, facts: Facts, outcome: Outcome, listener: Listener, run_ns: int = 0
    ) -> None:
        super().__init__(options, facts, outcome, listener)
        self.run_ns = run_ns
        self.courses: list[fit.Course] = []
        self.default_stack = 0
        self.paths: set[str] = set()
        self.is_go = False
        self.traced = False
        self.finished = False
        self.began_ns = self.tick_ns = self.look_ns = self.until_ns = 0
        self.grown = (0, 0)
        self.lengths: dict[tuple[str, int], int | None] = {}

    # ---- what the supervisor asks of a sentry

    def arm(self, pid: int, books: Books) -> None:
        """Begin with an image that stands before its main()."""
        super().arm(pid, books)
        known = self.outcome.lock.thread_stack_bytes  # where --thread-stack is in force
        self.default_stack = known or proof.thread_stack_bytes(books)
        self.courses.append(fit.Course())
        self.paths = set()
        self.is_go = runs_go(pid)
        if not self.traced:
            self.seize()
        self.measure(full=True)

    def start(self) -> None:
        """Begin to count ``run_ns``: it was told to go."""
        super().start()
        self.began_ns = time.monotonic_ns()
        self.until_ns = self.began_ns + self.run_ns if self.run_ns else 0
        self.tick_ns = self.began_ns + YOUNG_TICK_NS

    def patience_ms(self) -> float | None:
        """Return how long until the next reading is due."""
        usual = super().patience_ms()
        if self.finished or not self.tick_ns:
            return usual
        due = max(0.0, (self.tick_ns - time.monotonic_ns()) / 1e6)
        return due if usual is None else min(due, usual)

    def on_time(self) -> None:
        """Read what is due; end the program once it was measured for as long as was asked."""
        super().on_time()
        now = time.monotonic_ns()
        if self.finished or now < self.tick_ns:
            return
        over = bool(self.until_ns) and now >= self.until_ns
        self.measure(full=over)
        young = now - self.began_ns < YOUNG_NS
        self.tick_ns = time.monotonic_ns() + (YOUNG_TICK_NS if young else TICK_NS)
        if over:
            self.finished = True
            self.send(SIGTERM)

    def state(self) -> str:
        """Return the state letter as if nobody traced it: stopped is stopped."""
        return super().state().upper()

    def trapped(self, status: int) -> int:
        """Let the tracee go on from a stop; return the signal that it stopped by, for its job."""
        signal, event = status & 0x7F, status >> EVENT_SHIFT
        try:
            if event == ptrace.EVENT_STOP and signal != SIGTRAP:
                ptrace.listen(self.pid)
                return signal
            if event == ptrace.EVENT_EXIT:
                self.measure(full=True)
            ptrace.go_on(self.pid, 0 if event else signal)
        except ProcessLookupError:
            pass  # it was killed meanwhile
        return 0

    # ---- measuring

    def seize(self) -> None:
        """Trace the main thread, if we may, for its exit alone."""
        try:
            ptrace.seize(self.pid, ptrace.O_TRACEEXIT)
        except OSError:
            return
        self.traced = True

    def measure(self, full: bool = False) -> None:
        """Take a glance, and a look where memory or threads have become more, or it is time."""
        if self.finished:
            return
        try:
            status = books_of.parse_status(proc.read_text(self.pid, "status"))
            if not status.vm_size:
                return  # it is ending
            self.renew(status)
            self.courses[-1].glance(status)
            now = time.monotonic_ns()
            grown = status.vm_size > self.grown[0] or status.threads > self.grown[1]
            if full or (now >= self.look_ns and (grown or now >= self.look_ns + LOOK_NS)):
                self.look(status)
                took = time.monotonic_ns() - now
                self.look_ns = now + took * REST_FACTOR
                self.grown = (status.vm_size, status.threads)
        except OSError:
            return  # it is gone, or closed to us by now

    def renew(self, status: books_of.Status) -> None:
        """Begin a course for an image that nobody announced: its high-water mark is a new one."""
        if status.vm_peak < self.courses[-1].highest:
            self.courses.append(fit.Course())
            self.paths = set()
            self.grown = (0, 0)

    def look(self, status: books_of.Status) -> None:
        """Read smaps and the stacks."""
        page = self.facts.host.page_bytes
        mappings = books_of.parse_smaps(proc.read_text(self.pid, "smaps"))
        place = fit.Place(
            page,
            self.default_stack,
            () if self.is_go else proc.stack_pointers(self.pid),  # goroutines' are in its heap
            lambda start, end: proc.lowest_touched(self.pid, start, end, page),
            self.file_bytes,
            sum(map(proc.private_bytes, proc.descendants(self.pid))),
        )
        self.paths |= {mapping.path for mapping in mappings if mapping.path[:1] == "/"}
        self.courses[-1].add(fit.look(status, mappings, place))

    def file_bytes(self, mapping: books_of.Mapping) -> int | None:
        """Return the length of a mapping's file, asked once."""
        key = mapping.path, mapping.inode
        if key not in self.lengths:
            self.lengths[key] = proc.mapped_file_bytes(self.pid, mapping)
        return self.lengths[key]


def runs_go(pid: int) -> bool:
    """Tell whether the image is a Go program: its linker leaves a mark in it."""
    import mmap

    try:
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as image:
            return image.find(GO_MARK) >= 0
    except (OSError, ValueError):
        return False
    finally:
        os.close(fd)
