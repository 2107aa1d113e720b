"""Arming and counting: the kernel's fault counts at arm and exit, and the watcher between them.

The main thread's half of watching. The truth is /proc/PID/stat, read when the
target stands still before main() and when it is a zombie; the watcher
(:mod:`rtlaunch.engine.watch`) only places what it can.

Where an image exec()s another in place, loading that one is no fault of a
locked program: the kernel's count begins anew at each proof, and what fell
under an earlier image is perf's to tell.
"""

from __future__ import annotations

import os
import time

from rtlaunch.core.findings import Finding
from rtlaunch.core.numbers import SCHED_POLICIES
from rtlaunch.core.outcome import Faults
from rtlaunch.engine.listener import EXEC_PATIENCE_NS, Observer
from rtlaunch.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.faults import WatchResult
    from rtlaunch.core.options import Options
    from rtlaunch.core.outcome import Outcome
    from rtlaunch.core.proc import Stat
    from rtlaunch.core.proof import Books
    from rtlaunch.engine import watch as watching
    from rtlaunch.engine.listener import Listener

SIGTERM = 15
PERF = "perf"
POLICIES = {number: name for name, number in SCHED_POLICIES.items()}
GONE = "its parent reaped it before its last count was read: what perf did not see is not known"
UNHEARD = (
    "no shim announced it: LD_PRELOAD or _RTL_CHANNEL was taken out of its environment, or its "
    "loader ignores them"
)
BY_PTRACE_ALONE = "nobody locked it: --via ptrace has no shim, and its program was not followed"
MAX_LINES_HIDDEN = "{line} ({hidden} more before it were not shown)"


