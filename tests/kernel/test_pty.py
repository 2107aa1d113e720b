"""On a terminal rtlaunch is not there: keys, job control, hangups act as on the program alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests import launching
from tests.host import wait_until
from tests.kernel.processes import (
    DEADLINE,
    adopting,
    alive_in,
    children,
    is_alive,
    running,
    state,
    status,
)
from tests.kernel.terminal import INTERRUPT, LAST, QUIT, SHELLS, STOP, Job, Terminal, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Launcher

SIGINT, SIGQUIT, SIGWINCH = 2, 3, 28
SIGHUP, SIGCONT = 1, 18
SI_KERNEL, SI_USER = 128, 0  # sigaction(2)


@pytest.fixture(autouse=True)
def _adopting() -> Iterator[None]:
    with adopting():
        yield


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    """An interactive shell on a terminal; rtlaunch and the folder of targets are on its PATH."""
    folders = [launching.stub().parent, request.getfixturevalue("targets")]
    path = ":".join(map(str, [*folders, os.environ["PATH"]]))
    environ = {**os.environ, "PATH": path, "PS1": "$ ", "TERM": "dumb", "ENV": ""}
    with terminal(SHELLS[request.param], env=environ, cwd=tmp_path) as found:
        found.lines.upto("$ ")
        yield found


def start(shell: Terminal, *numbers: int, after: str = "", options: str = "") -> Job:
    """Type the command that runs a target which takes these signals, and the last."""
    words = " ".join(map(str, (*numbers, LAST)))
    shell.type(f"rtlaunch {options} -- signals {words}{after}\n")
    return Job(shell)


# ---- keys


@pytest.mark.parametrize(("key", "number"), [(INTERRUPT, SIGINT), (QUIT, SIGQUIT)])
def test_a_key_that_interrupts_reaches_the_program_once(
    shell: Terminal, key: str, number: int
) -> None:
    r"""Ctrl-C and Ctrl-\: one signal, the terminal's own."""
    job = start(shell, number)
    shell.type(key)
    shell.lines.upto(f"{number} {SI_KERNEL} 0\n")
    assert job.taken() == []


def test_a_kill_of_rtlaunch_on_a_terminal_reaches_the_program_once(shell: Terminal) -> None:
    """kill -INT of rtlaunch: one signal, though it came from no key."""
    job = start(shell, SIGINT)
    os.kill(job.rtlaunch, signal.SIGINT)
    assert job.taken() == [f"{SIGINT} {SI_USER}"]


def test_a_program_that_dies_of_ctrl_c_is_seen_to_have_done_so(shell: Terminal) -> None:
    """The shell's $? is 130, and rtlaunch is gone."""
    job = start(shell)
    shell.type(INTERRUPT)
    shell.lines.upto("$ ")
    shell.type("echo it said $?\n")
    shell.lines.upto("it said 130")
    assert not is_alive(job.rtlaunch)


def test_a_new_window_size_reaches_the_program_once(shell: Terminal) -> None:
    """SIGWINCH is the terminal's, to the whole foreground group."""
    job = start(shell, SIGWINCH)
    shell.resize(40, 100)
    shell.lines.upto(f"{SIGWINCH} {SI_KERNEL} 0\n")
    assert job.taken() == []


EARLY = 60  # interrupts
FREEZE = "\x13"  # Ctrl-S


def test_ctrl_c_at_any_instant_of_the_start_ends_it(tmp_path: Path) -> None:
    """It dies of SIGINT, or the program does; none is lost, nothing is said, nobody is left."""
    argv = [launching.stub(), "-q", "--", "sleep", "60"]
    span = seconds_to_program(argv)
    chance = random.Random(EARLY)
    ends = [end_of_interrupted(argv, chance.uniform(0, span)) for _ in range(EARLY)]
    assert set(ends) <= {(-SIGINT, ""), (128 + SIGINT, "")}, ends


def seconds_to_program(argv: list[str | Path]) -> float:
    """Return how long it takes until the program runs, and a little longer."""
    began = time.monotonic()
    with terminal(argv) as on:
        wait_until(lambda: names(on) == ["sleep"], "the program does not start")
        return 1.2 * (time.monotonic() - began)


