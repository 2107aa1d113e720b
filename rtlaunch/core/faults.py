"""Where page faults fell: the target's address map, the ledger of its faults, what came of both.

The map is seeded by the proof's smaps and kept by perf's own records of
mappings, so that /proc is never read again. It knows no munmap, which perf
does not tell: later mappings override earlier ones, and a fault has a mapping.

Pure: entries of :mod:`rtlaunch.core.perfring` in, faults and sites out. It
must not print, count what was not captured, or decide what follows.
"""

from __future__ import annotations

from _bisect import bisect_left, bisect_right

from rtlaunch.core.perfring import COMM, EXIT, FORK, MAJOR, MINOR, MMAP
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from rtlaunch.core.perfring import Entry
    from rtlaunch.core.proc import Mapping

    Span = tuple[int, int, str, int]  # start, end, name, offset of start in its object
    # the fields of a Fault, its kind still perfring's
    Raw = tuple[int, int, int, str, int, int, str, int, int, str, int]

KEPT_FAULTS = 1000
KEPT_SITES = 256
KEPT_SPANS = 65536  # more than vm.max_map_count: beyond it, anonymous ones are forgotten

ANONYMOUS = "//anon"  # perf's own name for memory without a file
KERNEL = "[kernel]"
UNKNOWN = "[unknown]"
KINDS = {MAJOR: "major", MINOR: "minor"}
NEVER = 1 << 63  # later than any CLOCK_MONOTONIC


class Fault(Record):
    """One page fault: who took it, where the code was, what it touched.

    ``at_ns`` is CLOCK_MONOTONIC. Offsets into files are file offsets (what
    perf and addr2line start from), into anonymous memory bytes from the
    mapping's start. ``ip_object`` is ``[kernel]``, offset 0, for a fault taken
    inside a system call.
    """

    at_ns: int
    kind: str
    tid: int
    thread: str
    cpu: int
    ip: int
    ip_object: str
    ip_offset: int
    address: int
    mapping: str
    mapping_offset: int


class Site(Record):
    """All faults of one instruction on one mapping, and the span of offsets that they touched."""

    kind: str
    ip_object: str
    ip_offset: int
    mapping: str
    lowest_offset: int
    highest_offset: int
    count: int


class WatchResult(Record):
    """All that was seen; counts that were not taken, or not to the end, are None.

    ``perf_major`` and ``perf_minor`` are perf's counts after arming, without
    those of images between their exec and their proof (``between_major``); of
    minor ones only where each was asked for;
    ``earlier_major`` is the part of them that fell before the last rearm(). Since
    perf may not see all that the start of an image faults in, the kernel's
    count of faults after arming is ``earlier_major`` + majflt now - majflt at
    the last arm() or rearm().
    ``lost`` major faults were counted without a record; ``lost_records``
    counts other records, such as mappings, that the ring had no room for, so
    that places may be wrong. ``hidden`` faults were not told since the last
    line. ``unannounced`` are the times of execs that no shim announced.
    """

    source: str
    why: str
    perf_major: int | None = None
    perf_minor: int | None = None
    earlier_major: int = 0
    between_major: int = 0
    lost: int | None = None
    lost_records: int | None = None
    sites: tuple[Site, ...] = ()
    faults: tuple[Fault, ...] = ()
    faults_omitted: int = 0
    hidden: int = 0
    execs: tuple[int, ...] = ()
    unannounced: tuple[int, ...] = ()


class AddressMap:
    """Which object lies at which address; spans never overlap."""

    def __init__(self, mappings: Iterable[Mapping] = ()) -> None:
        """Seed it with the mappings of maps or smaps."""
        self._starts: list[int] = []
        self._spans: list[Span] = []
        for mapping in mappings:
            self.put(mapping.start, mapping.end, mapping.path or ANONYMOUS, mapping.offset)

    def put(self, start: int, end: int, name: str, offset: int) -> None:
        """Lay a mapping over what was there; if it is no file's, offsets count from its start."""
        no_file = name == ANONYMOUS or name[:1] == "["  # perf gives the address as its offset
        span = (start, end, name, 0 if no_file else offset)
        low = bisect_left(self._starts, start)
        if low < len(self._spans) and self._spans[low] == span:
            return  # a buffer that is mapped and unmapped over and over
        if low and self._spans[low - 1][1] > start:
            low -= 1
        high = bisect_left(self._starts, end)
        pieces = [span]
        if low < high:
            left, right = _left_of(self._spans[low], start), _right_of(self._spans[high - 1], end)
            pieces = [*left, span, *right]
        self._spans[low:high] = pieces
        self._starts[low:high] = [piece[0] for piece in pieces]
        if len(self._spans) > KEPT_SPANS:
            self._forget_anonymous()

    def _forget_anonymous(self) -> None:
        self._spans = [span for span in self._spans if span[2] != ANONYMOUS]
        self._starts = [span[0] for span in self._spans]

    def place(self, address: int) -> tuple[str, int]:
        """Return the object at ``address`` and the offset in it; the address if it is unknown."""
        if address >> 63:
            return KERNEL, 0
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            start, end, name, offset = self._spans[at]
            if address < end:
                return name, address - start + offset
        return UNKNOWN, address