class Sentry(Observer):
    """Watches one target from its first proof to its end, and writes the outcome's ``watch``."""

    def __init__(
        self, options: Options, facts: Facts, outcome: Outcome, listener: Listener
    ) -> None:
        self.options = options
        self.facts = facts
        self.outcome = outcome
        self.listener = listener
        self.findings: tuple[Finding, ...] = ()
        self.limit_exceeded = False
        self.pid = 0
        self.reader: proc.StatReader | None = None
        self.watch: watching.Watch | None = None
        self.armed: Stat | None = None
        self.arm_at_proof = options.arm.when == "locked"
        self.deadline_ns = 0  # of --arm TIME
        self.exec_ns = 0  # of an exec that was not announced yet, and not seen by perf
        self.alarm_ns = 0  # when it will count as unannounced
        self.ending: Stat | None = None  # as it stood when it had closed its descriptors
        self.news = False  # whether somebody is to be told when the watcher sleeps
        self.noticed: Callable[[], object] = bool  # called then
        self.kill: Callable[[int, int], None] = os.kill  # of a child, whose number stays its own

    # ---- the supervisor's

    @staticmethod
    def prepare() -> None:
        """Import what watches: for while the shim locks, and the target waits anyway."""
        import rtlaunch.engine.watch  # noqa: F401

    def arm(self, pid: int, books: Books) -> None:
        """Open the watch on an image that was proven and stands still, and arm it if it is time."""
        from rtlaunch.engine import watch as watching

        name = books.status.name
        if self.watch is None:
            self.pid = pid
            self.reader = proc.StatReader(pid)
            wanted = watching.Wanted(
                self.options.watch,
                self.options.on_major,
                self.options.on_minor,
                self.options.max_major,
                self.options.max_minor,
            )
            self.watch = watching.open_watch(pid, wanted, name, books.mappings)
            self.note_degraded()
        else:
            self.watch.rearm(name, books.mappings)
        self.read_schedule()
        if self.armed is not None:
            self.armed = self.reader.read() if self.reader else None
            return
        if self.arm_at_proof:
            self.arm_now()
        elif self.options.arm.when == "time" and not self.deadline_ns:
            self.deadline_ns = time.monotonic_ns() + self.options.arm.after_ns

    def start(self) -> None:
        """Start the watcher, once the target was told to go; what it missed waits in the rings."""
        if self.watch is not None:
            self.watch.start(self)

    def arm_now(self) -> None:
        """Count from here on, or from the proof if that is still to come; once is enough."""
        self.arm_at_proof = True  # a signal (--arm) may precede it
        if self.armed is not None or self.reader is None or self.watch is None:
            return
        now = time.monotonic_ns()
        self.watch.arm(now)
        self.armed = self.reader.read()
        self.deadline_ns = 0
        self.outcome.time.armed_ns = now
        self.outcome.watch.before_arm = Faults(major=self.armed.majflt, minor=self.armed.minflt)

    def patience_ms(self) -> float | None:
        """Return how long until something is due, None if nothing is."""
        due = [instant for instant in (self.deadline_ns, self.alarm_ns) if instant]
        return max(0.0, (min(due) - time.monotonic_ns()) / 1e6) if due else None

    def on_time(self) -> None:
        """Do what is due: arm (``--arm TIME``), or say that an exec was not announced."""
        now = time.monotonic_ns()
        if self.deadline_ns and now >= self.deadline_ns:
            self.arm_now()
        if self.alarm_ns and now >= self.alarm_ns:
            self.alarm_ns = 0
            self.unannounced(self.exec_ns)

    def sees_exec(self) -> bool:
        """Tell whether the watch itself notices when the target exec()s: perf's events do."""
        return self.watch is not None and self.watch.source == PERF

    def executed(self, exec_ns: int) -> None:
        """Hear, where perf is not to be had, that the target has exec()ed, unless it is ending."""
        if self.reader is None:
            return
        try:
            stat = self.reader.read()
        except ProcessLookupError:
            return  # its parent, which is not us, was faster
        if stat.is_ending:
            self.ending = stat
            return
        self.exec_ns, self.alarm_ns = exec_ns, exec_ns + EXEC_PATIENCE_NS

    def wants_signal(self, number: int) -> bool:
        """Tell whether ``number`` is the signal of ``--arm signal:NAME``, awaited still."""
        arm = self.options.arm
        return arm.when == "signal" and arm.signal == number and self.armed is None

    def image_entered(self, is_target: bool, entered_ns: int) -> None:
        """Hear that an image announced itself, and when (CLOCK_MONOTONIC)."""
        if is_target and self.watch is not None:
            self.exec_ns = self.alarm_ns = 0
            self.watch.announced(entered_ns)

    def state(self) -> str:
        """Return the target's state letter, as in /proc/PID/stat."""
        return self.reader.read().state if self.reader else "?"

    def trapped(self, status: int) -> int:
        """Hear that the target stopped for its tracer, which we are not; return the signal."""
        return status

    def ended(self) -> None:
        """Take the last counts of the target, a zombie now, and close the watch."""
        if self.reader is None or self.watch is None:
            return
        last: Stat | None
        try:
            last = self.reader.read()
        except ProcessLookupError:
            last = self.ending  # its parent, which is not us, was faster
        result = self.watch.stop()
        self.reader.close()
        self.write_down(last, result)

    # ---- the outcome

    def read_schedule(self) -> None:
        """Write down policy, priority and timer slack as the kernel has them."""
        if self.reader is None:
            return
        stat = self.reader.read()
        sched = self.outcome.sched
        sched.policy = POLICIES.get(stat.policy, str(stat.policy))
        sched.priority = stat.rt_priority
        sched.nice = os.getpriority(os.PRIO_PROCESS, self.pid)
        try:
            sched.timer_slack_ns = int(proc.read_text(self.pid, "timerslack_ns"))
        except (OSError, ValueError):
            sched.timer_slack_ns = None  # another user's process: needs CAP_SYS_NICE

    def note_degraded(self) -> None:
        """Say when faults are counted but cannot be placed."""
        from rtlaunch.engine import watch as watching

        if self.watch is None or self.options.watch == watching.NONE:
            return
        if self.watch.source == watching.PROC and self.options.watch != watching.PROC:
            finding = Finding(
                "watch-degraded",
                f"faults are counted, not placed: perf is not to be had ({self.watch.why})",
                values={"why": self.watch.why},
            )
            self.note(finding)

    def note(self, finding: Finding) -> None:
        """Keep a finding and say it."""
        self.findings = (*self.findings, finding)
        self.listener.finding(finding)

    def write_down(self, last: Stat | None, result: WatchResult) -> None:
        """Fill in the outcome's ``watch`` from the kernel's counts and the watcher's."""
        self.count(last, result)
        for exec_ns in (*result.unannounced, *((self.exec_ns,) if self.exec_ns else ())):
            self.mark_unannounced(exec_ns)
        if result.hidden:
            self.listener.fault(f"{result.hidden} more faults were not shown")
        if last is not None and self.options.lock and not self.outcome.lock.children_locked:
            self.note_children(last)

    def note_children(self, last: Stat) -> None:
        """Say where children, which nobody locked, did the program's work."""
        if last.cutime + last.cstime <= last.utime + last.stime:
            return
        from rtlaunch.core import children

        finding = children.did_the_work(last, os.sysconf("SC_CLK_TCK"), self.options.children)
        if finding:
            self.note(finding)

    def glance(self) -> None:
        """Fill in what was counted and placed so far; ProcessLookupError where it has ended."""
        if self.reader is not None and self.watch is not None:
            self.count(self.reader.read(), self.watch.so_far())

    def hold(self) -> bool:
        """Keep the watcher asleep until let_go(); False where it is awake, whose sleep is news."""
        if self.watch is None:
            return True
        self.news = True  # first: it may fall asleep right after we have looked
        if not self.watch.hold():
            return False
        self.news = False
        return True

    def let_go(self) -> None:
        """Let the watcher wake up again."""
        if self.watch is not None:
            self.watch.let_go()

    def count(self, last: Stat | None, result: WatchResult) -> None:
        """Fill in the outcome's counts, sites and faults."""
        from rtlaunch.engine import watch as watching

        book = self.outcome.watch
        book.source, book.why = result.source, result.why or None
        book.lost = result.lost
        book.sites, book.faults = result.sites, result.faults
        book.faults_omitted = result.faults_omitted
        if self.armed is not None and self.options.watch != watching.NONE:
            major, minor = result.perf_major, result.perf_minor
            if last is not None:
                major = result.earlier_major + last.majflt - self.armed.majflt
                if minor is None:  # perf counts them only where they are watched one by one
                    minor = last.minflt - self.armed.minflt
                if result.perf_major is not None:
                    book.unseen = max(0, major - result.perf_major)
            else:
                book.why = GONE if book.why is None else f"{book.why}; {GONE}"
            book.after_arm = Faults(major=major, minor=minor)
            self.check_limits(major, minor)

    def check_limits(self, major: int | None, minor: int | None) -> None:
        """Note a limit that was exceeded, by faults that perf did not see in time as well."""
        rows = ((major, self.options.max_major), (minor, self.options.max_minor))
        if any(count is not None and most is not None and count > most for count, most in rows):
            self.limit_exceeded = True

    def mark_unannounced(self, exec_ns: int) -> None:
        """Write down an image that no shim announced: it ran, and it was not locked."""
        from rtlaunch.core.outcome import Image

        why = BY_PTRACE_ALONE if self.options.via == "ptrace" else UNHEARD
        image = Image(at_ns=exec_ns, locked=False, why=f"it was exec()ed and {why}")
        images = [*self.outcome.target.images, image]
        self.outcome.target.images = tuple(sorted(images, key=lambda one: one.at_ns or 0))
        if not any(finding.code == "exec-unannounced" for finding in self.findings):
            self.findings = (*self.findings, unannounced(exec_ns))

    # ---- the watcher's, in its thread

    def fault(self, line: str, hidden: int) -> None:
        """Say a fault."""
        self.news = True
        shown = MAX_LINES_HIDDEN.format(line=line, hidden=hidden) if hidden else line
        self.listener.fault(shown)

    def signal(self, number: int) -> None:
        """Send the target the signal that ``--on-major`` or ``--on-minor`` names."""
        self.send(number)

    def exceeded(self, kind: str, count: int) -> None:
        """End the target, which took more faults than it may."""
        self.limit_exceeded = True
        self.send(SIGTERM)  # first: stderr may keep us waiting
        self.listener.fault(f"{count} {kind} faults are over --max-{kind}: ending it")

    def unannounced(self, exec_ns: int) -> None:
        """Say at once that an image runs unlocked; no shim restored its stack limit either."""
        if self.options.thread_stack is not None:
            from rtlaunch.engine import threadstack

            threadstack.give_back(self.pid, self.options, self.facts)
        self.note(unannounced(exec_ns))

    def sleeps(self) -> None:
        """Pass on that there is news, now that it was said."""
        if self.news:
            self.news = False
            self.noticed()

    def send(self, number: int) -> None:
        """Send the target a signal; it is not reaped before the watcher has ended."""
        try:
            permitted(self.pid, lambda: self.kill(self.pid, number))
        except (ProcessLookupError, PermissionError):
            return


def permitted(pid: int, send: Callable[[], None]) -> None:
    """Signal the target by ``send``; as the target's user, where root itself may not (CAP_KILL).

    Another user than root may neither.
    """
    try:
        send()
    except PermissionError:
        from rtlaunch.linux import guise

        guise.as_sender(pid, send)


def unannounced(exec_ns: int) -> Finding:
    """Return the finding for an exec that no shim announced."""
    return Finding(
        "exec-unannounced",
        "the program exec()ed an image that no shim announced: it runs unlocked",
        why="its environment was cleared on the way, or the loader of the new image ignores "
        "LD_PRELOAD",
        values={"at_ns": exec_ns},
    )
