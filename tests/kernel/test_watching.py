"""Watching from end to end: what is said, reported and done of faults, and what it costs at rest.

What the watcher itself promises is tests/kernel/test_watch.py's.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.host import wait_until
from tests.kernel.faulting import PAGE, make_file, need_perf
from tests.kernel.processes import Running, children, running, status, switches
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launching import Launcher

PAGES = 256
STORM_PAGES = 12_500
STORM_ROUNDS = 4
LINES_PER_SECOND = 20  # what people can read
AT_REST_S = 3.0

FAULTABLE = ["--lock", "current"]  # what is mapped later is not locked, and can be evicted


@pytest.fixture(scope="module")
def perf() -> None:
    """perf is to be had by us."""
    need_perf()


@pytest.fixture
def file(here: Path) -> Path:
    """A file of PAGES pages on a disk, that everybody may map; it is in memory still."""
    return make_file(here / "watched", PAGES)


@pytest.fixture
def start(targets: Path, file: Path) -> Any:
    """Run rtlaunch with a target whose mapped file is not in memory."""

    @contextmanager
    def started(launcher: Launcher, *options: str, **how: Any) -> Iterator[Running]:
        command = [targets / "faulter", file]
        with running(launcher, [*FAULTABLE, *options], command, **how) as run:
            yield run

    return started


def evict(run: Running) -> None:
    assert run.ask("evict") == "left 0"
    run.ask("counts")  # what replying takes is in memory


def major(run: Running) -> int:
    """Return the kernel's count of the target's major faults."""
    return int(run.ask("counts").split()[0])


def minor(run: Running) -> int:
    """Return the kernel's count of the target's minor faults."""
    return int(run.ask("counts").split()[1])


def report(run: Running) -> dict[str, Any]:
    """End the target and return the report."""
    run.end()
    assert run.report
    found: dict[str, Any] = json.loads(run.report.read_text())
    return found


# ---- at rest


def assert_at_rest(run: Running) -> None:
    """No thread of rtlaunch wakes up while its target sleeps."""
    wait_until(lambda: stands_still(run.pid, 0.1), "rtlaunch does not come to rest")
    before = switches(run.pid)
    end = time.monotonic() + AT_REST_S
    while time.monotonic() < end:
        assert switches(run.pid) == before
        time.sleep(0.1)


def stands_still(pid: int, seconds: float) -> bool:
    before = switches(pid)
    time.sleep(seconds)
    return switches(pid) == before


@pytest.mark.parametrize("source", ["perf", "proc", "none"])
def test_at_rest_nothing_wakes(start: Any, rtlaunch: Launcher, source: str) -> None:
    """While the target sleeps, no thread of rtlaunch is switched to for three seconds."""
    with start(rtlaunch, "--watch", source) as run:
        assert_at_rest(run)


def test_at_rest_after_all_has_happened(
    start: Any, rtlaunch: Launcher, perf: None, file: Path
) -> None:
    """Faults, a signal, orphans and an armed timer are over: rtlaunch sleeps again."""
    with start(rtlaunch, "--arm", "10ms") as run:
        evict(run)
        run.ask("touch 0 50")
        run.ask("child 60 5")
        os.kill(run.pid, signal.SIGURG)
        assert_at_rest(run)


def test_without_perf_there_is_no_watcher(start: Any, rtlaunch: Launcher) -> None:
    """--watch proc and none: one thread, no event."""
    for source in ("proc", "none"):
        with start(rtlaunch, "--watch", source) as run:
            assert status(run.pid, "Threads") == "1"


# ---- what is told


def test_a_fault_is_told_with_its_place(
    start: Any, rtlaunch: Launcher, perf: None, file: Path, tmp_path: Path
) -> None:
    """On stderr, while the program runs: who, at which instruction, touching what."""
    errors = tmp_path / "errors"
    with errors.open("w") as stream, start(rtlaunch, stderr=stream) as run:
        evict(run)
        run.ask("touch 5 1")
        wait_until(errors.read_text, "nothing is told")
        (line,) = errors.read_text().splitlines()
        assert line.startswith(f"rtlaunch: major fault in faulter[{run.target}] at ")
        assert "/faulter+0x" in line
        assert f" touching {file}+{5 * PAGE:#x}, " in line


def test_with_on_major_none_nothing_is_told(
    start: Any, rtlaunch: Launcher, perf: None, tmp_path: Path
) -> None:
    """The report has it all the same."""
    errors = tmp_path / "errors"
    with errors.open("w") as stream, start(rtlaunch, "--on-major", "none", stderr=stream) as run:
        evict(run)
        run.ask("touch 5 3")
        watch = report(run)["watch"]
    assert errors.read_text() == ""
    assert watch["after_arm"]["major"] >= 3
    assert len(watch["faults"]) == watch["after_arm"]["major"]


def test_a_storm_is_told_in_few_lines_and_accounted_to_the_last(
    start: Any, rtlaunch: Launcher, targets: Path, tmp_path: Path, perf: None
) -> None:
    """50,000 faults: so many lines a second, and told, hidden, lost and unseen ones are all."""
    big, errors = make_file(tmp_path / "big", STORM_PAGES), tmp_path / "errors"
    began = time.monotonic()
    with (
        errors.open("w") as stream,
        running(rtlaunch, FAULTABLE, [targets / "faulter", big], stderr=stream) as run,
    ):
        for _ in range(STORM_ROUNDS):
            evict(run)
            run.ask(f"touch 0 {STORM_PAGES}")
        counted = major(run)
        found = report(run)["watch"]
    lines = errors.read_text().splitlines()
    assert found["after_arm"]["major"] == counted - int(found["before_arm"]["major"])
    assert found["after_arm"]["major"] >= STORM_PAGES * STORM_ROUNDS
    assert 0 < len(lines) <= LINES_PER_SECOND * (time.monotonic() - began + 2)
    placed = sum(site["count"] for site in found["sites"])
    assert placed + found["lost"] + found["unseen"] == found["after_arm"]["major"]
    shown = sum(line.startswith("rtlaunch: major fault") for line in lines)
    assert shown + sum(map(hidden, lines)) == placed


def hidden(line: str) -> int:
    """Return how many faults a line says that it stands for, beside its own."""
    words = line.partition("(")[2] or line.removeprefix("rtlaunch: ")
    return int(words.split()[0]) if " more " in words else 0


# ---- what is reported


def test_the_count_is_the_kernels(start: Any, rtlaunch: Launcher, perf: None) -> None:
    """after_arm.major is what the program's own majflt grew by, to the one; perf places each."""
    if os.geteuid() != 0:
        skip("not-root")  # perf sees no faults inside system calls
    with start(rtlaunch) as run:
        evict(run)
        run.ask("touch 0 100")
        run.ask("thread worker 100 50")
        run.ask("write 150 50")
        counted = major(run)
        found = report(run)
    watch = found["watch"]
    assert watch["after_arm"]["major"] == counted - watch["before_arm"]["major"] >= 200
    assert (watch["source"], watch["lost"], watch["unseen"]) == ("perf", 0, 0)
    assert len(watch["faults"]) + watch["faults_omitted"] == watch["after_arm"]["major"]
    assert {fault["thread"] for fault in watch["faults"]} == {"faulter", "worker"}
    assert found["verdict"] == "faulted"


