"""How a run ends: with the program's own status, when it ends, and with nobody left unreaped."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rtlaunch.core.units import signal_name
from tests.host import wait_until
from tests.kernel.faulting import make_file
from tests.kernel.processes import (
    PR_SET_CHILD_SUBREAPER,
    adopting,
    children,
    is_alive,
    libc,
    reap,
    running,
    state,
)
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launching import Launcher

# Every code that means something to somebody, and the ends of what a byte can hold.
CODES = [0, 1, 2, 42, 63, 64, 100, *range(122, 132), 137, 139, 143, 192, 200, 254, 255]
DEADLY = [1, 2, 3, 6, 9, 10, 11, 13, 14, 15, 24, 31, 34, 64]
ORPHANS = 1000
REAPED_WITHIN = 10.0  # s; a thousand take 0.3 on an idle machine, most of it to make them


# ---- codes


def test_the_programs_code_is_ours(rtlaunch: Launcher) -> None:
    """Whatever the program exits with; the report says that it was the program who spoke."""
    for code in CODES:
        ran = rtlaunch.run("--lock", "current", "--", "sh", "-c", f"exit {code}")
        assert (ran.code, ran.err) == (code, "")
        assert ran.report["exit"] == {
            "by": "target", "code": code, "signal": None, "core_dumped": None,
            "rtlaunch_code": code,
        }  # fmt: skip


def test_a_program_that_died_of_a_signal_is_128_and_its_number(rtlaunch: Launcher) -> None:
    """128 + N, for the first and last real-time signal as well; the report has the name."""
    for number in DEADLY:
        ran = rtlaunch.run("--core", "0", "--", "sh", "-c", f"kill -{number} $$")
        assert ran.code == 128 + number
        found = ran.report["exit"]
        assert (found["by"], found["code"]) == ("target", None)
        assert found["signal"] == "SIG" + signal_name(number)


def test_a_core_dump_is_told(rtlaunch: Launcher, tmp_path: Path) -> None:
    """With a core limit, core_dumped is what wait(2) says of the same program without rtlaunch."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    bare = subprocess.Popen(["sh", "-c", "ulimit -c $(ulimit -H -c); kill -SEGV $$"], cwd=tmp_path)
    _, end = os.waitpid(bare.pid, 0)
    bare.returncode = end
    ran = rtlaunch.run("--core", "max", "--", "sh", "-c", "kill -SEGV $$", cwd=tmp_path)
    assert ran.code == 128 + signal.SIGSEGV
    assert ran.report["exit"]["core_dumped"] is os.WCOREDUMP(end)
    assert hard == 0 or os.WCOREDUMP(end), "nothing dumped core, so nothing was shown"


