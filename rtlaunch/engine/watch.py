"""The supervisor thread: it sleeps until the target takes a page fault, then says where.

Why a thread: a fault is told at once while the main thread waits for signals,
and it must not have the target's real-time policy nor its CPUs. It has no
timer: only samples, a ring half full, an exec and :meth:`Watch.stop` wake it
(and, where rings are polled, the kernel itself at a thread's exit: see engine/bell.py).

What it does not do: count. The kernel's majflt (read by the caller at arm and
at exit) is the truth; perf misses faults taken inside system calls when
unprivileged, those of O_DIRECT always, and those on CPUs outside the affinity
that the target had when it was armed. So a ``max_major`` exceeded by such
faults alone is found at exit, not while the target runs.

The main thread and the watcher share one lock; methods are the main thread's.
"""

from __future__ import annotations

import _thread
import os
import select
import time

from rtlaunch.core.faults import KINDS, Fault, Ledger, WatchResult, describe, unannounced
from rtlaunch.core.perfring import MAJOR, MINOR
from rtlaunch.core.record import Record, replace
from rtlaunch.engine.feed import GONE, Feed, explain
from rtlaunch.engine.listener import EXEC_PATIENCE_NS, Observer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.options import Reaction
    from rtlaunch.core.proc import Mapping
    from rtlaunch.engine.bell import Bell

AUTO, PERF, PROC, NONE = "auto", "perf", "proc", "none"

# The sentinel hangs up just before the exec is recorded (fs/exec.c, begin_new_exec), ns.
_EXEC_SETTLES_NS = 10_000_000

# What ends a watcher: a call of the kernel's, a ring that makes no sense, no memory, and a module
# that is no longer where it was.
_FAILURES = (OSError, ValueError, MemoryError, ImportError)


class Wanted(Record):
    """What the options ask of the watch; ``source`` is one of auto, perf, proc, none."""

    source: str
    on_major: Reaction
    on_minor: Reaction
    max_major: int | None = None
    max_minor: int | None = None

    @property
    def samples_minor(self) -> bool:
        """Whether minor faults must be seen one by one; the kernel counts them in any case."""
        return self.on_minor.do != "none" or self.max_minor is not None


def open_watch(pid: int, wanted: Wanted, name: str, mappings: Iterable[Mapping]) -> Watch:
    """Open a watch on ``pid``, which stands still; ``source`` and ``why`` say what became of it.

    ``name`` is the main thread's (comm), ``mappings`` are the proof's. Where
    perf is not to be had the source is ``proc``, and ``why`` has the rule that
    forbids it; no error is raised.
    """
    watch = Watch(pid, wanted, name, mappings)
    watch.open()
    return watch


