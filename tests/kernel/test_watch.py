"""What the watcher promises of faults: counted as the kernel counts, placed where they fell."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from rtlaunch.core.faults import WatchResult
from rtlaunch.core.options import Reaction
from rtlaunch.engine import bell, watch
from rtlaunch.engine.feed import Feed, explain
from rtlaunch.linux import libc, proc
from rtlaunch.linux.libc import NUMBERS
from tests.host import wait_until
from tests.kernel import seccomp
from tests.kernel.execve import NOBODY, become_user, in_child
from tests.kernel.faulting import (
    LOG,
    NONE,
    PAGE,
    Faulter,
    Watching,
    make_file,
    need_perf,
    running,
    watching,
)
from tests.skips import skip

PAGES = 1024
STORM_PAGES = 20_000
STRANGER = 54321  # a user that nobody else pins memory as
RING_RECORDS = 256 * 1024 // 40
RING_MAPPINGS = 256 * 1024 // 64


@pytest.fixture(scope="module", autouse=True)
def perf() -> None:
    """perf is to be had by us."""
    need_perf()


@pytest.fixture(scope="module")
def file(room: Path) -> Path:
    return make_file(room / "data", PAGES)


@pytest.fixture
def program(targets: Path) -> Path:
    return targets / "faulter"


@pytest.fixture
def faulter(program: Path, file: Path) -> Any:
    with running(program, file) as target:
        yield target


def need_root() -> None:
    if os.geteuid() != 0:
        skip("not-root")


def need_unprivileged_perf() -> None:
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 2:
        skip("paranoid-perf")


def as_nobody(function: Any) -> Any:
    """Run ``function`` as a user without privileges and return its value."""

    def change_and_call() -> Any:
        become_user(NOBODY)
        return function()

    need_root()
    return in_child(change_and_call)


# ---- counting


def test_each_major_fault_is_counted(faulter: Faulter) -> None:
    """N evicted pages touched: N by perf and N by the kernel, none lost."""
    with watching(faulter) as watched:
        faulter.say("touch 0 500")
        result = watched.stop()
    assert watched.major == 500
    assert (result.source, result.perf_major, result.lost) == ("perf", 500, 0)


def test_no_fault_is_counted_as_none(faulter: Faulter) -> None:
    """Pages that are in memory: 0 by perf and by the kernel."""
    faulter.say("touch 0 500")
    with watching(faulter) as watched:
        faulter.say("touch 0 500")
        result = watched.stop()
    assert (watched.major, result.perf_major, result.faults) == (0, 0, ())


def test_minor_faults_that_nobody_asked_for_are_left_to_the_kernel(faulter: Faulter) -> None:
    """Every thread would pay for an event that tells what stat tells."""
    with watching(faulter) as watched:
        faulter.say("anonymous 300")
        result = watched.stop()
    assert (result.perf_minor, watched.minor >= 300) == (None, True)
    assert (result.faults, watched.heard.lines) == ((), [])


def test_faults_before_arming_do_not_count(faulter: Faulter) -> None:
    """The watch is open before it is armed; what fell in between is not reported."""
    wanted = watch.Wanted("auto", LOG, NONE)
    opened = watch.open_watch(faulter.pid, wanted, faulter.name(), faulter.mappings())
    faulter.say("touch 0 100")
    armed_ns = time.monotonic_ns()
    opened.arm(armed_ns)
    faulter.say("touch 100 7")
    result = opened.stop()
    assert result.perf_major == len(result.faults) == 7
    assert all(fault.at_ns >= armed_ns for fault in result.faults)


def test_faults_in_a_system_call_are_counted_and_said_to_be_there(faulter: Faulter) -> None:
    """With privileges perf sees what write(2) faults in; its code is the kernel's."""
    with watching(faulter) as watched:
        faulter.say("write 0 50")
        result = watched.stop()
    assert watched.major == result.perf_major == 50
    assert {fault.ip_object for fault in result.faults} == {"[kernel]"}
    assert "inside a system call" in watched.heard.lines[0]


