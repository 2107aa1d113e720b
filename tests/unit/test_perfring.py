"""What the parser of perf's ring promises: each record whole, each name as it is, no end missed."""

from __future__ import annotations

from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.perfring import COMM, EXIT, FORK, MAJOR, MINOR, MMAP, parse

HEADER = Struct("=IHH")
COMM_EXEC = 1 << 13
SAMPLE, LOST = 9, 2
NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=60)
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


def record(kind: int, body: bytes, misc: int = 0) -> bytes:
    return HEADER.pack(kind, misc, HEADER.size + len(body)) + body


def trailer(pid: int, tid: int, time_ns: int) -> bytes:
    return Struct("=IIQ").pack(pid, tid, time_ns)


def padded(name: str) -> bytes:
    """Pad a name as the kernel does: NULs up to a multiple of eight."""
    raw = name.encode() + b"\0"
    return raw.ljust(-(-len(raw) // 8) * 8, b"\0")


def sample(ip: int, pid: int, tid: int, time_ns: int, address: int) -> bytes:
    return record(SAMPLE, Struct("=QIIQQ").pack(ip, pid, tid, time_ns, address))


def mmap(pid: int, start: int, length: int, offset: int, name: str) -> bytes:
    body = Struct("=IIQQQ").pack(pid, pid, start, length, offset)
    return record(MMAP, body + padded(name) + trailer(pid, pid, 77))


def comm(pid: int, tid: int, name: str, by_exec: bool) -> bytes:
    body = Struct("=II").pack(pid, tid) + padded(name) + trailer(pid, tid, 78)
    return record(COMM, body, COMM_EXEC if by_exec else 0)


def task(kind: int, pid: int, parent: int, tid: int, parent_tid: int) -> bytes:
    body = Struct("=IIIIQ").pack(pid, parent, tid, parent_tid, 5)
    return record(kind, body + trailer(parent, parent_tid, 79))


@given(U64, U32, U32, U64, U64, U32)
def test_a_sample_is_read(
    ip: int, pid: int, tid: int, time_ns: int, address: int, cpu: int
) -> None:
    """Every field, to its last bit; the processor is the ring's."""
    data = sample(ip, pid, tid, time_ns, address)
    assert parse(data, cpu) == [(time_ns, MAJOR, (ip, pid, tid, address, cpu))]


def test_samples_take_the_kind_of_their_ring() -> None:
    """A ring of minor faults gives minor faults, and nothing else changes."""
    data = sample(1, 2, 3, 4, 5) + comm(2, 3, "x", False)
    assert [entry[1] for entry in parse(data, 0, MINOR)] == [MINOR, COMM]


@given(U32, U64, U64, U64, NAMES)
def test_a_mapping_is_read(pid: int, start: int, length: int, offset: int, name: str) -> None:
    """Place and name, of any length and script."""
    data = mmap(pid, start, length, offset, name)
    assert parse(data, 0) == [(77, MMAP, (pid, start, length, offset, name))]


def test_mappings_that_repeat_share_their_fields() -> None:
    """The watcher knows them by that; each has its own time, and one that differs is another."""
    same, other = mmap(1, 2, 3, 4, "//anon"), mmap(1, 2, 3, 4, "other")
    later = same[:-8] + Struct("=Q").pack(78)
    first, second, third = parse(same + later + other, 0)
    assert (first[0], second[0]) == (77, 78)
    assert first[2] is second[2]
    assert third[2] == (1, 2, 3, 4, "other")


def test_a_mapping_of_memory_fills_one_cache_line() -> None:
    """The target's mmap pays for each that it touches."""
    assert len(mmap(1, 2, 3, 4, "//anon")) == 64


@given(U32, U32, NAMES, st.booleans())
def test_a_name_is_read_with_its_cause(pid: int, tid: int, name: str, by_exec: bool) -> None:
    """An exec is told from a thread that names itself."""
    assert parse(comm(pid, tid, name, by_exec), 0) == [(78, COMM, (pid, tid, name, by_exec))]


@given(st.sampled_from([FORK, EXIT]), U32, U32, U32, U32)
def test_a_thread_comes_and_goes(
    kind: int, pid: int, parent: int, tid: int, parent_tid: int
) -> None:
    """Fork and exit, with the time of their trailer."""
    entry = (79, kind, (pid, parent, tid, parent_tid))
    assert parse(task(kind, pid, parent, tid, parent_tid), 0) == [entry]


def test_a_name_that_is_no_text_is_kept() -> None:
    """A file name may be any bytes."""
    raw = Struct("=II").pack(1, 1) + b"\xff\xfe\0\0\0\0\0\0" + trailer(1, 1, 78)
    ((_, _, (_, _, name, _)),) = parse(record(COMM, raw), 0)
    assert name.encode("utf-8", "surrogateescape") == b"\xff\xfe"


def test_records_of_no_interest_are_passed_over() -> None:
    """LOST and whatever a newer kernel writes stand between records that count."""
    unknown = record(LOST, bytes(40)) + record(250, bytes(8))
    data = unknown + sample(1, 2, 3, 4, 5) + unknown + sample(1, 2, 3, 9, 5)
    assert [entry[0] for entry in parse(data, 0)] == [4, 9]


def test_an_empty_ring_has_no_records() -> None:
    """Nothing in, nothing out."""
    assert parse(b"", 0) == []


def test_a_record_without_a_length_is_an_error() -> None:
    """It would be read for ever."""
    with pytest.raises(ValueError, match="0 bytes at 40"):
        parse(sample(1, 2, 3, 4, 5) + HEADER.pack(SAMPLE, 0, 0), 0)
