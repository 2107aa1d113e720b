"""perf's records of one target as one stream in order of time, and counts that outlive an exec.

It hides that there are many rings, that events die and are opened again, and
why perf is not to be had. What a record means is :mod:`rtlaunch.core.faults`'s
business, who waits for them :mod:`rtlaunch.engine.watch`'s. Not thread-safe.
"""

from __future__ import annotations

import errno
import os
import select
import time

from rtlaunch.core.perfring import MAJOR, MINOR
from rtlaunch.linux import libc, perf, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.perfring import Entry

GONE = (errno.ESRCH, errno.ENOENT)
LEFT = 8  # descriptors that must be free beside perf's, of which there are more than CPUs
_PARANOID = "/proc/sys/kernel/perf_event_paranoid"
# Above it, Debian and others forbid perf without CAP_PERFMON; at it, the kernel is excluded.
_PARANOID_ALLOWS = 2


class Feed:
    """What perf tells of ``pid``; nothing of minor faults, unless ``sample_minor`` asks."""

    def __init__(self, pid: int, sample_minor: bool = False) -> None:
        self.pid = pid
        self.exact = True  # whether counts are the target's alone, without its children's
        self._sample_minor = sample_minor
        self._survived = False
        self._events: perf.Events | None = None
        self._held: list[Entry] = []
        # None of minor faults without events of their own: the kernel counts those in any case.
        self._past: dict[int, int | None] = {MAJOR: 0, MINOR: 0 if sample_minor else None}
        self._past_lost: int | None = 0

    @property
    def is_open(self) -> bool:
        """Whether there are events now."""
        return self._events is not None

    @property
    def ring_bytes(self) -> int:
        """The size of each ring, 0 if there is none."""
        return self._events.ring_bytes if self._events else 0

    @property
    def holds(self) -> bool:
        """Whether records were read that cannot be put in order yet: call read() again at once."""
        return bool(self._held)

    def open(self) -> None:
        """Open events on the target, which best stands still; the errors are open_events()'s.

        PermissionError also where a seccomp filter would kill us for trying.
        """
        filtered = libc.has_seccomp_filter()
        if filtered and not self._survived and not _survives_perf():
            raise PermissionError(errno.EPERM, "perf_event_open would kill us (SIGSYS)")
        self._survived = True  # tried once, by the main thread: only it may reap the trial
        cpus = sorted(os.sched_getaffinity(self.pid))
        tids = sorted(proc.thread_ids(self.pid), key=lambda tid: (tid != self.pid, tid))
        events = perf.open_events(tids, cpus, self._sample_minor)
        try:
            _leave_some(events.fds()[0])
        except OSError:
            events.close()
            raise
        self._events = events
        self.exact = self._events.variant.threads_only

    def limits(self) -> str:
        """Say what the open events cannot see, empty if that is nothing out of the ordinary."""
        variant = self._events.variant if self._events else perf.Variant()
        notes = []
        if variant.user_only:
            level = _paranoid()
            notes.append(
                "without faults inside system calls, as kernel.perf_event_paranoid is "
                f"{'unknown' if level is None else level} and we lack CAP_PERFMON"
            )
        if not variant.threads_only:
            notes.append("without counts, which would hold its children's too before Linux 5.13")
        return "; ".join(notes)

    def fds(self) -> list[int]:
        """List the descriptors that become readable, and hang up when what they watch has ended."""
        return self._events.fds() if self._events else []

    def samplers(self) -> list[int]:
        """List those of the descriptors that are inherited by threads."""
        return [fd for fd in self.fds() if fd != self.sentinel()]

    def have_ended(self) -> bool:
        """Tell whether one of these has hung up: the target ended, or an exec took perf away."""
        poll = select.poll()
        for fd in self.samplers():
            poll.register(fd, 0)
        return bool(poll.poll(0))

    def sentinel(self) -> int:
        """Return the descriptor that hangs up at exec, -1 if there is none."""
        return self._events.sentinel if self._events else -1

    def renew_sentinel(self) -> None:
        """Open it for the image that has come, if it can be."""
        if self._events:
            self._events.renew_sentinel(self.pid)

    def read(self) -> list[Entry]:
        """Return the records up to now, in order of time.

        A ring is read while others are written: what is younger than the
        beginning of this call might follow on something not read yet.
        """
        horizon = time.monotonic_ns()
        entries = self.read_all()
        at = len(entries)
        while at and entries[at - 1][0] > horizon:
            at -= 1
        self._held = entries[at:]
        return entries[:at]

    def read_all(self) -> list[Entry]:
        """Return all records, the youngest too, in order of time; the target best stands still."""
        entries = self._held + (self._events.read() if self._events else [])
        self._held = []
        entries.sort(key=_time)
        return _without_repeats(entries)

    def total(self, kind: int) -> int | None:
        """Return how many faults of ``kind`` were counted since open(); None if unknown."""
        past, count = self._past[kind], self._events.count(kind) if self._events else None
        if past is None or not self.exact:
            return None
        return past + (count.value if count else 0)

    def total_lost(self) -> int | None:
        """Return how many records of the rings were lost (PERF_FORMAT_LOST); None if not told."""
        lost = self._past_lost
        for kind in (MAJOR, MINOR) if self._sample_minor else (MAJOR,):
            count = self._events.count(kind) if self._events else None
            if count is not None:
                lost = None if lost is None or count.lost is None else lost + count.lost
        return lost

    def lost(self, captured: int) -> tuple[int | None, int | None]:
        """Return how many major faults have no record, and how many other records are missing.

        ``captured`` have one. The first is exact by the count; PERF_FORMAT_LOST
        is about all records of the rings.
        """
        total, dropped = self.total(MAJOR), self.total_lost()
        if total is None:
            return None, None
        lost = total - captured
        if dropped is None or self._sample_minor:
            return lost, None
        return lost, max(0, dropped - lost)

    def close(self) -> None:
        """Close the events, keeping what they counted; unread records are gone."""
        if self._events is None:
            return
        totals = {kind: self.total(kind) for kind in (MAJOR, MINOR)}
        self._past_lost = self.total_lost()
        self._past.update(totals)
        self._events.close()
        self._events = None


