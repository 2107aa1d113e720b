"""What the ledger promises: each fault placed by the map of its instant, and none counted twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import faults
from rtlaunch.core.faults import AddressMap, Fault, Ledger, Limiter, describe, unannounced
from rtlaunch.core.perfring import COMM, EXIT, FORK, MAJOR, MINOR, MMAP
from rtlaunch.core.proc import Mapping

PID = 100
APP = Mapping(0x1000, 0x3000, "r-xp", 0x4000, "08:01", 5, "/app")
HEAP = Mapping(0x8000, 0x9000, "rw-p", 0, "00:00", 0, "[heap]")
SECOND = 1_000_000_000


def major(
    time_ns: int, address: int = 0x8010, tid: int = PID, ip: int = 0x1234, pid: int = PID
) -> Any:
    return time_ns, MAJOR, (ip, pid, tid, address, 0)


def minor(time_ns: int) -> Any:
    return time_ns, MINOR, (0x1234, PID, PID, 0x8010, 0)


def execed(time_ns: int, name: str = "next") -> Any:
    return time_ns, COMM, (PID, PID, name, True)


def mapped(time_ns: int, start: int, length: int, name: str, offset: int = 0) -> Any:
    return time_ns, MMAP, (PID, start, length, offset, name)


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger(PID, "app", (APP, HEAP))
    made.arm(0)
    return made


# ---- the map


def test_an_address_in_a_file_has_its_file_offset() -> None:
    """Counted from the file's beginning, as perf and addr2line do."""
    assert AddressMap((APP,)).place(0x1010) == ("/app", 0x4010)


def test_an_address_in_memory_without_a_file_counts_from_the_mapping() -> None:
    """Named by the kernel, or as perf calls what has no name."""
    nameless = Mapping(0xA000, 0xB000, "rw-p", 0, "00:00", 0, "")
    found = AddressMap((HEAP, nameless))
    assert found.place(0x8010) == ("[heap]", 0x10)
    assert found.place(0xA020) == ("//anon", 0x20)


def test_perfs_offset_of_memory_without_a_file_is_not_taken_for_one() -> None:
    """For anonymous memory perf gives the address as the offset."""
    table = AddressMap()
    table.put(0x7000, 0x9000, "//anon", 0x7000)
    table.put(0xA000, 0xB000, "[stack]", 0xA000)
    assert table.place(0x7008) == ("//anon", 8)
    assert table.place(0xA008) == ("[stack]", 8)


def test_the_ends_of_a_mapping_are_exact() -> None:
    """The first byte is in it, the one after the last is not."""
    table = AddressMap((APP,))
    assert [table.place(at)[0] for at in (0xFFF, 0x1000, 0x2FFF, 0x3000)] == [
        "[unknown]", "/app", "/app", "[unknown]",
    ]  # fmt: skip


def test_an_address_in_no_mapping_is_said_to_be_unknown() -> None:
    """With itself, rather than with a guess."""
    assert AddressMap((APP,)).place(0x77) == ("[unknown]", 0x77)


@pytest.mark.parametrize("address", [1 << 63, 0xFFFFFFFF81000000])
def test_the_kernels_addresses_are_the_kernels(address: int) -> None:
    """The upper half, without an offset: that is nobody's business."""
    assert AddressMap((APP,)).place(address) == ("[kernel]", 0)


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20), st.integers(0, 9), st.booleans()), max_size=25
)


@given(SPANS)
def test_later_mappings_lie_over_earlier_ones(spans: list[tuple[int, int, int, bool]]) -> None:
    """Cut, split and covered like the kernel's: compared with a table of every single address."""
    table = AddressMap()
    model: dict[int, tuple[str, int]] = {}
    for start, length, number, has_file in spans:
        offset = number * 100
        name = f"m{number}" if has_file else f"[m{number}]"
        table.put(start, start + length, name, offset)
        for at in range(start, start + length):
            model[at] = (name, at - start + (offset if has_file else 0))
    for at in range(85):
        assert table.place(at) == model.get(at, ("[unknown]", at))


def test_a_program_that_maps_for_ever_does_not_fill_our_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """munmap is not told: beyond a bound memory without a file is forgotten, files are kept."""
    monkeypatch.setattr(faults, "KEPT_SPANS", 10)
    table = AddressMap((APP,))
    for at in range(0x100000, 0x200000, 0x1000):
        table.put(at, at + 0x800, "//anon", at)
    assert table.place(0x1010) == ("/app", 0x4010)
    assert sum(table.place(at)[0] == "//anon" for at in range(0x100000, 0x200000, 0x1000)) <= 10