def test_a_storm_is_accounted_to_the_last_fault(program: Path, here: Path) -> None:
    """Far more faults than the rings hold, and nobody to empty them: captured + lost = all."""
    with (
        running(program, make_file(here / "big", STORM_PAGES)) as faulter,
        watching(faulter, start=False) as watched,
    ):
        faulter.say(f"touch 0 {STORM_PAGES}")
        result = watched.stop()
    rings = len(os.sched_getaffinity(0))
    assert watched.major == result.perf_major == STORM_PAGES
    assert result.lost is not None
    assert result.lost >= STORM_PAGES - rings * RING_RECORDS > 0
    captured = len(result.faults) + result.faults_omitted
    assert captured + result.lost == STORM_PAGES
    assert result.lost_records in (0, 1)  # PERF_FORMAT_LOST says the same; 1 is the target's exit


def test_a_storm_is_kept_up_with(program: Path, here: Path) -> None:
    """With the watcher running, each fault of a storm is on its site or counted as lost."""
    with (
        running(program, make_file(here / "big", STORM_PAGES)) as faulter,
        watching(faulter) as watched,
    ):
        faulter.say(f"touch 0 {STORM_PAGES}")
        result = watched.stop()
    on_sites = sum(site.count for site in result.sites)
    assert watched.major == STORM_PAGES == on_sites + (result.lost or 0)
    assert len(watched.heard.lines) + watched.heard.hidden + result.hidden == on_sites


def test_a_ring_is_emptied_and_used_again(program: Path, here: Path) -> None:
    """More faults than it holds, not at once: none is lost, and each has its offset."""
    chunk = RING_RECORDS * 3 // 4
    with (
        running(program, make_file(here / "big", STORM_PAGES)) as faulter,
        watching(faulter) as watched,
    ):
        for first in range(0, 4 * chunk, chunk):
            faulter.say(f"touch {first} {chunk}")
            switches_at_rest(watched)
        result = watched.stop()
    (site,) = result.sites
    assert (result.perf_major, result.lost, site.count) == (4 * chunk, 0, 4 * chunk)
    assert (site.lowest_offset, site.highest_offset) == (0, (4 * chunk - 1) * PAGE)


def test_a_child_is_not_counted_with_the_target(faulter: Faulter) -> None:
    """The faults of a forked child are its own."""
    with watching(faulter) as watched:
        faulter.say("child 0 100")
        result = watched.stop()
    assert result.perf_major == 0


# ---- placing


def test_a_fault_is_placed_in_the_file_that_it_touched(faulter: Faulter, file: Path) -> None:
    """Mapping and offset are exact, page by page, and so are address and order."""
    with watching(faulter) as watched:
        faulter.say("touch 700 20")
        result = watched.stop()
    places = [(fault.mapping, fault.mapping_offset, fault.address) for fault in result.faults]
    wanted = range(700 * PAGE, 720 * PAGE, PAGE)
    assert places == [(str(file), offset, faulter.address + offset) for offset in wanted]


def test_a_fault_is_placed_at_the_code_that_took_it(faulter: Faulter, program: Path) -> None:
    """The instruction lies in the program, in the function that touches."""
    with watching(faulter) as watched:
        faulter.say("touch 0 20")
        result = watched.stop()
    (site,) = result.sites
    assert (site.ip_object, site.count) == (str(program), 20)
    assert function_at(program, site.ip_offset) == "touch"
    assert (site.lowest_offset, site.highest_offset) == (0, 19 * PAGE)


def function_at(program: Path, file_offset: int) -> str:
    """Return the function whose code lies at an offset of an ELF file."""
    with program.open("rb") as stream:
        elf = ELFFile(stream)
        address = next(
            segment["p_vaddr"] + file_offset - segment["p_offset"]
            for segment in elf.iter_segments("PT_LOAD")
            if 0 <= file_offset - segment["p_offset"] < segment["p_filesz"]
        )
        return next(
            str(symbol.name)
            for symbol in elf.get_section_by_name(".symtab").iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC"
            and symbol["st_value"] <= address < symbol["st_value"] + symbol["st_size"]
        )