def _leave_some(fd: int) -> None:
    """See that descriptors are left for what is no luxury: the proof, and the next image."""
    copies: list[int] = []
    try:
        while len(copies) < LEFT:
            copies.append(os.dup(fd))
    finally:
        for copy in copies:
            os.close(copy)


def _time(entry: Entry) -> int:
    return entry[0]


def _without_repeats(entries: list[Entry]) -> list[Entry]:
    """Leave out each mapping that only repeats the entry before it; they share their fields."""
    kept, before = [], None
    for entry in entries:
        if entry[2] is not before:
            before = entry[2]
            kept.append(entry)
    return kept


def _survives_perf() -> bool:
    """Try perf_event_open where a seccomp filter may answer by death."""
    from rtlaunch.engine import trial

    return trial.survives(lambda: libc.perf_event_open(b"", 0, -1))


def explain(error: OSError, pid: int) -> str:
    """Say which rule kept perf from watching ``pid``, with the value that decides (crun's way).

    perf_event_open(2), and Documentation/admin-guide/perf-security.rst.
    """
    what = error.strerror or str(error)
    if isinstance(error, perf.RingDenied):
        return f"{what}: over kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return what
    if libc.has_seccomp_filter():
        return f"{what}: a seccomp filter is in force"
    paranoid = _paranoid()
    if paranoid is not None and paranoid > _PARANOID_ALLOWS:
        return f"{what}: kernel.perf_event_paranoid is {paranoid}, and we lack CAP_PERFMON"
    return f"{what}: process {pid} may not be traced by us (not dumpable, or another user's)"


def _paranoid() -> int | None:
    try:
        with open(_PARANOID, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