# ---- faults


def test_a_fault_has_all_that_perf_said_of_it(ledger: Ledger) -> None:
    """Instant, kind, thread, processor, and both places."""
    entry = (7, MAJOR, (0x1234, PID, PID, 0x8010, 3))
    assert ledger.take([entry]) == ledger.faults == [
        Fault(7, "major", PID, "app", 3, 0x1234, "/app", 0x4234, 0x8010, "[heap]", 0x10)
    ]  # fmt: skip


def test_a_mapping_counts_from_its_record_on(ledger: Ledger) -> None:
    """Before it the address was another's."""
    ledger.take([major(1), mapped(2, 0x8000, 0x1000, "/data", 0x2000), major(3)])
    assert [(fault.mapping, fault.mapping_offset) for fault in ledger.faults] == [
        ("[heap]", 0x10), ("/data", 0x2010),
    ]  # fmt: skip


def test_another_process_is_not_meant(ledger: Ledger) -> None:
    """Its faults, mappings and names change nothing."""
    strange = 999
    ledger.take(
        [
            (1, MMAP, (strange, 0x8000, 0x1000, 0, "/strange")),
            (2, COMM, (strange, strange, "strange", True)),
            major(3, pid=strange, tid=strange),
            major(4),
        ]
    )
    assert [(fault.thread, fault.mapping) for fault in ledger.faults] == [("app", "[heap]")]
    assert ledger.captured[MAJOR] == 1


def test_a_thread_has_its_makers_name_until_it_takes_one(ledger: Ledger) -> None:
    """As in the kernel; and a number that is used again is a new thread."""
    born, named, gone = (PID, PID, 101, PID), (PID, 101, "worker", False), (PID, PID, 101, PID)
    ledger.take([(1, FORK, born), major(2, tid=101), (3, COMM, named), major(4, tid=101)])
    ledger.take([(5, EXIT, gone), (6, FORK, born), major(7, tid=101)])
    assert [fault.thread for fault in ledger.faults] == ["app", "worker", "app"]


def test_what_fell_before_arming_is_no_fault(ledger: Ledger) -> None:
    """It is captured, for the account of lost records, and that is all."""
    ledger.arm(10)
    assert ledger.take([major(9), major(10)]) == ledger.faults
    assert [fault.at_ns for fault in ledger.faults] == [10]
    assert ledger.captured[MAJOR] == 2


def test_the_list_is_bounded_and_the_rest_counted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm does not fill our memory, nor the report."""
    monkeypatch.setattr(faults, "KEPT_FAULTS", 5)
    ledger.take([major(time_ns) for time_ns in range(12)])
    assert (len(ledger.faults), ledger.omitted) == (5, 7)
    assert ledger.accepted[MAJOR] == 12


# ---- sites


def test_faults_of_one_instruction_on_one_mapping_are_a_site(ledger: Ledger) -> None:
    """With the span of offsets and the count; the busiest first."""
    ledger.take([major(1, ip=0x1100), major(2, 0x8020), major(3, 0x8800), major(4, 0x8010)])
    busiest, other = ledger.sites()
    assert (busiest.count, busiest.lowest_offset, busiest.highest_offset) == (3, 0x10, 0x800)
    assert (busiest.ip_offset, other.ip_offset, other.count) == (0x4234, 0x4100, 1)


def test_major_and_minor_faults_are_different_sites(ledger: Ledger) -> None:
    """The same instruction can take both."""
    ledger.take([major(1), minor(2)])
    assert sorted(site.kind for site in ledger.sites()) == ["major", "minor"]


def test_sites_are_bounded_and_the_rest_counted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every instruction of a program could fault."""
    monkeypatch.setattr(faults, "KEPT_SITES", 3)
    ledger.take([major(at, ip=0x1000 + at) for at in range(10)] + [major(10, ip=0x1000)])
    assert sum(site.count for site in ledger.sites()) == 4
    assert ledger.sites_omitted == 7


# ---- execs


def test_faults_of_an_image_that_is_not_proven_yet_are_set_aside(ledger: Ledger) -> None:
    """They stay aside when the proof comes, and its own faults count."""
    assert ledger.take([major(1), execed(2), major(3), major(4)]) == ledger.faults
    ledger.rearm("next", (HEAP,))
    ledger.take([major(5)])
    assert [fault.at_ns for fault in ledger.faults] == [1, 5]
    assert (ledger.aside(MAJOR), ledger.accepted[MAJOR]) == (2, 2)


