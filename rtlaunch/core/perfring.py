"""What perf writes into its ring: bytes in, records out (perf_event_open(2)).

The layout follows from how :mod:`rtlaunch.linux.perf` opens its events:
PERF_SAMPLE_IP | TID | TIME | ADDR, and sample_id_all. A storm brings hundreds
of thousands of records a second, so a record is a plain tuple here, (time in
ns, type, fields), not an object. A program that maps and unmaps one buffer over
and over brings as many of mappings; where they are alike they share their
``fields``, and take a third of the time. Nothing is read or decided here.
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # time (CLOCK_MONOTONIC ns), type (below), fields (per type)
    Entry = tuple[int, int, tuple[Any, ...]]

# Types of record, include/uapi/linux/perf_event.h; its SAMPLE becomes MAJOR or MINOR, by the ring.
MMAP = 1  # (pid, start, length, file offset, name)
COMM = 3  # (pid, tid, name, True if by exec)
FORK = 7  # (pid, parent pid, tid, parent tid)
EXIT = 4  # (pid, parent pid, tid, parent tid)
MAJOR = 9  # (ip, pid, tid, address, cpu)
MINOR = -9

_SAMPLE = 9
_MISC_COMM_EXEC = 1 << 13  # PERF_RECORD_MISC_COMM_EXEC

_HEADER = Struct("=IHH")  # type, misc, size
_SAMPLE_BODY = Struct("=QIIQQ")  # ip, pid, tid, time, addr
_MMAP_BODY = Struct("=IIQQQ")  # pid, tid, addr, len, pgoff
_COMM_BODY = Struct("=II")  # pid, tid
_TASK_BODY = Struct("=IIII")  # pid, ppid, tid, ptid; then its time
_TRAILER_BYTES = 16  # sample_id: pid, tid, time
_CLOCK = Struct("=Q")  # the last of them

_HEADER_BYTES = _HEADER.size
_CLOCK_BYTES = _CLOCK.size


def _time(data: bytes, end: int) -> int:
    time_ns: int = _CLOCK.unpack_from(data, end - _CLOCK_BYTES)[0]
    return time_ns


def _text(padded: bytes) -> str:
    """Read a name that is padded with NULs."""
    return padded[: padded.find(b"\0")].decode("utf-8", "surrogateescape")


def _mapping(raw: bytes) -> tuple[int, int, int, int, str]:
    pid, _, start, length, offset = _MMAP_BODY.unpack_from(raw)
    return pid, start, length, offset, _text(raw[_MMAP_BODY.size :])


def _comm(data: bytes, body: int, end: int, misc: int) -> Entry:
    pid, tid = _COMM_BODY.unpack_from(data, body)
    name = _text(data[body + _COMM_BODY.size : end - _TRAILER_BYTES])
    return _time(data, end), COMM, (pid, tid, name, bool(misc & _MISC_COMM_EXEC))


def _fork(data: bytes, body: int, end: int, misc: int) -> Entry:
    return _time(data, end), FORK, _TASK_BODY.unpack_from(data, body)


def _exit(data: bytes, body: int, end: int, misc: int) -> Entry:
    return _time(data, end), EXIT, _TASK_BODY.unpack_from(data, body)


_READERS: dict[int, Callable[[bytes, int, int, int], Entry]] = {
    COMM: _comm,
    FORK: _fork,
    EXIT: _exit,
}


def parse(data: bytes, cpu: int, samples: int = MAJOR) -> list[Entry]:
    """Parse whole records of ``cpu``'s ring, in its order, calling its samples ``samples``.

    Records of other types (LOST, THROTTLE) are passed over: what is lost is
    told exactly by the event's own count. ValueError on a record that claims
    no length, which would never end.
    """
    entries: list[Entry] = []
    mappings: dict[bytes, tuple[int, int, int, int, str]] = {}
    at, length = 0, len(data)
    while at < length:
        kind, misc, size = _HEADER.unpack_from(data, at)
        if size < _HEADER_BYTES:
            raise ValueError(f"a perf record of type {kind} and {size} bytes at {at}")
        body = at + _HEADER_BYTES
        at += size
        if kind == _SAMPLE:
            ip, pid, tid, time_ns, address = _SAMPLE_BODY.unpack_from(data, body)
            entries.append((time_ns, samples, (ip, pid, tid, address, cpu)))
        elif kind == MMAP:
            raw = data[body : at - _TRAILER_BYTES]
            fields = mappings.get(raw)
            if fields is None:
                fields = mappings[raw] = _mapping(raw)
            entries.append((_time(data, at), MMAP, fields))
        else:
            reader = _READERS.get(kind)
            if reader is not None:
                entries.append(reader(data, body, at, misc))
    return entries