def test_a_fault_is_placed_in_a_mapping_made_after_arming(faulter: Faulter, here: Path) -> None:
    """perf's own map records place it; /proc is not read again."""
    fresh = make_file(here / "fresh", 8)
    with watching(faulter) as watched:
        faulter.say(f"map {fresh}")
        faulter.evict()
        faulter.say("touch 3 2")
        result = watched.stop()
    assert [(f.mapping, f.mapping_offset) for f in result.faults[-2:]] == [
        (str(fresh), 3 * PAGE),
        (str(fresh), 4 * PAGE),
    ]


def test_records_of_different_cpus_are_put_in_order(faulter: Faulter, here: Path) -> None:
    """Mapped on one CPU and touched on another: the fault comes after the mapping."""
    first, *others = sorted(os.sched_getaffinity(faulter.pid))
    if not others:
        skip("one-cpu")
    fresh = make_file(here / "fresh", 8)
    with watching(faulter, start=False) as watched:
        os.sched_setaffinity(faulter.pid, {others[0]})
        faulter.say(f"map {fresh}")
        faulter.evict()
        os.sched_setaffinity(faulter.pid, {first})
        faulter.say("touch 3 1")
        result = watched.stop()
    last = result.faults[-1]
    assert (last.cpu, last.mapping, last.mapping_offset) == (first, str(fresh), 3 * PAGE)


def test_a_thread_made_after_arming_is_watched_under_its_name(faulter: Faulter) -> None:
    """Tid and name are the thread's, in the record and in the line."""
    with watching(faulter) as watched:
        faulter.say("thread worker 0 10")
        result = watched.stop()
    assert watched.major == result.perf_major == len(result.faults) == 10
    assert {fault.thread for fault in result.faults} == {"worker"}
    (tid,) = {fault.tid for fault in result.faults}
    assert tid != faulter.pid
    assert f"major fault in faulter[{tid}/worker] at " in watched.heard.lines[0]


def test_a_thread_made_before_arming_is_watched(faulter: Faulter) -> None:
    """A constructor of a library may have made threads before main()."""
    faulter.say("park early 0 10")
    with watching(faulter) as watched:
        faulter.say("unpark")
        result = watched.stop()
    assert watched.major == result.perf_major == len(result.faults) == 10


def test_a_fault_tells_its_cpu(faulter: Faulter) -> None:
    """Each CPU that the target may use is watched."""
    cpus = sorted(os.sched_getaffinity(faulter.pid))
    with watching(faulter) as watched:
        for index, cpu in enumerate(cpus):
            os.sched_setaffinity(faulter.pid, {cpu})
            faulter.say(f"touch {index} 1")
        result = watched.stop()
    assert [fault.cpu for fault in result.faults] == cpus


def test_faults_are_told_as_they_come(faulter: Faulter) -> None:
    """The line is there while the target runs, not when it has ended."""
    with watching(faulter) as watched:
        faulter.say("touch 5 1")
        wait_until(lambda: watched.heard.lines, "no line came")
        assert f"touching {faulter.file}+0x5000, " in watched.heard.lines[0]
        assert watched.heard.lines[0].endswith(" ms after arming")


def test_more_faults_than_people_read_are_hidden_and_counted(faulter: Faulter) -> None:
    """The lines are rate-limited; told and hidden ones are all faults."""
    with watching(faulter) as watched:
        faulter.say("touch 0 500")
        result = watched.stop()
    assert len(watched.heard.lines) < 100
    assert len(watched.heard.lines) + watched.heard.hidden + result.hidden == 500


# ---- what the options ask