class Watch:
    """The watch on one target; :func:`open_watch` makes it.

    In order: start(), arm(), then any number of announced() and rearm(), and
    stop(), which closes everything.
    """

    def __init__(self, pid: int, wanted: Wanted, name: str, mappings: Iterable[Mapping]) -> None:
        self.source = wanted.source
        self.why = ""
        self.tid = 0  # of the watcher
        self._pid = pid
        self._name = name
        self._wanted = wanted
        self._feed = Feed(pid, wanted.samples_minor)
        self._ledger = Ledger(pid, name, mappings)
        self._observer = Observer()
        self._reactions = {MAJOR: wanted.on_major, MINOR: wanted.on_minor}
        self._reacted = {MAJOR: 0, MINOR: 0}
        limits = {MAJOR: wanted.max_major, MINOR: wanted.max_minor}
        self._limits = {kind: most for kind, most in limits.items() if most is not None}
        self._armed_ns = 0
        self._base: dict[int, int | None] = {MAJOR: None, MINOR: None}
        self._earlier_major = 0
        self._exceeded: set[int] = set()
        self._announced: list[int] = []
        self._opened = False  # whether perf was ever to be had
        self._blind = False  # whether perf was lost on the way
        self._failed = False
        self._alarm_ns = 0
        self._look_ns = 0
        self._hung: set[int] = set()
        self._unread = True  # whether the rings may hold what nothing has told of
        self._lock = _thread.allocate_lock()  # over feed and ledger
        self._finished = _thread.allocate_lock()  # held while the watcher runs
        self._awake = _thread.allocate_lock()  # held by the watcher but while it sleeps
        self._stop_fd = -1

    # ---- the main thread's

    def open(self) -> None:
        """Choose the source: perf where it may be had, with the reason in ``why`` where not."""
        if self._wanted.source not in (AUTO, PERF):
            self.why = "asked for"
            return
        try:
            self._feed.open()
        except OSError as error:
            self._blind = True
            self.source, self.why = PROC, explain(error, self._pid)
        else:
            self._opened = True
            self.source, self.why = PERF, self._feed.limits()

    def start(self, observer: Observer) -> None:
        """Start the watcher, if there is anything to watch; it calls ``observer``."""
        self._observer = observer
        if not self._feed.is_open:
            return
        self._hung.clear()
        self._alarm_ns = self._look_ns = 0
        try:
            self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
            self._finished.acquire()
            _thread.start_new_thread(self._run, ())
        except (OSError, RuntimeError) as error:  # no descriptor or no thread left
            self.why = f"faults are told at the end only: {error}"
            self._finished = _thread.allocate_lock()
            self._close_stop_fd()

    def arm(self, time_ns: int) -> None:
        """Tell and count faults from ``time_ns`` (CLOCK_MONOTONIC) on, which is about now."""
        with self._lock:
            self._ledger.take(self._feed.read_all())
            self._base = {kind: self._feed.total(kind) for kind in (MAJOR, MINOR)}
            self._ledger.arm(time_ns)
            self._armed_ns = time_ns

    def announced(self, entered_ns: int) -> None:
        """Note that an image of the target announced itself at ``entered_ns`` (CLOCK_MONOTONIC)."""
        self._announced.append(entered_ns)

    def rearm(self, name: str, mappings: Iterable[Mapping]) -> None:
        """Watch an image that was exec()ed in place and proven; it stands still.

        Events die without a word when an image may not be read, so they are
        opened anew; ``source`` and ``why`` may change.
        """
        self._join()
        self._take_last()
        self._earlier_major = self._since_arm(MAJOR) or 0
        self._feed.close()
        self._name = name
        self._ledger.rearm(name, mappings)
        self.open()
        self.start(self._observer)

    def stop(self) -> WatchResult:
        """End the watcher, close everything and return what was seen."""
        self._join()
        self._take_last()
        if not self._is_announced(self._ledger.pending_exec):
            self._tell(self._ledger.accept())
        hidden = sum(self._hidden(kind) for kind in self._reactions)
        result = replace(self._result(), hidden=hidden)
        self._feed.close()
        return result

    def so_far(self) -> WatchResult:
        """Return what was seen up to now; the watcher goes on."""
        with self._lock:
            return self._result()

    def hold(self) -> bool:
        """Keep the watcher asleep until let_go(), so that it is safe to fork; False if it is awake.

        It imports, locks and says what it has to only while it is awake.
        """
        return self._awake.acquire(blocking=False)

    def let_go(self) -> None:
        """Let the watcher wake up again."""
        self._awake.release()

    def _join(self) -> None:
        """Wait for the watcher to end; nothing happens if there is none."""
        if self._stop_fd < 0:
            return
        os.eventfd_write(self._stop_fd, 1)
        with self._finished:
            self._close_stop_fd()

    def _close_stop_fd(self) -> None:
        if self._stop_fd >= 0:
            os.close(self._stop_fd)
            self._stop_fd = -1

    def _take_last(self) -> None:
        """Take in what the rings still hold, unless they made no sense to the watcher."""
        if not self._failed:
            self._tell(self._ledger.take(self._feed.read_all()))

    def _result(self) -> WatchResult:
        ledger = self._ledger
        if not self._opened:
            return WatchResult(self.source, self.why)
        lost, lost_records = self._feed.lost(ledger.captured[MAJOR])
        return WatchResult(
            source=self.source,
            why=self.why,
            perf_major=self._since_arm(MAJOR),
            perf_minor=None if self._blind else self._since_arm(MINOR),
            earlier_major=self._earlier_major,
            between_major=ledger.aside(MAJOR),
            lost=lost,
            lost_records=lost_records,
            sites=ledger.sites(),
            faults=tuple(ledger.faults),
            faults_omitted=ledger.omitted,
            execs=tuple(ledger.execs),
            unannounced=unannounced(ledger.execs, self._announced),
        )

    # ---- both threads'

    def _since_arm(self, kind: int) -> int | None:
        """Return perf's count after arming, without images that were not proven yet."""
        total, base = self._feed.total(kind), self._base[kind]
        if total is None or base is None:
            return None
        return total - base - self._ledger.aside(kind)

    def _is_announced(self, exec_ns: int) -> bool:
        """Tell whether the exec at ``exec_ns``, the last one, was announced; 0 is no exec."""
        return not exec_ns or bool(self._announced and self._announced[-1] > exec_ns)

    def _tell(self, faults: Iterable[Fault]) -> None:
        """Do what the options ask for faults that are new, of which ``faults`` may be told."""
        for fault in faults:
            kind = MAJOR if fault.kind == KINDS[MAJOR] else MINOR
            if self._reactions[kind].do != "none":
                line = describe(fault, self._name, self._armed_ns)
                self._observer.fault(line, self._hidden(kind))
        for kind, reaction in self._reactions.items():
            count = self._ledger.accepted[kind]
            if count > self._reacted[kind] and reaction.signal:
                self._observer.signal(reaction.signal)
            self._reacted[kind] = count
        for kind, most in self._limits.items():
            self._judge(kind, most)

    def _hidden(self, kind: int) -> int:
        """Return how many faults were not told since the last line, if they are to be told."""
        hidden = self._ledger.limiters[kind].take_hidden()
        return hidden if self._reactions[kind].do != "none" else 0

    def _judge(self, kind: int, most: int) -> None:
        """Say once that more faults fell than are allowed."""
        count = self._since_arm(kind)
        if count is not None and count > most and kind not in self._exceeded:
            self._exceeded.add(kind)
            self._observer.exceeded(KINDS[kind], count)

    # ---- the watcher's

    def _run(self) -> None:
        self._awake.acquire()
        self.tid = _thread.get_native_id()
        why = "the watcher failed by a bug, told on stderr"  # a watch that ended must say so
        try:
            from rtlaunch.engine.aside import step_aside
            from rtlaunch.engine.bell import Bell

            step_aside(self._pid)
            bell = Bell()
            try:
                self._loop(bell)
            finally:
                bell.close()
            why = ""
        except _FAILURES as error:
            why = f"the watcher failed: {error!r}"
        finally:
            if why:
                self._failed = self._blind = True
                self.why = why
            self._awake.release()
            self._finished.release()

    def _loop(self, bell: Bell) -> None:
        poll = self._new_poll(bell)
        while True:
            ready = self._sleep(poll)
            if any(fd == self._stop_fd for fd, _ in ready):
                return
            for fd, events in ready:
                if events & (select.POLLHUP | select.POLLERR):  # it would be ready for ever
                    poll.unregister(fd)
                    self._hung.add(fd)
                    self._look_ns = time.monotonic_ns() + _EXEC_SETTLES_NS
                elif fd == bell.fd:
                    bell.quiet()
            self._unread = False
            with self._lock:
                faults = self._ledger.take(self._feed.read())
                if self._look_ns and time.monotonic_ns() >= self._look_ns:
                    self._after_hang_up()
                    poll = self._new_poll(bell)
            self._tell(faults)
            if bell.fd >= 0 and any(self._ledger.accepted.values()):
                bell.take_down(self._feed)
                poll = self._new_poll(bell)
            self._mind_exec()

    def _sleep(self, poll: select.poll) -> list[tuple[int, int]]:
        """Wait until there is something to do; meanwhile the watcher may be held."""
        patience = self._patience_ms()
        self._awake.release()
        try:
            self._observer.sleeps()
            return poll.poll(patience)
        finally:
            self._awake.acquire()

    def _new_poll(self, bell: Bell) -> select.poll:
        poll = select.poll()
        for fd in (self._stop_fd, *bell.hang(self._feed)):
            if fd not in self._hung:
                poll.register(fd, select.POLLIN)
        self._unread = True
        return poll

    def _patience_ms(self) -> int | None:
        """Return how long to sleep: for ever, but for an exec that was not announced yet."""
        if self._unread or self._feed.holds:
            return 0
        instants = [instant for instant in (self._alarm_ns, self._look_ns) if instant]
        if not instants:
            return None
        return max(0, min(instants) - time.monotonic_ns()) // 1_000_000 + 1

    def _after_hang_up(self) -> None:
        """See what an event's end meant: the target's end, an exec, or one that ended perf too."""
        self._look_ns = 0
        if not self._ledger.pending_exec:
            return
        self._hung.clear()
        if not self._feed.have_ended():
            self._feed.renew_sentinel()
            return
        self._feed.close()
        try:
            self._feed.open()  # the image may be one that we may not watch
        except OSError as error:
            if error.errno not in GONE:
                self._blind = True
                self.why = f"ended by an exec: {explain(error, self._pid)}"

    def _mind_exec(self) -> None:
        """Give an exec its time to be announced; when that is over, say so once."""
        exec_ns = self._ledger.pending_exec
        self._alarm_ns = 0 if self._is_announced(exec_ns) else exec_ns + EXEC_PATIENCE_NS
        if not self._alarm_ns or time.monotonic_ns() < self._alarm_ns:
            return
        self._alarm_ns = 0
        with self._lock:
            faults = self._ledger.accept()
        self._tell(faults)
        self._observer.unannounced(exec_ns)
