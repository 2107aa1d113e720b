"""rtlaunch can be killed at any instant: a program that was not proven dies with it.

And one that was gets the signal it was promised, and nothing is left of the launch.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests import launching
from tests.host import wait_until
from tests.kernel.injecting import build
from tests.kernel.killing import NEVER, STARTED, SURVIVED, Doomed, can_trace, spaced_installation
from tests.kernel.processes import Running, adopting, reap, running, state
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.launching import Launcher

INSTANTS = 300
AT_ONCE = 4
FATES = ("none", "TERM")  # --pdeathsig: the proven target lives on, or dies as well

# Before the target's fork there is nobody to be left, and 900 calls by which the interpreter looks
# for its modules: one in STRIDE of those stands for all, unless EVERY_CALL=1.
LOOKING = frozenset(
    ["newfstatat", "fstat", "lseek", "read", "openat", "close", "getdents64", "ioctl"]
)
STRIDE = 1 if os.environ.get("EVERY_CALL") else 8


@pytest.fixture(autouse=True)
def _adopting() -> Iterator[None]:
    with adopting():
        yield


# ---- the signal that was promised


def kill(run: Running) -> None:
    """Kill rtlaunch, and wait until the last of its threads has ended."""
    os.kill(run.pid, signal.SIGKILL)
    assert run.process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("options", "number"),
    [([], signal.SIGTERM), (["--pdeathsig", "USR1"], signal.SIGUSR1)],
    ids=["default", "USR1"],
)
def test_the_death_of_rtlaunch_reaches_the_program(
    rtlaunch: Launcher, targets: Path, options: list[str], number: int
) -> None:
    """SIGKILL of rtlaunch: the program gets --pdeathsig, TERM by default, and nothing else.

    Often twice, and both times from rtlaunch: the kernel sends it whenever the thread that is the
    parent ends. It first gives the child to a thread of ours that is not ending yet, if there is
    one, here the watcher (kernel/exit.c, forget_original_parent, find_new_reaper). Both threads
    were killed at once, and which of them is quicker nobody can tell.
    """
    with running(rtlaunch, options, [targets / "signals"]) as run:
        kill(run)
        assert run.lines.line() == f"{int(number)} 0 0"
        assert run.end() == -signal.SIGKILL
        assert run.lines.all() in ("", f"{int(number)} 0 0\n")
        assert reap(run.target) == 0


def test_without_a_watcher_it_comes_once(rtlaunch: Launcher, targets: Path) -> None:
    """--watch none: rtlaunch is one thread, whose end is the only one."""
    for _ in range(8):
        with running(rtlaunch, ["--watch", "none"], [targets / "signals"]) as run:
            kill(run)
            assert run.lines.line() == f"{int(signal.SIGTERM)} 0 0"
            run.end()
            assert run.lines.all() == ""
            assert reap(run.target) == 0


def test_with_pdeathsig_none_the_program_lives_on(rtlaunch: Launcher, targets: Path) -> None:
    """Nothing reaches it, and it ends as it likes."""
    with running(rtlaunch, ["--pdeathsig", "none"], [targets / "signals"]) as run:
        kill(run)
        os.kill(run.target, signal.SIGUSR1)
        assert run.lines.line() == f"{int(signal.SIGUSR1)} 0 0"
        assert run.end() == -signal.SIGKILL
        assert reap(run.target) == 0


def test_a_stopped_program_dies_with_rtlaunch_when_it_is_continued(
    rtlaunch: Launcher, targets: Path
) -> None:
    """The promised signal waits for a program that somebody stopped."""
    with running(rtlaunch, [], [targets / "signals", str(int(signal.SIGUSR1))]) as run:
        os.kill(run.target, signal.SIGSTOP)
        wait_until(lambda: state(run.target) == "T", "it does not stop")
        kill(run)
        os.kill(run.target, signal.SIGCONT)
        assert reap(run.target) == -signal.SIGTERM


def test_a_program_of_another_user_gets_it_too(rtlaunch: Launcher, targets: Path) -> None:
    """The kernel forgets the signal at a change of user: it was set after that."""
    if os.geteuid() != 0:
        skip("not-root")
    with running(rtlaunch, ["--user", "65534:65534"], [targets / "signals"]) as run:
        kill(run)
        assert run.lines.line() == f"{int(signal.SIGTERM)} 0 0"
        run.end()
        assert reap(run.target) == 0


# ---- at any instant


def kill_all(kills: Iterable[tuple[Doomed, Callable[[], None]]]) -> tuple[Counter[str], list[str]]:
    """Do all the killings, several at once; return how often each fate came, and what is wrong."""

    def one(doomed: Doomed, kill: Callable[[], None]) -> tuple[str, list[str]]:
        kill()
        fate, wrong = doomed.autopsy()
        if not wrong:
            shutil.rmtree(doomed.folder)
        return fate, [f"{doomed.folder.name}: {each}" for each in wrong]

    with ThreadPoolExecutor(AT_ONCE) as several:
        results = list(several.map(lambda pair: one(*pair), kills))
    return Counter(fate for fate, _ in results), [each for _, wrong in results for each in wrong]


@pytest.mark.timeout(240)
def test_killed_at_any_instant_it_leaves_no_half_started_program(
    targets: Path, tmp_path: Path
) -> None:
    """300 instants, up to some after go: nobody unproven runs or lives on, nothing is left."""
    program, target = launching.stub(), targets / "started"
    span = 2 * seconds_to_main(
        [Doomed(tmp_path / f"probe-{n}", program, target, "TERM") for n in range(AT_ONCE)]
    )
    chance = random.Random(span)
    kills = []
    for index in range(INSTANTS):
        fate = FATES[index % len(FATES)]
        instant = chance.uniform(0, span)
        doomed = Doomed(tmp_path / f"{index}-{fate}-{instant * 1e3:.1f}-ms", program, target, fate)
        kills.append((doomed, lambda d=doomed, at=instant: d.kill_after(at)))
    fates, wrong = kill_all(kills)
    assert wrong == []
    assert min(fates[NEVER], fates[STARTED], fates[SURVIVED]) > INSTANTS // 20, fates


def seconds_to_main(probes: list[Doomed]) -> float:
    """Return how long the slowest of some launches at once takes to main()."""
    began = time.monotonic()
    processes = [probe.start() for probe in probes]
    for probe in probes:
        wait_until(probe.record.exists, "the target does not start")
    took = time.monotonic() - began
    for probe, process in zip(probes, processes, strict=True):
        process.kill()
        process.wait()
        probe.session = process.pid
        assert probe.autopsy() == (STARTED, [])
    return took


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["preloaded", "injected"])
def test_killed_at_any_system_call_it_leaves_no_half_started_program(
    targets: Path, room: Path, tmp_path: Path, kind: str
) -> None:
    """As rtlaunch enters each call of a launch (strace injects SIGKILL): the same.

    With a program that is locked by the shim, and with one that is locked from outside.
    """
    if not can_trace():
        skip("no-strace")
    program = spaced_installation(tmp_path)
    target = targets / "started" if kind == "preloaded" else build("static", "started", room)
    calls = calls_of(Doomed(tmp_path / "probe", program, target, "TERM"))
    kills = []
    for index, (name, count) in enumerate(chosen(calls)):
        fate = FATES[index % len(FATES)]
        doomed = Doomed(tmp_path / f"{name}-{count}-{fate}", program, target, fate)
        kills.append((doomed, lambda d=doomed, call=(name, count): d.kill_at(*call)))
    fates, wrong = kill_all(kills)
    assert wrong == []
    assert min(fates[NEVER], fates[STARTED], fates[SURVIVED]) > 0, fates


def calls_of(probe: Doomed) -> list[tuple[str, int]]:
    """Return the system calls of one launch in order, each with its number among its equals."""
    trace = probe.folder / "trace"
    process = probe.start(["strace", "-qq", "-o", str(trace)])
    wait_until(probe.record.exists, "the target does not start")
    os.kill(int(probe.record.read_text().split()[0]), signal.SIGTERM)
    process.wait(20)
    probe.session = process.pid
    _, wrong = probe.autopsy()
    assert wrong == []
    seen: Counter[str] = Counter()
    calls = []
    for line in trace.read_text().splitlines():
        name = line.partition("(")[0]
        if name.isidentifier():
            seen[name] += 1
            calls.append((name, seen[name]))
    return calls


def chosen(calls: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the calls to be killed at: all from the fork on, before it those that do something."""
    fork = max(at for at, (name, _) in enumerate(calls) if name == "clone")
    looks = [call for call in calls[:fork] if call[0] in LOOKING]
    passed_over = set(looks) - set(looks[::STRIDE])
    return [call for call in calls if call not in passed_over]