def test_a_program_without_faults_is_clean(start: Any, rtlaunch: Launcher) -> None:
    """Pages in memory are touched: 0, and clean."""
    with start(rtlaunch) as run:
        run.ask("touch 0 100")
        found = report(run)
    assert (found["watch"]["after_arm"]["major"], found["verdict"]) == (0, "clean")


@pytest.mark.parametrize("user", ["ambient", "limited"])
def test_faults_inside_system_calls_are_unseen_without_privileges(
    start: Any, as_user: Any, user: str
) -> None:
    """50 faults in write(2), 20 outside: the kernel counts 70, perf saw 20, the report says 50."""
    with open("/proc/sys/kernel/perf_event_paranoid") as setting:
        if int(setting.read()) > 2:
            skip("paranoid-perf")
    with start(as_user(user)) as run:
        evict(run)
        before = major(run)
        run.ask("write 0 50")
        run.ask("touch 100 20")
        assert major(run) - before == 70
        watch = report(run)["watch"]
    assert (watch["source"], watch["unseen"], watch["lost"]) == ("perf", 50, 0)
    assert "without faults inside system calls" in watch["why"]


def test_with_proc_faults_are_counted_not_placed(start: Any, rtlaunch: Launcher) -> None:
    """--watch proc: the kernel's count at arm and at exit, no place, and the reason."""
    with start(rtlaunch, "--watch", "proc") as run:
        evict(run)
        run.ask("touch 0 30")
        counted = major(run)
        found = report(run)
    watch = found["watch"]
    assert watch["after_arm"]["major"] == counted - watch["before_arm"]["major"] >= 30
    assert (watch["source"], watch["why"]) == ("proc", "asked for")
    assert (watch["faults"], watch["sites"], watch["unseen"]) == ([], [], None)
    assert found["verdict"] == "faulted"


