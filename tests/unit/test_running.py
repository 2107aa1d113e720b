"""What is said of a process that runs already, before and after anybody touches it."""

from __future__ import annotations

import pytest

from rtlaunch.core import outcome as report
from rtlaunch.core import proof, running
from rtlaunch.core.findings import Finding
from rtlaunch.core.outcome import Outcome, UnlockedMapping
from rtlaunch.core.proc import Mapping, Stat, Status
from rtlaunch.core.running import Caller
from rtlaunch.report import reading

PAGE = 4096


def status(**named) -> Status:
    whole = {"name": "app", "state": "S", "pid": 12, "ppid": 3, "uids": (0,) * 4, "gids": (0,) * 4}
    return Status(**{**whole, "tgid": 12, **named})


def stat(state: str = "S", flags: int = 0) -> Stat:
    return Stat(12, "app", state, 3, 0, flags, *(0,) * 9)


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ((status(), stat()), ""),
        ((status(tgid=7), stat()), "process-unsuitable"),
        ((status(), stat(flags=running.PF_KTHREAD)), "process-unsuitable"),
        ((status(), stat("Z")), "process-missing"),
    ],
)
def test_what_has_no_memory_of_its_own_is_named(about, code):
    """Threads, the kernel's threads and zombies are refused."""
    found = running.unsuitable(*about)
    assert (found.code if found else "") == code


def test_only_the_machines_own_init_must_not_be_stopped():
    """A container's process 1 may be, and we ourselves cannot be."""
    initial = running.INITIAL_PID_NAMESPACE
    assert running.untouchable(status(pid=1), Caller(50, initial))
    assert not running.untouchable(status(pid=1), Caller(50, initial - 1))
    assert running.untouchable(status(pid=50), Caller(50, initial - 1))
    assert not running.untouchable(status(), Caller(50, initial))


def mapping(start: int, rss: int, *flags: str) -> Mapping:
    return Mapping(
        start, start + 2 * PAGE, "rw-p", 0, "00:00", 0, "", rss, 0, frozenset(flags)
    )  # fmt: skip


def test_a_mapping_locked_on_fault_need_not_be_resident():
    """The kernel says lf of it; without, its pages must be there."""
    mappings = (
        mapping(0x1000, 0, "lo", "lf"),
        mapping(0x4000, 0, "lo"),
        mapping(0x8000, 2 * PAGE),
        mapping(0xC000, 2 * PAGE, "lo"),
    )
    books = proof.Books(status(), {}, mappings, True, PAGE)
    found = running.unlocked_mappings(books, lambda _: None)
    assert [(each.start, each.why) for each in found] == [
        (0x4000, proof.NOT_RESIDENT),
        (0x8000, proof.NOT_LOCKED),
    ]


def test_what_lacks_in_one_reading_alone_was_only_on_its_way():
    """Both readings must miss the same."""
    one, two, three = (UnlockedMapping(at, at + 1, "x", 0, "not resident") for at in (1, 2, 3))
    assert running.still_missing((one, two), (two, three)) == (two,)


@pytest.mark.parametrize("code", running._REMEDIES)
def test_a_remedy_for_a_running_process_names_it(code):
    """Nothing of a launch's line is told, and every gap is filled."""
    full = running.with_remedy(Finding(code, "x"), 12, "rtlaunch lock 12")
    assert "%" not in full.set_by + full.try_now + full.for_good
    assert "12" in full.set_by + full.try_now or code == "lock-failed"


def looked_at() -> Outcome:
    outcome = Outcome()
    outcome.target.pid = 12
    outcome.target.images = (report.Image(path="/opt/app", locked=False),)
    outcome.limits = {"memlock": report.Limit(after=(8 << 20, -1))}
    outcome.caps.target = dict.fromkeys(("effective", "permitted"), 1 << 14)
    outcome.lock.locked_bytes, outcome.lock.resident_bytes = 46 << 20, 44 << 20
    outcome.lock.headroom_bytes = -1
    outcome.lock.unlocked_mappings = tuple(
        UnlockedMapping(at << 20, (at << 20) + PAGE, "//anon", 0, "not locked") for at in range(9)
    )
    outcome.lock.stopped_ns = 1_340_000
    outcome.threads = (report.Thread(tid=12, name="a\nb", state="S", major_faults=3),)
    return outcome


def test_a_reading_is_told_in_lines():
    """State, mappings, limits, capabilities and threads; no text of the process breaks a line."""
    lines = reading.status(looked_at()).split("\n")
    assert lines[0] == "not locked: app[12]: 46.0 MiB (44.0 resident), 1 thread"
    assert lines[1] == "  9 mappings not locked and resident, 36 KiB:"
    assert lines[10] == "    and 1 more: --json has all"
    assert "8 MiB (unlimited hard)" in lines[11]
    assert lines[12].endswith("unlimited")
    assert lines[-2].split() == list(reading.COLUMNS)
    assert lines[-1].split()[0] == "12"
    assert len(lines) == 16


def test_a_lock_is_told_in_one_line():
    """How much, of whom, and for how long somebody stood still."""
    told = reading.locked(looked_at())
    assert told == (
        "locked 46.0 MiB (44.0 resident) of app[12] (1 thread); stopped one thread for 1.3 ms"
    )