def names(on: Terminal) -> list[str]:
    return [status(pid, "Name") for pid in children(on.leader.pid)]


def end_of_interrupted(argv: list[str | Path], seconds: float) -> tuple[int | None, str]:
    """Type Ctrl-C so long after the start; return the exit code, None if it lives on, and output.

    The terminal itself shows nothing of the key.
    """
    with terminal(argv) as on:
        wait_until(lambda: on.foreground() == on.leader.pid, "it has no terminal")
        time.sleep(seconds)
        on.type(INTERRUPT)
        try:
            code = on.leader.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            return None, on.lines.seen
        wait_until(lambda: not alive_in(on.leader.pid), "somebody lives on")
        return code, on.lines.all()


def test_a_terminal_that_was_stopped_does_not_hold_the_end_up(tmp_path: Path) -> None:
    """Ctrl-S, then the program ends: its exit code comes, whether our words are seen or not."""
    argv = [launching.stub(), "-v", "--", "sh", "-c", "echo ready; read line; exit 7"]
    with terminal(argv) as on:
        on.lines.upto("ready")
        on.type(FREEZE)
        on.type("\n")
        assert on.leader.wait(DEADLINE) == 7


# ---- jobs


def test_ctrl_z_stops_the_job_and_fg_continues_it(shell: Terminal) -> None:
    """The shell says that its job has stopped; both run on after fg, Ctrl-C is the program's."""
    job = start(shell, SIGINT)
    for _ in range(3):
        shell.type(STOP)
        shell.lines.upto("Stopped")
        assert job.states() == ("T", "T")
        shell.type("fg\n")
        job.wait_for("S", "S")
        assert shell.foreground() == os.getpgid(job.rtlaunch)
    shell.type(INTERRUPT)
    shell.lines.upto(f"{SIGINT} {SI_KERNEL} 0\n")
    assert job.taken() == []


def test_fg_continues_the_program_once(shell: Terminal) -> None:
    """One SIGCONT: the shell's own, to the group."""
    job = start(shell, SIGCONT)
    shell.type(STOP)
    shell.lines.upto("Stopped")
    shell.type("fg\n")
    shell.lines.upto(f"{SIGCONT} {SI_USER} 0\n")
    assert job.taken() == []


def test_bg_continues_the_job_behind_the_shell(shell: Terminal) -> None:
    """After Ctrl-Z and bg both run, and the shell has the terminal."""
    job = start(shell)
    shell.type(STOP)
    shell.lines.upto("Stopped")
    shell.type("bg\n")
    job.wait_for("S", "S")
    assert shell.foreground() == shell.leader.pid


def test_a_program_that_stops_itself_from_afar_stops_the_job(shell: Terminal) -> None:
    """kill -TSTP of rtlaunch alone: the program stops, and the shell hears of it."""
    job = start(shell)
    os.kill(job.rtlaunch, signal.SIGTSTP)
    shell.lines.upto("Stopped")
    job.wait_for("T", "T")


def test_continuing_rtlaunch_alone_continues_the_program(shell: Terminal) -> None:
    """kill -CONT of a stopped rtlaunch is for the program behind it."""
    job = start(shell)
    shell.type(STOP)
    shell.lines.upto("Stopped")
    os.kill(job.rtlaunch, signal.SIGCONT)
    job.wait_for("S", "S")


def test_a_background_start_leaves_the_terminal_alone(shell: Terminal) -> None:
    """With & the program runs, Ctrl-C is not its, and the shell keeps the foreground."""
    job = start(shell, SIGINT, after=" &")
    assert shell.foreground() == shell.leader.pid
    assert os.getpgid(job.target) == os.getpgid(job.rtlaunch) != shell.leader.pid
    shell.type(INTERRUPT)
    assert job.taken() == []


def test_a_background_job_that_reads_stops_and_fg_gives_it_the_terminal(shell: Terminal) -> None:
    """SIGTTIN stops program and rtlaunch; after fg the program reads the line."""
    shell.type("rtlaunch -- sh -c 'read line; echo it read $line' & true\n")
    shell.lines.upto("$ ")
    wait_until(lambda: has_stopped(shell), "the job does not stop")
    shell.type("fg\n")
    wait_until(lambda: shell.foreground() != shell.leader.pid, "the job gets no terminal")
    shell.type("something\n")
    shell.lines.upto("it read something")