def test_none_tells_nothing_and_counts(faulter: Faulter) -> None:
    """With --on-major none no line is told; the record is as ever."""
    with watching(faulter, on_major=NONE) as watched:
        faulter.say("touch 0 10")
        result = watched.stop()
    assert (watched.heard.lines, result.hidden) == ([], 0)
    assert len(result.faults) == 10


def test_a_fault_brings_the_signal_that_was_asked_for(faulter: Faulter) -> None:
    """--on-major signal:USR1."""
    with watching(faulter, on_major=Reaction("signal", signal.SIGUSR1)) as watched:
        faulter.say("touch 0 1")
        wait_until(lambda: watched.heard.signals, "no signal was asked for")
        assert watched.heard.signals == [signal.SIGUSR1]


def test_a_limit_is_told_once_when_it_is_exceeded(faulter: Faulter) -> None:
    """--max-major 5: nothing at the fifth fault, once after it."""
    with watching(faulter, max_major=5) as watched:
        faulter.say("touch 0 5")
        wait_until(lambda: len(watched.heard.lines) == 5, "five lines did not come")
        assert watched.heard.limits == []
        faulter.say("touch 5 1")
        wait_until(lambda: watched.heard.limits, "the limit was not noticed")
        faulter.say("touch 6 50")
        watched.stop()
    assert watched.heard.limits == [("major", 6)]


def test_minor_faults_are_seen_one_by_one_when_asked(faulter: Faulter) -> None:
    """--on-minor log: each has its place, and the limit on them is noticed."""
    with watching(faulter, on_minor=LOG, max_minor=100) as watched:
        faulter.say("anonymous 200")
        result = watched.stop()
    minor = [fault for fault in result.faults if fault.kind == "minor"]
    assert len(minor) == result.perf_minor == watched.minor >= 200
    assert sum(fault.mapping == "//anon" for fault in minor) >= 200
    assert [kind for kind, _ in watched.heard.limits] == ["minor"]


# ---- the watcher itself


def test_at_rest_the_watcher_is_not_woken(faulter: Faulter) -> None:
    """An idle target: no switch in two seconds, by the kernel's count for that thread."""
    with watching(faulter) as watched:
        before = switches_at_rest(watched)
        wait_until(after_seconds(2), "the clock stands")
        assert switches(watched.watch.tid) == before


def test_what_is_no_fault_does_not_wake_the_watcher(faulter: Faulter) -> None:
    """Mappings, new threads and their names go into the ring in silence."""
    with watching(faulter) as watched:
        before = switches_at_rest(watched)
        faulter.say("park newcomer 0 0")
        for _ in range(20):
            faulter.say("anonymous 10")
        assert switches(watched.watch.tid) == before


def test_the_watcher_is_held_only_while_it_sleeps(faulter: Faulter) -> None:
    """Who wants to fork is told that it is busy telling of a fault, and then, that it sleeps."""
    with watching(faulter) as watched:
        wait_until(lambda: held(watched.watch), "the watcher does not sleep")
        telling, told, slept = (threading.Event() for _ in range(3))
        watched.heard.fault = lambda *_: (telling.set(), told.wait(10))  # type: ignore[method-assign]
        watched.heard.sleeps = lambda: slept.set() if told.is_set() else None  # type: ignore[method-assign]
        faulter.evict()
        faulter.say("touch 0 1")
        assert telling.wait(10)
        assert not held(watched.watch)
        told.set()
        assert slept.wait(10)
        wait_until(lambda: held(watched.watch), "the watcher does not sleep")


def test_a_watcher_that_is_held_loses_nothing(faulter: Faulter) -> None:
    """What fell meanwhile is taken in when it is let go."""
    with watching(faulter) as watched:
        faulter.evict()
        wait_until(watched.watch.hold, "the watcher does not sleep")
        before = taken(watched.watch)
        faulter.say("touch 0 1")
        assert taken(watched.watch) == before
        watched.watch.let_go()
        wait_until(lambda: taken(watched.watch) > before, "the fault is not taken in")


