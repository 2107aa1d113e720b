"""Page fault events of one process: perf_event_open(2) and its ring buffers.

One sampling event per CPU that the target may use, because an inherited event
cannot be mapped with cpu -1; their rings also carry the target's address map,
names, forks and exits. Minor faults have events only where each is asked for:
every thread that starts pays for every event that it inherits, and the kernel
counts them in any case (stat's minflt). A sentinel hangs up at exec, which no
record would wake us for.

Events are opened by pid on a target that stands still; none of this decides
what a fault means.
"""

from __future__ import annotations

import errno
import mmap
import os
from _struct import Struct

from rtlaunch.core.perfring import MAJOR, MINOR, parse
from rtlaunch.core.record import Record, replace
from rtlaunch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtlaunch.core.perfring import Entry

# include/uapi/linux/perf_event.h
_TYPE_SOFTWARE = 1
_FAULTS_MINOR, _FAULTS_MAJOR, _DUMMY = 5, 6, 9  # PERF_COUNT_SW_*
# IP, TID, TIME, ADDR. The target's mmap pays for each cache line that a record of a mapping takes:
# with no more than this (the CPU is the ring's, and mmap2 is not asked for), that is one.
_SAMPLE_TYPE = 0x1 | 0x2 | 0x4 | 0x8
_FORMAT_LOST = 1 << 4  # since 6.0
_DISABLED = 1 << 0
_INHERIT = 1 << 1
_EXCLUDE_KERNEL_HV = 1 << 5 | 1 << 6
_COMM = 1 << 9 | 1 << 24  # comm, comm_exec
_MAPS = 1 << 8 | 1 << 17  # mmap, mmap_data
_TASK = 1 << 13
_SAMPLE_ID_ALL = 1 << 18
_USE_CLOCKID = 1 << 25
_INHERIT_THREAD = 1 << 35  # since 5.13
_REMOVE_ON_EXEC = 1 << 36  # since 5.13
_CLOCK_MONOTONIC = 1
_IOC_SET_OUTPUT = 0x2405

# type, size, config, sample_period, sample_type, read_format, flags, wakeup_events, bp_type,
# config1, config2, branch_sample_type, sample_regs_user, sample_stack_user, clockid
_ATTR = Struct("=IIQQQQQIIQQQQIi")

_HEAD = Struct("=Q")
_HEAD_AT, _TAIL_AT = 1024, 1032  # in struct perf_event_mmap_page
LARGEST_RING, SMALLEST_RING = 256 * 1024, 8 * 1024  # bytes, each with one page more


class Variant(Record):
    """What of an event this kernel and our privileges allow, found by trying.

    ``user_only``: faults taken in the kernel are not seen; ``threads_only``:
    children are not counted with the target; ``tells_lost``: PERF_FORMAT_LOST.
    """

    user_only: bool = False
    threads_only: bool = True
    tells_lost: bool = True


def _weaker(variant: Variant, code: int | None) -> Variant | None:
    """Return what to try after ``code`` (an errno), None if nothing is left."""
    if code in (errno.EACCES, errno.EPERM) and not variant.user_only:
        return replace(variant, user_only=True)
    if code == errno.EINVAL and variant.tells_lost:
        return replace(variant, tells_lost=False)
    if code == errno.EINVAL and variant.threads_only:
        return replace(variant, threads_only=False)
    return None


def _attr(config: int, flags: int, variant: Variant, sampling: bool = False) -> bytes:
    """Lay out a struct perf_event_attr of version 3, which is enough and old enough (4.1)."""
    flags |= _EXCLUDE_KERNEL_HV if variant.user_only else 0
    if flags & _INHERIT and variant.threads_only:
        flags |= _INHERIT_THREAD
    read_format = _FORMAT_LOST if variant.tells_lost else 0
    period, sample_type, wakeup = (1, _SAMPLE_TYPE, 1) if sampling else (0, 0, 0)
    return _ATTR.pack(
        _TYPE_SOFTWARE, _ATTR.size, config, period, sample_type, read_format, flags,
        wakeup, 0, 0, 0, 0, 0, 0, _CLOCK_MONOTONIC,
    )  # fmt: skip