def test_faults_of_an_image_that_never_came_are_taken_in(ledger: Ledger) -> None:
    """Placed where they fell, by the map of their own instant."""
    ledger.take([execed(2), mapped(3, 0x8000, 0x1000, "/data"), major(4)])
    ledger.take([mapped(5, 0x8000, 0x1000, "/other")])
    assert [fault.mapping for fault in ledger.accept()] == ["/data"]
    ledger.take([major(6)])
    assert [fault.mapping for fault in ledger.faults] == ["/data", "/other"]
    assert (ledger.aside(MAJOR), ledger.pending_exec) == (0, 0)


def test_what_is_set_aside_is_bounded_and_counted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start of a large program may be a storm."""
    monkeypatch.setattr(faults, "KEPT_FAULTS", 5)
    ledger.take([execed(1), *(major(time_ns) for time_ns in range(2, 14))])
    assert ledger.aside(MAJOR) == 12
    ledger.accept()
    assert (len(ledger.faults), ledger.omitted, ledger.accepted[MAJOR]) == (5, 7, 12)


def test_an_exec_forgets_the_old_address_space(ledger: Ledger) -> None:
    """Its mappings and its other threads are gone."""
    ledger.take([(1, COMM, (PID, 101, "worker", False)), execed(2), major(3), major(4, tid=101)])
    ledger.accept()
    assert [(fault.thread, fault.mapping) for fault in ledger.faults] == [
        ("next", "[unknown]"), ("", "[unknown]"),
    ]  # fmt: skip


def test_a_thread_that_names_itself_is_no_exec(ledger: Ledger) -> None:
    """Only the kernel's own mark tells."""
    ledger.take([(1, COMM, (PID, PID, "renamed", False)), major(2)])
    assert (ledger.execs, ledger.faults[0].thread, ledger.faults[0].mapping) == (
        [], "renamed", "[heap]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("execs", "announcements", "missing"),
    [
        ((), (), ()),
        ((10,), (), (10,)),
        ((10,), (12,), ()),
        ((10, 20), (25,), (10,)),
        ((10, 20), (12,), (20,)),
        ((10, 20), (12, 25, 26), ()),
        ((10,), (5,), (10,)),
    ],
)
def test_an_exec_is_announced_before_the_next_one(
    execs: tuple[int, ...], announcements: tuple[int, ...], missing: tuple[int, ...]
) -> None:
    """An announcement is of the image that ran when it was made."""
    assert unannounced(execs, announcements) == missing


# ---- telling


def test_no_more_is_told_in_a_second_than_people_read() -> None:
    """The rest is counted, and the next second begins anew."""
    limiter = Limiter(per_second=3)
    assert [limiter.admit(at) for at in range(5)] == [True, True, True, False, False]
    assert limiter.take_hidden() == 2
    assert limiter.admit(SECOND)
    assert limiter.take_hidden() == 0


@given(st.lists(st.integers(0, 5 * SECOND), max_size=200))
def test_told_and_hidden_are_all(times: list[int]) -> None:
    """And no second has more lines than allowed, whenever it begins on a line."""
    limiter = Limiter(per_second=4)
    times.sort()
    told = [at for at in times if limiter.admit(at)]
    assert len(told) + limiter.take_hidden() == len(times)
    assert all(sum(begin <= at < begin + SECOND for at in told) <= 8 for begin in told)


def test_a_line_says_who_where_and_when() -> None:
    """The thread by number and name, code and data by object and offset, the time since arming."""
    fault = Fault(
        15_300_000, "major", 1234, "worker", 0, 1, "/usr/lib/libfoo.so", 0x1234, 2, "/data", 0x2000
    )
    assert describe(fault, "app", 3_000_000) == (
        "major fault in app[1234/worker] at /usr/lib/libfoo.so+0x1234 touching /data+0x2000, "
        "12.3 ms after arming"
    )


def test_a_line_does_not_repeat_the_name_of_the_main_thread() -> None:
    """Nor gives an offset into the kernel."""
    fault = Fault(3, "minor", 77, "app", 0, 1, "[kernel]", 0, 2, "[stack]", 8)
    assert describe(fault, "app", 3) == (
        "minor fault in app[77] inside a system call touching [stack]+0x8, 0.0 ms after arming"
    )