def taken(watched: watch.Watch) -> int:
    """Return how many faults the watcher has taken in."""
    return sum(site.count for site in watched.so_far().sites)


def held(watched: watch.Watch) -> bool:
    """Tell whether the watcher can be held, and let it go again."""
    if not watched.hold():
        return False
    watched.let_go()
    return True


def test_the_end_of_a_thread_does_not_wake_the_watcher(faulter: Faulter) -> None:
    """Two CPUs are the target's own as long as it takes no faults; the kernel's count again."""
    if not bell.rings_for_all():
        skip("no-bell")
    with watching(faulter) as watched:
        before = switches_at_rest(watched)
        for _ in range(20):
            faulter.say("thread worker 0 0")
        assert switches(watched.watch.tid) == before


@pytest.mark.parametrize("since", [(0, 0), (1000, 0)], ids=["bell", "poll"])
def test_each_fault_wakes_the_watcher(
    faulter: Faulter, since: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first as well as those after it, on kernels where the bell rings and where it cannot."""
    monkeypatch.setattr(bell, "SINCE", since)
    with watching(faulter) as watched:
        switches_at_rest(watched)
        for first in range(5):
            faulter.say(f"touch {first} 1")
            told = first + 1
            wait_until(lambda told=told: len(watched.heard.lines) == told, "a fault was not told")


@pytest.mark.parametrize("since", [bell.SINCE, (1000, 0)], ids=["bell", "poll"])
def test_mappings_that_fill_the_ring_are_read_in_time(
    faulter: Faulter, since: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a ring holds, and no fault: none is lost."""
    monkeypatch.setattr(bell, "SINCE", since)
    os.sched_setaffinity(faulter.pid, {min(os.sched_getaffinity(faulter.pid))})
    with watching(faulter) as watched:
        for _ in range(RING_MAPPINGS * 3 // 2):
            faulter.say("anonymous 1")
        result = watched.stop()
    assert (result.lost, result.lost_records) == (0, 0)


def after_seconds(seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def switches_at_rest(watched: Watching) -> list[str]:
    """Return the watcher's switches once it has started and they no longer change."""
    wait_until(lambda: watched.watch.tid, "the watcher did not start")
    last: list[str] = []
    rested = after_seconds(0)

    def same() -> bool:
        nonlocal last, rested
        now = switches(watched.watch.tid)
        if now != last:
            last, rested = now, after_seconds(0.1)
        return bool(rested())

    wait_until(same, "the watcher does not come to rest")
    return last


def switches(tid: int) -> list[str]:
    """Return the lines of a thread's status that count its context switches."""
    lines = Path(f"/proc/{os.getpid()}/task/{tid}/status").read_text().splitlines()
    return [line for line in lines if "ctxt_switches" in line]


def test_the_watcher_keeps_off_the_targets_cpus(faulter: Faulter) -> None:
    """A target bound to one CPU: the watcher runs on the others."""
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        skip("one-cpu")
    taken = {min(cpus)}
    os.sched_setaffinity(faulter.pid, taken)
    with watching(faulter) as watched:
        wait_until(lambda: watched.watch.tid, "the watcher did not start")
        wait_until(
            lambda: os.sched_getaffinity(watched.watch.tid).isdisjoint(taken), "it does not move"
        )
    assert os.sched_getaffinity(0) == cpus


def test_the_watcher_has_no_real_time_policy(program: Path, file: Path) -> None:
    """Under a launcher with SCHED_FIFO the thread is a normal one."""
    need_root()

    def policy() -> int:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        with running(program, file) as faulter, watching(faulter) as watched:
            wait_until(lambda: watched.watch.tid, "the watcher did not start")
            faulter.say("touch 0 1")
            wait_until(lambda: watched.heard.lines, "no line came")
            return os.sched_getscheduler(watched.watch.tid)

    assert in_child(policy) == os.SCHED_OTHER


def test_the_watcher_asks_for_short_slices(faulter: Faulter) -> None:
    """The kernel's own word: 0.1 ms, or nothing before Linux 6.12; and it is as nice as we are."""
    with watching(faulter) as watched:
        wait_until(lambda: watched.watch.tid, "the watcher did not start")
        faulter.say("touch 0 1")
        wait_until(lambda: watched.heard.lines, "no line came")
        attr = ctypes.create_string_buffer(48)
        number = {"x86_64": 315}.get(os.uname().machine, 275)  # sched_getattr(2)
        assert ctypes.CDLL(None).syscall(number, watched.watch.tid, attr, len(attr), 0) == 0
    assert int.from_bytes(attr.raw[24:32], sys.byteorder) in (0, 100_000)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert int.from_bytes(attr.raw[16:20], sys.byteorder, signed=True) == ours


BROKEN = [OSError(errno.EIO, "broken"), ValueError("broken"), MemoryError("broken")]


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_a_watcher_that_fails_says_why(
    faulter: Faulter, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is in ``why``, what it counted of minor faults is no count, and nothing hangs."""

    def broken(_: object) -> None:
        raise error

    monkeypatch.setattr(Feed, "read", broken)
    with watching(faulter) as watched:
        faulter.say("touch 0 1")
        wait_until(lambda: watched.watch.why, "the failure is not told")
        result = watched.stop()
    assert result.why == f"the watcher failed: {error!r}"
    assert result.perf_minor is None


def test_stopping_leaves_nothing_open(faulter: Faulter) -> None:
    """Descriptors, threads and ring mappings are as before."""
    before = possessions()
    with watching(faulter) as watched:
        faulter.say("touch 0 10")
        assert possessions() != before
        watched.watch.stop()
        watched.result = WatchResult("", "")
    wait_until(lambda: possessions() == before, "something is left")  # a thread takes a while to go


def possessions() -> tuple[list[str], int, int]:
    maps = Path("/proc/self/maps").read_text()
    threads = proc.thread_ids(os.getpid())
    return sorted(os.listdir("/proc/self/fd")), maps.count("perf_event"), len(threads)


# ---- images exec()ed in place


def test_the_start_of_a_proven_image_does_not_count(faulter: Faulter, here: Path) -> None:
    """What an image faults in between its exec and its proof is told apart from its own faults."""
    cold = Path(shutil.copy(faulter.program, here / "cold"))
    forget(cold)
    with watching(faulter) as watched:
        faulter.say("touch 0 3")
        faulter.become(cold, faulter.file)
        faulter.evict()
        watched.rearm()
        faulter.say("touch 10 5")
        result = watched.stop()
        assert watched.after_arm(result) == 8
    assert (result.perf_major, result.earlier_major) == (8, 3)
    assert result.between_major >= 1
    assert watched.major == 8 + result.between_major
    assert {fault.ip_object for fault in result.faults[3:]} == {str(cold)}
    assert len(result.execs) == 1
    assert result.unannounced == ()


@pytest.mark.parametrize("uid", [0, NOBODY], ids=["root", "nobody"])
def test_what_exec_itself_faults_in_is_nobodys_fault(
    program: Path, file: Path, here: Path, uid: int
) -> None:
    """The kernel clears memory of a new image, in a system call that perf may not see into."""
    need_root()
    need_unprivileged_perf()
    cold = Path(shutil.copy(Path("/usr/bin/python3").resolve(), here / "cold"))
    script = here / "script.py"
    script.write_text("print('ready 0x0', flush=True)\ninput()\n")

    def counts() -> tuple[int, int]:
        become_user(uid)
        with running(program, file) as faulter, watching(faulter) as watched:
            forget(cold)
            faulter.become(cold, script)
            watched.rearm()
            result = watched.stop()
            return watched.major, watched.after_arm(result)

    all_of_them, after_arm = in_child(counts)
    assert all_of_them > 0
    assert after_arm == 0


def forget(path: Path) -> None:
    """Drop a file that nobody maps from memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_an_image_that_no_shim_announces_is_told(
    faulter: Faulter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs, after its time is over, and in the result; its faults count."""
    monkeypatch.setattr(watch, "EXEC_PATIENCE_NS", 50_000_000)
    with watching(faulter) as watched:
        faulter.become(faulter.program, faulter.file)
        wait_until(lambda: watched.heard.strange, "nothing was told")
        faulter.evict()
        result = watched.stop()
    assert tuple(watched.heard.strange) == result.unannounced == result.execs
    assert result.perf_major == watched.major


def test_every_exec_of_a_chain_is_noticed(
    faulter: Faulter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentinel ends with each image, and is there again for the next."""
    monkeypatch.setattr(watch, "EXEC_PATIENCE_NS", 50_000_000)
    with watching(faulter) as watched:
        for count in (1, 2, 3):
            faulter.become(faulter.program, faulter.file)
            wait_until(
                lambda wanted=count: len(watched.heard.strange) == wanted, "an exec went unnoticed"
            )
        assert watched.stop().unannounced == tuple(watched.heard.strange)


@pytest.mark.parametrize("how", ["exec", "threadexec"])
@pytest.mark.parametrize("start", [True, False], ids=["watched", "unread"])
def test_an_exec_is_noticed_whoever_does_it(
    faulter: Faulter, how: str, start: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first thread or another, and even if nobody looked before the end."""
    monkeypatch.setattr(watch, "EXEC_PATIENCE_NS", 50_000_000)
    with watching(faulter, start=start) as watched:
        faulter.become(faulter.program, faulter.file, how)
        if start:
            wait_until(lambda: watched.heard.strange, "the exec went unnoticed")
        result = watched.stop()
    assert len(result.execs) == 1
    assert result.unannounced == result.execs


def test_before_linux_5_13_an_exec_is_told_in_the_end(
    faulter: Faulter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that knows neither inherit_thread nor remove_on_exec: by its record, uncounted."""
    real, young = libc.perf_event_open, 3 << 35

    def old(attr: bytes, pid: int, cpu: int) -> int:
        if int.from_bytes(attr[40:48], sys.byteorder) & young:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(attr, pid, cpu)

    monkeypatch.setattr(libc, "perf_event_open", old)
    with watching(faulter) as watched:
        faulter.become(faulter.program, faulter.file)
        faulter.evict()
        faulter.say("touch 0 3")
        result = watched.stop()
    assert len(result.execs) == len(result.unannounced) == 1
    assert {fault.mapping for fault in result.faults[-3:]} == {str(faulter.file)}
    assert result.perf_major is None
    assert "5.13" in watched.watch.why


def test_an_image_that_was_announced_may_take_its_time(
    faulter: Faulter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locking takes minutes where memory is large: once announced, nothing is told."""
    monkeypatch.setattr(watch, "EXEC_PATIENCE_NS", 50_000_000)
    with watching(faulter) as watched:
        faulter.become(faulter.program, faulter.file)
        watched.watch.announced(time.monotonic_ns())
        wait_until(after_seconds(0.3), "the clock stands")
        assert watched.heard.strange == []
        assert watched.stop().unannounced == ()


def test_an_image_that_ends_perf_is_watched_anew(
    faulter: Faulter, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exec of a set-uid program ends all events in silence; who may, opens them again."""
    need_root()
    monkeypatch.setattr(watch, "EXEC_PATIENCE_NS", 50_000_000)
    program = Path(shutil.copy(faulter.program, here / "setuid"))
    os.chown(program, NOBODY, NOBODY)
    program.chmod(0o4755)
    with watching(faulter) as watched:
        faulter.become(program, faulter.file)
        page = iter(range(PAGES))

        def seen() -> list[str]:
            faulter.say(f"touch {next(page)} 1")
            return watched.heard.lines

        faulter.evict()
        wait_until(seen, "no fault of the new image was seen")
        assert watched.watch.why == ""


def test_an_image_that_may_not_be_watched_is_told(program: Path, file: Path, here: Path) -> None:
    """An unreadable program, by a user without privileges: the watch says that it ended."""
    need_unprivileged_perf()
    unreadable = Path(shutil.copy(program, here / "unreadable"))
    unreadable.chmod(0o711)

    def ending() -> tuple[str, int | None]:
        with running(program, file) as faulter, watching(faulter) as watched:
            faulter.become(unreadable, file)
            wait_until(lambda: "ended by an exec" in watched.watch.why, "the end went unnoticed")
            result = watched.stop()
            return result.why, result.perf_minor

    why, minor = as_nobody(ending)
    assert "may not be traced by us" in why
    assert minor is None  # counted up to there is not counted


# ---- where perf is limited, or not to be had


def test_without_privileges_faults_in_system_calls_are_unseen(program: Path, file: Path) -> None:
    """The kernel counts them, perf does not, and ``why`` says so."""
    need_unprivileged_perf()

    def counts() -> tuple[int, int | None, str]:
        with running(program, file) as faulter, watching(faulter) as watched:
            faulter.say("touch 0 20")
            faulter.say("write 100 30")
            result = watched.stop()
            return watched.major, result.perf_major, result.why

    major, seen, why = as_nobody(counts)
    assert (major, seen) == (50, 20)
    assert "without faults inside system calls" in why


def test_another_users_process_cannot_be_watched() -> None:
    """/proc takes over, and the reason is named."""
    parent = os.getpid()

    def opened() -> tuple[str, str]:
        wanted = watch.Wanted("auto", LOG, NONE)
        found = watch.open_watch(parent, wanted, "parent", ())
        return found.source, found.why

    source, why = as_nobody(opened)
    assert source == "proc"
    assert why.startswith("perf_event_open: Permission denied: ")


@pytest.mark.parametrize("action", [seccomp.EPERM_ANSWER, seccomp.DEATH], ids=["EPERM", "SIGSYS"])
def test_a_seccomp_filter_on_perf_is_survived_and_named(
    program: Path, file: Path, action: int
) -> None:
    """/proc takes over where a filter forbids perf, even if it kills who tries."""

    def opened() -> tuple[str, str]:
        seccomp.answer(NUMBERS[os.uname().machine]["perf_event_open"], action)
        with running(program, file) as faulter, watching(faulter) as watched:
            return watched.watch.source, watched.watch.why

    source, why = in_child(opened)
    assert source == "proc"
    assert why.endswith(": a seccomp filter is in force")


def test_many_watches_of_one_user_share_what_may_be_pinned(program: Path, file: Path) -> None:
    """Rings shrink from one launcher to the next before perf is given up, with the reason."""
    need_root()
    need_unprivileged_perf()

    def rings() -> tuple[list[int], str]:
        become_user(STRANGER)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        sizes, feeds, why = [], [], ""
        with running(program, file) as faulter:
            while not why and len(feeds) < 200:
                feeds.append(Feed(faulter.pid))
                try:
                    feeds[-1].open()
                    sizes.append(feeds[-1].ring_bytes)
                except OSError as error:
                    why = explain(error, faulter.pid)
            for feed in feeds:
                feed.close()
        return sizes, why

    sizes, why = in_child(rings)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2
    assert "perf_event_mlock_kb" in why


def test_proc_needs_no_thread_and_counts_nothing_itself(faulter: Faulter) -> None:
    """--watch proc: no event is opened, the caller's two readings of stat are all."""
    before = possessions()
    with watching(faulter, source="proc") as watched:
        assert possessions() == before
        faulter.say("touch 0 10")
        result = watched.stop()
    assert (result.source, result.why, result.perf_major) == ("proc", "asked for", None)
    assert watched.major == 10