def open_sampler(pid: int, cpu: int, variant: Variant, kind: int = MAJOR) -> int:
    """Open the event that records each fault of ``kind``; with the maps if it is MAJOR."""
    config = _FAULTS_MAJOR if kind == MAJOR else _FAULTS_MINOR
    flags = _INHERIT | _SAMPLE_ID_ALL | _USE_CLOCKID
    if kind == MAJOR:
        flags |= _COMM | _MAPS | _TASK
    return libc.perf_event_open(_attr(config, flags, variant, sampling=True), pid, cpu)


def open_sentinel(pid: int, variant: Variant) -> int:
    """Open an event that counts nothing and ends with the image: poll(2) then says POLLHUP.

    It says so all the time unless a ring is mapped (kernel/events/core.c,
    perf_poll), into which nothing is written. Not inherited, so that it costs
    no thread creation; never enabled, so that mmap and context switches pass
    it over, which does not keep it from its end. EINVAL before Linux 5.13.
    """
    return libc.perf_event_open(_attr(_DUMMY, _DISABLED | _REMOVE_ON_EXEC, variant), pid, -1)


class RingDenied(OSError):
    """A ring buffer, even a small one, is more than this user may still pin."""


class Ring:
    """One ring buffer mapped from an event; what is read is given back to the kernel."""

    def __init__(self, fd: int, size: int, kind: int = MAJOR, cpu: int = -1) -> None:
        """Map ``size`` bytes, a power of two of pages; EPERM or ENOMEM if that is too much."""
        self.kind = kind
        self.cpu = cpu
        self._size = size
        self._base = mmap.PAGESIZE
        self._map = mmap.mmap(fd, self._base + size)
        self._tail = 0

    def read(self) -> bytes:
        """Return all whole records since the last call, joined where they wrap around."""
        head: int = _HEAD.unpack_from(self._map, _HEAD_AT)[0]
        if head == self._tail:
            return b""
        begin, end = self._tail % self._size + self._base, head % self._size + self._base
        if begin < end:
            data = self._map[begin:end]
        else:
            data = self._map[begin : self._base + self._size] + self._map[self._base : end]
        _HEAD.pack_into(self._map, _TAIL_AT, head)
        self._tail = head
        return data

    def close(self) -> None:
        """Unmap it."""
        self._map.close()


class Count(Record):
    """What the events of one kind counted; ``lost`` is None where the kernel does not tell."""

    value: int
    lost: int | None


class Events:
    """All events of one target; close() when it has ended or exec()ed."""

    def __init__(self) -> None:
        """Hold nothing yet; :func:`open_events` fills it."""
        self.variant = Variant()
        self.ring_bytes = 0
        self.samplers: dict[int, list[int]] = {MAJOR: [], MINOR: []}
        self.sentinel = -1
        self._rings: list[Ring] = []
        self._sentinel_ring: Ring | None = None

    def fds(self) -> list[int]:
        """List the descriptors to poll: samplers become readable, and all hang up at their end."""
        fds = self.samplers[MAJOR] + self.samplers[MINOR]
        return [*fds, self.sentinel] if self.sentinel >= 0 else fds

    def read(self) -> list[Entry]:
        """Return what all rings hold now, ring by ring, not yet in order of time."""
        entries: list[Entry] = []
        for ring in self._rings:
            data = ring.read()
            if data:
                entries += parse(data, ring.cpu, ring.kind)
        return entries

    def count(self, kind: int) -> Count | None:
        """Return what was counted of ``kind`` so far, in all threads; None if it has no events."""
        fds = self.samplers[kind]
        if not fds:
            return None
        pairs = [os.read(fd, 16) for fd in fds]
        value = sum(_HEAD.unpack_from(pair)[0] for pair in pairs)
        if not self.variant.tells_lost:
            return Count(value, None)
        return Count(value, sum(_HEAD.unpack_from(pair, 8)[0] for pair in pairs))

    def close(self) -> None:
        """Unmap and close everything; a second call does nothing."""
        self.unmap()
        self._close_sentinel()
        for fd in self.fds():
            os.close(fd)
        self.samplers = {MAJOR: [], MINOR: []}

    def _close_sentinel(self) -> None:
        if self._sentinel_ring:
            self._sentinel_ring.close()
            self._sentinel_ring = None
        if self.sentinel >= 0:
            os.close(self.sentinel)
            self.sentinel = -1

    def unmap(self) -> None:
        """Give the samplers' rings back."""
        for ring in self._rings:
            ring.close()
        self._rings = []

    def map(self, size: int, owners: Sequence[tuple[int, int, int]]) -> None:
        """Map a ring of ``size`` bytes for each (fd, kind, cpu)."""
        self.ring_bytes = size
        for fd, kind, cpu in owners:
            self._rings.append(Ring(fd, size, kind, cpu))

    def renew_sentinel(self, tid: int) -> None:
        """Open the sentinel, anew if there was one; where it cannot be, an exec is noticed late."""
        self._close_sentinel()
        try:
            self.sentinel = open_sentinel(tid, self.variant)
            self._sentinel_ring = Ring(self.sentinel, mmap.PAGESIZE)
        except OSError:
            self._close_sentinel()