def has_stopped(shell: Terminal) -> bool:
    shell.type("jobs\n")
    shell.lines.upto("$ ")
    return "Stopped" in shell.lines.seen


def test_the_program_is_in_rtlaunchs_group(shell: Terminal) -> None:
    """Same process group, same session, and the terminal's foreground is the shell's choice."""
    job = start(shell)
    assert os.getpgid(job.target) == os.getpgid(job.rtlaunch) == shell.foreground()
    assert os.getsid(job.target) == os.getsid(job.rtlaunch) == shell.leader.pid


# ---- pipelines


def test_a_pipeline_ends_when_its_reader_does(shell: Terminal) -> None:
    """rtlaunch -- yes | head: the program dies of SIGPIPE as ever, rtlaunch ends."""
    shell.type("(rtlaunch -- yes 2>/dev/null; echo it said $? >&2) | head -2\n")
    text = shell.lines.upto("it said 141")
    assert text.replace("\r", "").startswith("y\ny\n")


def test_a_pipeline_carries_all_of_a_file(shell: Terminal, tmp_path: Path) -> None:
    """rtlaunch in the middle and at the end: the bytes are the file's."""
    data = os.urandom(1 << 20)
    (tmp_path / "in").write_bytes(data)
    shell.type("cat in | rtlaunch -- cat | rtlaunch -- sh -c 'cat > out'; echo it said $?\n")
    shell.lines.upto("it said 0")
    assert (tmp_path / "out").read_bytes() == data


# ---- the end of a session


def hung_up(argv: list[str | Path], out: Path) -> tuple[Job, Terminal]:
    """Start a session leader, its output in a file, wait for the target, close the terminal."""
    with out.open("w") as file:
        on = Terminal(argv, stdout=file)
    wait_until(lambda: "\n" in out.read_text(), "the target did not start")
    job = Job(on, out.read_text())
    on.hang_up()
    return job, on


def test_a_hangup_of_the_session_leader_reaches_the_program(targets: Path, tmp_path: Path) -> None:
    """rtlaunch leads the session: the kernel tells it alone; it passes SIGHUP and SIGCONT on."""
    out = tmp_path / "out"
    taken = (SIGHUP, SIGCONT, LAST)
    job, on = hung_up([launching.stub(), "--", targets / "signals", *map(str, taken)], out)
    try:
        os.kill(job.rtlaunch, LAST)
        wait_until(lambda: f"{LAST} {SI_USER} 0" in out.read_text(), "the last never came")
        lines = out.read_text().splitlines()[1:]
        assert sorted(lines) == sorted(f"{number} {SI_USER} 0" for number in taken)
    finally:
        on.end()


def test_a_hangup_ends_a_program_that_does_not_mind_it(targets: Path, tmp_path: Path) -> None:
    """The window is closed: program and rtlaunch are gone, 128 + 1."""
    out = tmp_path / "out"
    job, on = hung_up([launching.stub(), "--", targets / "signals", str(LAST)], out)
    try:
        assert on.leader.wait(10) == 128 + SIGHUP
        assert not is_alive(job.target)
    finally:
        on.end()


# ---- stops that are no terminal's


def test_a_program_that_is_frozen_does_not_stop_rtlaunch(rtlaunch: Launcher, targets: Path) -> None:
    """SIGSTOP of the program is somebody's debugger: rtlaunch stands by, and passes SIGCONT on."""
    with running(rtlaunch, [], [targets / "signals", str(LAST)]) as run:
        os.kill(run.target, signal.SIGSTOP)
        wait_until(lambda: state(run.target) == "T", "it does not stop")
        os.kill(run.pid, LAST)
        wait_until(lambda: is_pending(run.target, LAST), "rtlaunch passes nothing on")
        os.kill(run.pid, signal.SIGCONT)
        assert run.lines.line() == f"{LAST} {SI_USER} 0"


def is_pending(pid: int, number: int) -> bool:
    return bool(int(status(pid, "ShdPnd"), 16) >> (number - 1) & 1)