def _left_of(span: Span, cut: int) -> list[Span]:
    start, _, name, offset = span
    return [(start, cut, name, offset)] if start < cut else []


def _right_of(span: Span, cut: int) -> list[Span]:
    start, end, name, offset = span
    return [(cut, end, name, offset + cut - start)] if cut < end else []


class Limiter:
    """Let so many through per second; the rest are counted. Time is given, never read."""

    def __init__(self, per_second: int = 20) -> None:
        """Begin with a full second's worth."""
        self._rate = per_second
        self._window_ns = -NEVER
        self._used = 0
        self.hidden = 0

    def admit(self, time_ns: int) -> bool:
        """Tell whether something at ``time_ns`` passes; if not, it is ``hidden``."""
        if time_ns - self._window_ns >= 1_000_000_000:
            self._window_ns, self._used = time_ns, 0
        if self._used >= self._rate:
            self.hidden += 1
            return False
        self._used += 1
        return True

    def take_hidden(self) -> int:
        """Return how many were hidden since the last call."""
        hidden, self.hidden = self.hidden, 0
        return hidden


class Ledger:
    """All that perf's records tell of one process, in order of time.

    Faults before :meth:`arm` are passed over. Those between an exec and the
    :meth:`rearm` that follows are set aside, since the new image is not locked
    yet: they stay aside after rearm, and are taken in by :meth:`accept` when
    it never comes.
    """

    def __init__(self, pid: int, name: str, mappings: Iterable[Mapping] = ()) -> None:
        """Begin with the main thread's name and the proof's mappings."""
        self.captured = {MAJOR: 0, MINOR: 0}  # samples seen, whenever they fell
        self.accepted = {MAJOR: 0, MINOR: 0}  # of those, the ones that count
        self.limiters = {MAJOR: Limiter(), MINOR: Limiter()}  # of what take() returns
        self.faults: list[Fault] = []
        self.omitted = 0
        self.sites_omitted = 0
        self.execs: list[int] = []
        self.pending_exec = 0  # time of an exec that neither rearm nor accept has followed
        self._pid = pid
        self._armed_ns = NEVER
        self._names = {pid: name}
        self._map = AddressMap(mappings)
        self._sites: dict[tuple[str, str, int, str], list[int]] = {}
        self._set_aside = {MAJOR: 0, MINOR: 0}  # for good
        self._waiting: list[Raw] = []
        self._waiting_count = {MAJOR: 0, MINOR: 0}
        self._handlers: dict[int, Callable[[int, tuple[Any, ...]], None]] = {
            MMAP: self._on_mmap,
            COMM: self._on_comm,
            FORK: self._on_fork,
            EXIT: self._on_exit,
        }

    def arm(self, time_ns: int) -> None:
        """Count faults from ``time_ns`` (CLOCK_MONOTONIC) on."""
        self._armed_ns = time_ns

    def rearm(self, name: str, mappings: Iterable[Mapping]) -> None:
        """Begin with a new image that was proven: its name and mappings, no fault of its start."""
        self._names, self._map = {self._pid: name}, AddressMap(mappings)
        for kind, count in self._waiting_count.items():
            self._set_aside[kind] += count
        self._end_waiting()

    def accept(self) -> list[Fault]:
        """Take in what was set aside, because the exec was not announced; return what to tell."""
        waiting, counts = self._waiting, self._waiting_count
        self._end_waiting()
        told = [self._keep(raw) for raw in waiting]
        for kind, count in counts.items():
            unkept = count - sum(raw[1] == kind for raw in waiting)
            self.accepted[kind] += unkept
            self.omitted += unkept
        return [fault for fault in told if fault is not None]

    def _end_waiting(self) -> None:
        self._waiting, self._waiting_count = [], {MAJOR: 0, MINOR: 0}
        self.pending_exec = 0

    def aside(self, kind: int) -> int:
        """Return how many faults of ``kind`` fell in images between their exec and their proof."""
        return self._set_aside[kind] + self._waiting_count[kind]

    def take(self, entries: Iterable[Entry]) -> list[Fault]:
        """Work through entries in order of time; return what to tell, as much as is read."""
        told = []
        for time_ns, kind, fields in entries:
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(time_ns, fields)
            else:
                fault = self._on_fault(time_ns, kind, fields)
                if fault is not None:
                    told.append(fault)
        return told

    def sites(self) -> tuple[Site, ...]:
        """Return the sites, the one with most faults first."""
        found = [Site(*key, low, high, count) for key, (low, high, count) in self._sites.items()]
        return tuple(sorted(found, key=lambda site: -site.count))

    def _on_mmap(self, time_ns: int, fields: tuple[Any, ...]) -> None:
        pid, start, length, offset, name = fields
        if pid == self._pid:
            self._map.put(start, start + length, name, offset)

    def _on_comm(self, time_ns: int, fields: tuple[Any, ...]) -> None:
        pid, tid, name, by_exec = fields
        if pid != self._pid:
            return
        if by_exec:  # a new address space, and one thread
            self._map, self._names = AddressMap(), {}
            self.execs.append(time_ns)
            self.pending_exec = time_ns
        self._names[tid] = name

    def _on_fork(self, time_ns: int, fields: tuple[Any, ...]) -> None:
        pid, _, tid, parent_tid = fields
        if pid == self._pid and parent_tid in self._names:
            self._names[tid] = self._names[parent_tid]  # until it takes a name of its own

    def _on_exit(self, time_ns: int, fields: tuple[Any, ...]) -> None:
        _, _, tid, _ = fields
        if tid != self._pid:
            self._names.pop(tid, None)

    def _on_fault(self, time_ns: int, kind: int, fields: tuple[Any, ...]) -> Fault | None:
        ip, pid, tid, address, cpu = fields
        if pid != self._pid:
            return None
        self.captured[kind] += 1
        if time_ns < self._armed_ns:
            return None
        code, data = self._map.place(ip), self._map.place(address)
        fault = (time_ns, kind, tid, self._names.get(tid, ""), cpu, ip, *code, address, *data)
        if not self.pending_exec:
            return self._keep(fault)
        self._waiting_count[kind] += 1
        if len(self._waiting) < KEPT_FAULTS:
            self._waiting.append(fault)
        return None

    def _keep(self, raw: Raw) -> Fault | None:
        """Put a fault on its site, into the list while there is room; return it if it may be told.

        Made into a record only if one of the two wants it: a storm must not wait for us.
        """
        time_ns, kind, tid, name, cpu, ip, ip_object, ip_offset, address, mapping, offset = raw
        self.accepted[kind] += 1
        self._count_site((KINDS[kind], ip_object, ip_offset, mapping), offset)
        telling, room = self.limiters[kind].admit(time_ns), len(self.faults) < KEPT_FAULTS
        self.omitted += not room
        if not (telling or room):
            return None
        fault = Fault(
            time_ns, KINDS[kind], tid, name, cpu,
            ip, ip_object, ip_offset, address, mapping, offset,
        )  # fmt: skip
        if room:
            self.faults.append(fault)
        return fault if telling else None

    def _count_site(self, key: tuple[str, str, int, str], at: int) -> None:
        site = self._sites.get(key)
        if site is not None:
            site[:] = min(site[0], at), max(site[1], at), site[2] + 1
        elif len(self._sites) < KEPT_SITES:
            self._sites[key] = [at, at, 1]
        else:
            self.sites_omitted += 1


def _who(fault: Fault, process: str) -> str:
    thread = "" if fault.thread in (process, "") else f"/{fault.thread}"
    return f"{process}[{fault.tid}{thread}]"


def _at(name: str, offset: int) -> str:
    return name if name == KERNEL else f"{name}+{offset:#x}"


def describe(fault: Fault, process: str, armed_ns: int) -> str:
    """Say a fault in one line: who, where, touching what, how long after ``armed_ns``."""
    inside = fault.ip_object == KERNEL
    code = "inside a system call" if inside else f"at {_at(fault.ip_object, fault.ip_offset)}"
    after = (fault.at_ns - armed_ns) / 1e6
    return (
        f"{fault.kind} fault in {_who(fault, process)} {code} "
        f"touching {_at(fault.mapping, fault.mapping_offset)}, {after:.1f} ms after arming"
    )


def unannounced(execs: Sequence[int], announcements: Sequence[int]) -> tuple[int, ...]:
    """Return the times of those execs after which, before the next, no image announced itself."""
    ends = (*execs[1:], NEVER)
    return tuple(
        begin
        for begin, end in zip(execs, ends, strict=False)  # no exec at all has one end
        if not any(begin < time_ns < end for time_ns in announcements)
    )