def _first_sampler(pid: int, cpu: int) -> tuple[int, Variant]:
    """Open the first sampler, weakened as the kernel's errors ask; the last error is raised."""
    variant = Variant()
    while True:
        try:
            return open_sampler(pid, cpu, variant), variant
        except OSError as error:
            weaker = _weaker(variant, error.errno)
            if weaker is None:
                raise
            variant = weaker


def _open_samplers(events: Events, kind: int, tids: Sequence[int], cpus: Sequence[int]) -> None:
    """Open a sampler per thread and CPU, thread by thread, but for those that are open already."""
    samplers = events.samplers[kind]
    wanted = [(tid, cpu) for tid in tids for cpu in cpus]
    for tid, cpu in wanted[len(samplers) :]:
        samplers.append(open_sampler(tid, cpu, events.variant, kind))


def _share_rings(fds: Sequence[int], cpus: int) -> None:
    """Let all threads' events on a CPU write into the first thread's ring, mapped already."""
    for at in range(cpus, len(fds)):
        import fcntl  # hardly any target has threads before main()

        fcntl.ioctl(fds[at], _IOC_SET_OUTPUT, fds[at % cpus])


def _map_rings(events: Events, owners: Sequence[tuple[int, int, int]]) -> None:
    """Map all rings at one size, the largest that fits into what the user may pin."""
    size = LARGEST_RING
    while True:
        try:
            return events.map(size, owners)
        except OSError as error:
            events.unmap()
            smallest = max(SMALLEST_RING, mmap.PAGESIZE)
            if size == smallest:
                raise RingDenied(error.errno, f"cannot map {size} bytes of perf's ring") from error
            size = max(size // 2, smallest)


def open_events(tids: Sequence[int], cpus: Sequence[int], sample_minor: bool) -> Events:
    """Open, map and so start all events of the threads ``tids``, the process's first one leading.

    Faults on CPUs other than ``cpus`` are not seen. OSError, with nothing left
    open: EACCES (perf_event_paranoid, or ptrace access denied), EPERM (seccomp,
    or a ring over the locked memory limit), ENOSYS, EMFILE, ESRCH (it is gone).
    """
    events = Events()
    try:
        first, events.variant = _first_sampler(tids[0], cpus[0])
        events.samplers[MAJOR].append(first)
        kinds = (MAJOR, MINOR) if sample_minor else (MAJOR,)
        for kind in kinds:
            _open_samplers(events, kind, tids, cpus)
        owners = [
            (fd, kind, cpu)
            for kind in kinds
            for fd, cpu in zip(events.samplers[kind], cpus, strict=False)  # the first thread's
        ]
        _map_rings(events, owners)
        for kind in kinds:
            _share_rings(events.samplers[kind], len(cpus))
        events.renew_sentinel(tids[0])
    except OSError:
        events.close()
        raise
    return events