def test_with_none_nothing_is_counted(start: Any, rtlaunch: Launcher) -> None:
    """--watch none: null, never 0, and no verdict on faults."""
    with start(rtlaunch, "--watch", "none") as run:
        evict(run)
        run.ask("touch 0 30")
        found = report(run)
    assert found["watch"]["after_arm"] == {"major": None, "minor": None}
    assert (found["watch"]["source"], found["verdict"]) == ("none", None)


# ---- when it counts


def test_arming_after_a_time(start: Any, rtlaunch: Launcher) -> None:
    """--arm 1500ms: what came before is in before_arm, what comes after counts."""
    with start(rtlaunch, "--arm", "1500ms") as run:
        evict(run)
        run.ask("touch 0 40")
        touched, early = time.monotonic_ns(), major(run)
        wait_until(lambda: time.monotonic_ns() > touched + 1_600_000_000, "the clock stands")
        evict(run)
        run.ask("touch 0 7")
        late = major(run)
        found = report(run)
    watch, times = found["watch"], found["time"]
    assert times["armed_ns"] - times["go_ns"] == pytest.approx(1.5e9, rel=0.2)
    assert watch["before_arm"]["major"] == early >= 40
    assert watch["after_arm"]["major"] == late - early >= 7


@pytest.mark.parametrize("source", ["perf", "proc"])
def test_minor_faults_are_the_kernels_count(
    start: Any, rtlaunch: Launcher, perf: None, source: str
) -> None:
    """Without an event that each thread would inherit; placed or not, none is missing."""
    with start(rtlaunch, "--lock", "none", "--watch", source) as run:
        early = minor(run)
        run.ask("anonymous 300")
        late = minor(run)
        watch = report(run)["watch"]
    assert watch["after_arm"]["minor"] >= late - early >= 300
    assert 0 <= watch["before_arm"]["minor"] + watch["after_arm"]["minor"] - late < 30  # its end


def test_arming_by_a_signal(start: Any, rtlaunch: Launcher, targets: Path) -> None:
    """--arm signal:USR1: the first one is ours and arms; faults before it do not count."""
    with start(rtlaunch, "--arm", "signal:USR1") as run:
        evict(run)
        run.ask("touch 0 40")
        early = major(run)
        os.kill(run.pid, signal.SIGUSR1)
        wait_until(lambda: stands_still(run.pid, 0.05), "rtlaunch does not come to rest")
        evict(run)
        run.ask("touch 0 7")
        late = major(run)
        watch = report(run)["watch"]
    assert watch["before_arm"]["major"] == early >= 40
    assert watch["after_arm"]["major"] == late - early >= 7