def test_no_core_is_told_as_well(rtlaunch: Launcher, tmp_path: Path) -> None:
    """With --core 0: the same death, and no dump."""
    ran = rtlaunch.run("--core", "0", "--", "sh", "-c", "kill -SEGV $$", cwd=tmp_path)
    assert ran.report["exit"]["core_dumped"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["report-1.json"]


@pytest.mark.parametrize(
    ("words", "code", "finding"),
    [
        (["--", "no-such-program-anywhere"], 127, "command-not-found"),
        (["--", "/no/such/program"], 127, "command-not-found"),
        (["--", "/"], 126, "command-not-executable"),
        (["--", "/etc/passwd"], 126, "command-not-executable"),
        (["--limit", "stack=64K", "--", "true"], 125, "stack-limit"),
        (["--cpu-list", "4095", "--", "true"], 125, "cpu-unavailable"),
        (["--no-such-option", "--", "true"], 125, "usage"),
        (["--"], 125, "usage"),
    ],
)
def test_what_did_not_start_has_a_code_of_ours(
    rtlaunch: Launcher,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    finding: str,
) -> None:
    """127 not found, 126 not executable, 125 for all else that is refused; the code is named."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # a folder there that is closed to us makes it 126
    ran = rtlaunch.run(*words)
    assert ran.code == code
    assert ran.err.startswith(f"rtlaunch: refused [{finding}]: ")
    assert ran.out == ""


def test_the_programs_own_125_is_told_from_ours(rtlaunch: Launcher) -> None:
    """The exit code cannot say who spoke; the report does."""
    own = rtlaunch.run("--", "sh", "-c", "exit 125")
    ours = rtlaunch.run("--", "/no/such/program")
    assert own.report["exit"]["by"] == "target"
    assert ours.report["exit"]["by"] == "rtlaunch"
    assert (own.report["verdict"], ours.report["verdict"]) == ("clean", "refused")


# ---- 123


@pytest.fixture(params=["perf", "proc"])
def faulter(
    request: pytest.FixtureRequest, rtlaunch: Launcher, targets: Path, tmp_path: Path
) -> Iterator[Any]:
    """A target whose file is not locked and not in memory, with three major faults allowed."""
    file = make_file(tmp_path / "data", 64)
    options = ["--lock", "current", "--watch", request.param, "--max-major", "3"]
    with running(rtlaunch, options, [targets / "faulter", file]) as found:
        assert found.ask("evict") == "left 0"
        yield found


def test_more_faults_than_allowed_are_123(faulter: Any) -> None:
    """One over --max-major: 123, whatever the program says; perf sees it at once, /proc at exit."""
    faulter.say("touch 0 4")
    faulter.process.stdin.close()
    assert faulter.process.wait(10) == 123
    report = json.loads(faulter.report.read_text())
    assert report["exit"]["rtlaunch_code"] == 123
    assert report["verdict"] == "faulted"
    assert report["watch"]["after_arm"]["major"] >= 4


def test_as_many_faults_as_allowed_are_none_too_many(faulter: Any) -> None:
    """Exactly --max-major: the program's own code."""
    assert faulter.ask("touch 0 3") == "touched"
    assert faulter.end() == 0


def test_a_program_over_its_limit_is_ended(
    rtlaunch: Launcher, targets: Path, tmp_path: Path
) -> None:
    """With perf the program gets SIGTERM while it runs; without, it may run on."""
    file = make_file(tmp_path / "data", 64)
    options = ["--lock", "current", "--max-major", "3"]
    with running(rtlaunch, options, [targets / "faulter", file]) as run:
        assert run.ask("evict") == "left 0"
        run.say("touch 0 10")
        assert run.process.wait(10) == 123
        report = json.loads(run.report.read_text())
        if report["watch"]["source"] != "perf":
            skip("no-perf")
        assert report["exit"]["signal"] == "SIGTERM"


# ---- those who stay behind


@pytest.mark.parametrize("adopts", [False, True], ids=["orphan", "adopted"])
def test_a_program_that_forks_and_leaves_ends_the_run(
    rtlaunch: Launcher, tmp_path: Path, adopts: bool
) -> None:
    """A daemon holds streams and channel open, and may be rtlaunch's own by now: the run ends."""
    out = tmp_path / "out"
    command = ["--", "sh", "-c", "sleep 60 & echo $!; exit 7"]
    with adopting(), out.open("w") as stream:
        how = {"stdout": stream, "stderr": None}
        run = rtlaunch.start(*command, **how, preexec_fn=become_subreaper if adopts else None)
        assert run.wait(10) == 7
        daemon = int(out.read_text())
        assert is_alive(daemon)
        os.kill(daemon, signal.SIGKILL)
        assert reap(daemon) == -signal.SIGKILL


def become_subreaper() -> None:
    """Be whom orphans go to; exec keeps it (prctl(2))."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def test_a_subreaper_reaps_a_thousand_orphans(rtlaunch: Launcher, targets: Path) -> None:
    """Where orphans come to rtlaunch none is left as a zombie, and the target is as before."""
    began = time.monotonic()
    command = [targets / "orphans", str(ORPHANS)]
    with running(rtlaunch, [], command, preexec_fn=become_subreaper) as run:
        assert run.lines.line() == f"left {ORPHANS}"
        wait_until(lambda: children(run.pid) == [run.target], "zombies are left")
        assert time.monotonic() - began < REAPED_WITHIN
        assert run.end() == 0


@pytest.fixture
def as_init(rtlaunch: Launcher) -> Launcher:
    """Run rtlaunch as PID 1 of a namespace, below unshare(1)."""
    rtlaunch.prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*rtlaunch.prefix, "true"], capture_output=True, check=False).returncode:
        skip("no-mount")
    return rtlaunch


def test_as_pid_1_it_reaps_a_thousand_orphans(as_init: Launcher, targets: Path) -> None:
    """As init of a PID namespace: no zombie is left, and the code is the target's."""
    with running(as_init, [], [targets / "orphans", str(ORPHANS)]) as run:
        (init,) = children(run.pid)
        (target,) = children(init)[:1]
        assert run.lines.line() == f"left {ORPHANS}"
        wait_until(lambda: children(init) == [target], "zombies are left")
        assert run.end() == 0


def test_as_pid_1_signals_reach_the_program(as_init: Launcher, targets: Path) -> None:
    """An init gets no signal that it does not take: rtlaunch takes all, and passes them on."""
    with running(as_init, [], [targets / "signals", "10"]) as run:
        (init,) = children(run.pid)
        os.kill(init, signal.SIGUSR1)
        assert run.lines.line() == f"{int(signal.SIGUSR1)} 0 0"
        os.kill(init, signal.SIGTERM)
        assert run.process.wait(10) == 128 + signal.SIGTERM


def test_a_zombie_target_is_not_left(rtlaunch: Launcher) -> None:
    """The program's end is the run's end: rtlaunch reaps it and is gone with it."""
    with running(rtlaunch, [], ["sh", "-c", "echo ready $$; read line; exit 3"]) as run:
        assert state(run.target) in "SR"
        assert run.end() == 3
        assert state(run.target) == ""