def test_the_arming_signal_is_the_programs_from_then_on(rtlaunch: Launcher, targets: Path) -> None:
    """The first USR1 arms and is not passed on, the second is."""
    with running(rtlaunch, ["--arm", "signal:USR1"], [targets / "signals"]) as run:
        os.kill(run.pid, signal.SIGUSR1)
        wait_until(lambda: stands_still(run.pid, 0.05), "rtlaunch does not come to rest")
        os.kill(run.pid, signal.SIGUSR2)
        os.kill(run.pid, signal.SIGUSR1)
        told = sorted([run.lines.line(), run.lines.line()])
        assert told == sorted(f"{int(one)} 0 0" for one in (signal.SIGUSR1, signal.SIGUSR2))
        assert report(run)["time"]["armed_ns"]


def test_never_armed_is_not_clean(start: Any, rtlaunch: Launcher) -> None:
    """The signal never came: nothing was counted, and nothing is claimed."""
    with start(rtlaunch, "--arm", "signal:USR1") as run:
        found = report(run)
    assert found["time"]["armed_ns"] is None
    assert found["watch"]["after_arm"] == {"major": None, "minor": None}
    assert found["verdict"] is None


# ---- what is done


def test_a_fault_sends_the_signal_that_was_asked_for(
    start: Any, rtlaunch: Launcher, perf: None
) -> None:
    """--on-major signal:USR2: the program, which does not take it, dies of it."""
    with start(rtlaunch, "--on-major", "signal:USR2") as run:
        evict(run)
        run.say("touch 0 1")
        assert run.process.wait(10) == 128 + signal.SIGUSR2


# ---- a program that plays with the channel


@pytest.fixture
def meddler(rtlaunch: Launcher, targets: Path) -> Iterator[Running]:
    """A target that knows where its end of the channel is."""
    with running(rtlaunch, [], [targets / "meddler"]) as run:
        yield run


def test_a_closed_channel_costs_nothing(meddler: Running) -> None:
    """The program closes all descriptors that it does not know: rtlaunch sleeps on, and reports."""
    assert meddler.ask("close") == "done"
    assert_at_rest(meddler)
    found = report(meddler)
    assert (found["exit"]["code"], found["verdict"]) == (9, "clean")


def test_an_image_behind_a_closed_channel_is_not_said_to_be_locked(
    meddler: Running, perf: None
) -> None:
    """It exec()s another program, which cannot announce itself: lock.ok is false, and why."""
    meddler.ask("close")
    meddler.say("become true")
    meddler.process.wait(10)
    found = report(meddler)
    assert (found["lock"]["ok"], found["verdict"]) == (False, "unlocked")
    assert "exec-unannounced" in {finding["code"] for finding in found["findings"]}


def descriptors(pid: int) -> list[str]:
    """Return what a process has open, of each kind how many."""
    return sorted(
        os.readlink(entry).partition(":")[0] for entry in Path(f"/proc/{pid}/fd").iterdir()
    )


WORDS = ["junk 0", "junk 1", "junk 55", "junk 56", "junk 57", "junk 4095"] + [
    f"{who} {kind} {fds}" for who in ("word", "child") for kind in range(9) for fds in (0, 1, 2, 8)
]


def test_no_word_on_the_channel_ends_the_supervision(meddler: Running) -> None:
    """Whatever it sends, with whatever descriptors: it is supervised on, and nothing stays open."""
    meddler.ask("junk 7")
    wait_until(lambda: stands_still(meddler.pid, 0.05), "rtlaunch does not come to rest")
    before = descriptors(meddler.pid)
    for word in WORDS:
        assert meddler.ask(word) == "done", word
    assert meddler.target in children(meddler.pid)
    wait_until(lambda: descriptors(meddler.pid) == before, "descriptors stay open")
    os.kill(meddler.pid, signal.SIGTERM)
    assert meddler.process.wait(10) == 128 + signal.SIGTERM
