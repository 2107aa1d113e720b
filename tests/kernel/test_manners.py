"""The manners of an init: groups, rewritten signals, mapped exit codes, a terminal lent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests import launching
from tests.host import wait_until
from tests.kernel import seccomp
from tests.kernel.processes import (
    DEADLINE,
    adopting,
    children,
    is_alive,
    running,
    sigqueue,
    stat,
    state,
)
from tests.kernel.terminal import INTERRUPT, QUIT, SHELLS, STOP, Terminal, terminal
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.processes import Running
    from tests.launching import Launcher

GROUP = ("--signal-to", "group")
SI_USER, SI_QUEUE, SI_KERNEL = 0, -1, 128
INT, TERM, USR1 = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGUSR1)
TSTP, CONT, LAST = int(signal.SIGTSTP), int(signal.SIGCONT), int(signal.SIGRTMAX)
# All but KILL and STOP, CHLD, which is our own, the C library's, what suspends, and CONT.
TAKEN = sorted(set(signal.valid_signals()) - {9, 19, 17, 32, 33, 18, 20, 21, 22})
SETSID = {"x86_64": 112, "aarch64": 157}
PIDFD_SEND_SIGNAL = 424


def group_of(pid: int) -> int:
    return int(stat(pid)[2])


def session_of(pid: int) -> int:
    return int(stat(pid)[3])


def pair(run: Running) -> tuple[str, str]:
    """Return what the two of a family say next, in the order of who."""
    first, second = sorted((run.lines.line(), run.lines.line()))
    return first, second


# ---- rewriting


@pytest.mark.parametrize("options", [["--rewrite", "TERM:USR1"], ["--rewrite", "RTMIN+3:USR1"]])
def test_a_signal_is_passed_on_as_another(
    rtlaunch: Launcher, targets: Path, options: list[str]
) -> None:
    """FROM is received, TO is sent; what is not named stays as it is."""
    taken = signal.SIGRTMIN + 3 if "RTMIN" in options[1] else TERM
    with running(rtlaunch, options, [targets / "signals"]) as run:
        os.kill(run.pid, taken)
        assert run.lines.line() == f"{USR1} {SI_USER} 0"
        os.kill(run.pid, INT)
        assert run.lines.line() == f"{INT} {SI_USER} 0"


def test_each_signal_can_be_rewritten(rtlaunch: Launcher, targets: Path) -> None:
    """Every one that can be taken, as the highest real-time one; none of them twice."""
    numbers = [number for number in TAKEN if number != LAST]
    words = [word for number in numbers for word in ("--rewrite", f"{number}:RTMAX")]
    with running(rtlaunch, words, [targets / "signals"]) as run:
        for number in numbers:
            os.kill(run.pid, number)
            assert run.lines.line() == f"{LAST} {SI_USER} 0"


def test_a_rewritten_signal_keeps_its_value(rtlaunch: Launcher, targets: Path) -> None:
    """sigqueue(3) of one real-time signal arrives as the other one, value and all."""
    with running(rtlaunch, ["--rewrite", "RTMIN:RTMIN+1"], [targets / "signals"]) as run:
        sigqueue(run.pid, signal.SIGRTMIN, 4711)
        assert run.lines.line() == f"{signal.SIGRTMIN + 1} {SI_QUEUE} 4711"


def test_a_signal_can_be_dropped(rtlaunch: Launcher, targets: Path) -> None:
    """TO none: the program hears nothing of it, but of the next one."""
    with running(rtlaunch, ["--rewrite", "TERM:none"], [targets / "signals"]) as run:
        os.kill(run.pid, TERM)
        os.kill(run.pid, USR1)
        assert run.lines.line() == f"{USR1} {SI_USER} 0"


def test_rewriting_is_no_chain(rtlaunch: Launcher, targets: Path) -> None:
    """TERM:INT and INT:TERM exchange the two."""
    options = ["--rewrite", "TERM:INT", "--rewrite", "INT:TERM"]
    with running(rtlaunch, options, [targets / "signals"]) as run:
        for number, heard in ((TERM, INT), (INT, TERM)):
            os.kill(run.pid, number)
            assert run.lines.line() == f"{heard} {SI_USER} 0"


def test_the_environment_rewrites_as_well(rtlaunch: Launcher, targets: Path) -> None:
    """As a container configures it; the program does not see the variable."""
    env = {**os.environ, "RTLAUNCH_REWRITE": "TERM:none HUP:USR1"}
    with running(rtlaunch, [], [targets / "signals"], env=env) as run:
        os.kill(run.pid, TERM)
        os.kill(run.pid, signal.SIGHUP)
        assert run.lines.line() == f"{USR1} {SI_USER} 0"


# ---- exit codes


@pytest.mark.parametrize(
    ("options", "script", "code"),
    [
        (["--map-exit", "143=0"], "kill -TERM $$", 0),
        (["--map-exit", "128+TERM=5"], "kill -TERM $$", 5),
        (["--map-exit", "128+RTMIN+1=6"], "kill -35 $$", 6),
        (["--map-exit", "3=4", "--map-exit", "4=5"], "exit 3", 4),
        (["--map-exit", "0=255"], "exit 0", 255),
        (["--map-exit", "3=4"], "exit 5", 5),
    ],
)
def test_an_exit_code_becomes_another(
    rtlaunch: Launcher, options: list[str], script: str, code: int
) -> None:
    """A becomes B, once; 128+N is a signal's."""
    assert rtlaunch.run(*options, "--", "bash", "-c", script).code == code


def test_the_report_has_both_codes(rtlaunch: Launcher) -> None:
    """What the program said, and what rtlaunch made of it; the program still spoke."""
    exit = rtlaunch.run("--map-exit", "3=0", "--", "sh", "-c", "exit 3").report["exit"]
    assert (exit["by"], exit["code"], exit["signal"], exit["rtlaunch_code"]) == (
        "target", 3, None, 0
    )  # fmt: skip
    exit = rtlaunch.run("--map-exit", "137=9", "--", "sh", "-c", "kill -9 $$").report["exit"]
    assert (exit["by"], exit["signal"], exit["rtlaunch_code"]) == ("target", "SIGKILL", 9)


def test_what_rtlaunch_says_itself_is_not_mapped(rtlaunch: Launcher) -> None:
    """A refusal is 125, and a command that is not there 127."""
    options = ("--map-exit", "125=0", "--map-exit", "127=0")
    assert rtlaunch.run(*options, "--", "/nowhere/at/all").code == 127
    assert rtlaunch.run(*options, "--nice", "x", "--", "true").code == 125


# ---- a group, without a terminal


@pytest.fixture
def family(rtlaunch: Launcher, targets: Path) -> Iterator[Running]:
    """Parent and child of one group, without a terminal; both take and tell."""
    words = [targets / "family", *map(str, TAKEN)]
    with running(rtlaunch, GROUP, words, start_new_session=True) as found:
        yield found


def test_the_program_leads_a_session_of_its_own(family: Running) -> None:
    """Without a terminal there is nothing to share."""
    assert session_of(family.target) == group_of(family.target) == family.target
    assert session_of(family.pid) == family.pid


def test_each_signal_reaches_each_of_the_group_once(family: Running) -> None:
    """kill(2) of rtlaunch with every signal: parent and child take it, as a kill."""
    for number in TAKEN:
        os.kill(family.pid, number)
        assert pair(family) == (f"child {number} {SI_USER} 0", f"parent {number} {SI_USER} 0")


def test_a_queued_value_reaches_each_of_the_group(family: Running) -> None:
    """sigqueue(3) of a real-time signal, three times: every value, in order."""
    for value in (0, 2**31, 2**63 - 1):
        sigqueue(family.pid, LAST, value)
        assert pair(family) == tuple(f"{who} {LAST} -1 {value}" for who in ("child", "parent"))


def test_a_value_reaches_each_of_the_group_on_an_older_kernel(
    rtlaunch: Launcher, targets: Path
) -> None:
    """Where no pidfd signals a group (before Linux 6.9), one member after the other gets it."""
    forbid = partial(seccomp.answer, PIDFD_SEND_SIGNAL, seccomp.EPERM_ANSWER)
    words = [targets / "family", str(LAST)]
    with running(rtlaunch, GROUP, words, start_new_session=True, preexec_fn=forbid) as run:
        sigqueue(run.pid, LAST, 4711)
        assert pair(run) == tuple(f"{who} {LAST} -1 4711" for who in ("child", "parent"))


def test_a_group_is_suspended_and_continued_with_rtlaunch(family: Running) -> None:
    """SIGTSTP, SIGTTIN and SIGTTOU stop all three, though no terminal stops that session."""
    child = children(family.target)[0]
    everybody = (family.pid, family.target, child)
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        os.kill(family.pid, number)
        wait_until(lambda: [state(pid) for pid in everybody] == ["T"] * 3, "not all stop")
        os.kill(family.pid, CONT)
        wait_until(lambda: [state(pid) for pid in everybody] == ["S"] * 3, "not all go on")


def test_a_stop_that_is_rewritten_stops_nobody(rtlaunch: Launcher, targets: Path) -> None:
    """TSTP:USR1 is for a program that has no use for it."""
    words = [targets / "family", str(USR1)]
    options = [*GROUP, "--rewrite", "TSTP:USR1"]
    with running(rtlaunch, options, words, start_new_session=True) as run:
        os.kill(run.pid, TSTP)
        assert pair(run) == (f"child {USR1} {SI_USER} 0", f"parent {USR1} {SI_USER} 0")
        wait_until(lambda: state(run.pid) == "S", "it does not come to rest, or stands")


def test_a_group_that_may_not_be_made_is_a_refusal(rtlaunch: Launcher) -> None:
    """setsid(2) forbidden: the step is named, and nothing starts."""
    forbid = partial(seccomp.answer, SETSID[os.uname().machine], seccomp.EPERM_ANSWER)
    ran = rtlaunch.run(*GROUP, "--", "echo", "x", start_new_session=True, preexec_fn=forbid)
    assert (ran.code, ran.out) == (125, "")
    assert "could not lead a session of its own: Operation not permitted" in ran.err


def test_plan_says_who_leads_what(rtlaunch: Launcher) -> None:
    """The step is in the plan, and what is rewritten among the options."""
    ran = rtlaunch.start("plan", *GROUP, "--rewrite", "TERM:none", "--", "true",
                         start_new_session=True)  # fmt: skip
    out, _ = ran.communicate(timeout=DEADLINE)
    assert "lead a session of its own" in out
    assert "rewrite" in out
    assert "TERM:none" in out


# ---- as PID 1

PID_ONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]


def as_pid_one(rtlaunch: Launcher) -> None:
    probe = subprocess.run([*PID_ONE, "true"], capture_output=True, check=False)
    if probe.returncode:
        skip("no-mount")
    rtlaunch.prefix = [*PID_ONE, *rtlaunch.prefix]


def inside(run: Running) -> int:
    """Return the pid that PID 1 has outside."""
    return children(run.pid)[0]


def test_as_pid_one_the_group_hears_and_the_code_is_mapped(
    rtlaunch: Launcher, targets: Path
) -> None:
    """TERM of PID 1 reaches both as USR1; the program's 7 is a 0 outside."""
    as_pid_one(rtlaunch)
    options = [*GROUP, "--rewrite", "TERM:USR1", "--map-exit", "7=0"]
    with running(rtlaunch, options, [targets / "family", str(USR1)]) as run:
        os.kill(inside(run), TERM)
        assert pair(run) == (f"child {USR1} {SI_USER} 0", f"parent {USR1} {SI_USER} 0")
        assert run.end() == 0


def test_as_pid_one_a_group_is_suspended_and_continued(rtlaunch: Launcher, targets: Path) -> None:
    """PID 1 itself nobody stops: it hears SIGCONT, and passes it on."""
    as_pid_one(rtlaunch)
    with running(rtlaunch, GROUP, [targets / "family"], start_new_session=True) as run:
        first = inside(run)
        target = children(first)[0]
        os.kill(first, TSTP)
        wait_until(lambda: state(target) == "T", "it does not stop")
        wait_until(lambda: state(first) == "S", "it stands, too")
        os.kill(first, CONT)
        wait_until(lambda: state(target) == "S", "it does not go on")


def test_as_pid_one_orphans_are_reaped_with_manners(rtlaunch: Launcher, targets: Path) -> None:
    """Grandchildren that were left behind are no zombies, whoever is signalled."""
    as_pid_one(rtlaunch)
    with running(rtlaunch, [*GROUP, "--rewrite", "HUP:none"], [targets / "orphans", "50"]) as run:
        assert run.lines.line() == "left 50"
        first = inside(run)
        wait_until(lambda: len(children(first)) == 1, "zombies are left")


# ---- a group, with a terminal


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    folders = [launching.stub().parent, request.getfixturevalue("targets")]
    path = ":".join(map(str, [*folders, os.environ["PATH"]]))
    environ = {**os.environ, "PATH": path, "PS1": "$ ", "TERM": "dumb", "ENV": ""}
    with adopting(), terminal(SHELLS[request.param], env=environ, cwd=tmp_path) as found:
        found.lines.upto("$ ")
        yield found


def start(shell: Terminal, *numbers: int, after: str = "") -> tuple[int, int, int]:
    """Type the command; return the pids of rtlaunch, parent and child."""
    words = " ".join(map(str, numbers))
    shell.type(f"rtlaunch --signal-to group -- family {words}{after}\n")
    shell.lines.upto("ready ")
    parent, child = map(int, shell.lines.line().split())
    return int(stat(parent)[1]), parent, child


def states(pids: tuple[int, ...], wanted: str) -> None:
    told = lambda: [state(pid) for pid in pids]  # noqa: E731  (asked twice)
    wait_until(lambda: told() == [wanted] * len(pids), f"{pids} are not all {wanted}")


def test_the_terminal_is_lent_and_given_back(shell: Terminal) -> None:
    """The program's group has the foreground of our session; keys reach it, once; then we have."""
    ours, parent, child = start(shell, INT)
    assert session_of(parent) == session_of(ours) == shell.leader.pid
    assert group_of(child) == group_of(parent) == parent != group_of(ours)
    assert shell.foreground() == parent
    shell.type(INTERRUPT)
    said = sorted((shell.lines.line(), shell.lines.line()))
    assert said == [f"child {INT} {SI_KERNEL} 0", f"parent {INT} {SI_KERNEL} 0"]
    os.kill(ours, INT)  # and through us they hear of it the same
    said = sorted((shell.lines.line(), shell.lines.line()))
    assert said == [f"child {INT} {SI_USER} 0", f"parent {INT} {SI_USER} 0"]
    shell.type(QUIT)
    shell.lines.upto("$ ")
    assert shell.foreground() == shell.leader.pid
    shell.type("echo it said $?\n")
    shell.lines.upto("it said 131")


def test_ctrl_z_stops_all_and_fg_continues_all(shell: Terminal) -> None:
    """The shell sees its job stop, has the terminal, and lends it anew."""
    everybody = start(shell, INT)
    for _ in range(3):
        shell.type(STOP)
        shell.lines.upto("Stopped")
        states(everybody, "T")
        wait_until(lambda: shell.foreground() == shell.leader.pid, "the shell has no terminal")
        shell.type("fg\n")
        states(everybody, "S")
        wait_until(lambda: shell.foreground() == everybody[1], "it has no terminal")
    shell.type(QUIT)
    wait_until(lambda: not any(map(is_alive, everybody[:2])), "somebody lives on")


def test_bg_continues_all_behind_the_shell(shell: Terminal) -> None:
    """After Ctrl-Z and bg all run, and the shell keeps the terminal."""
    everybody = start(shell, INT)
    shell.type(STOP)
    shell.lines.upto("Stopped")
    shell.type("bg\n")
    states(everybody, "S")
    assert shell.foreground() == shell.leader.pid


def test_a_background_start_takes_no_terminal(shell: Terminal) -> None:
    """With & the shell keeps the foreground; fg lends it when it is asked for."""
    everybody = start(shell, INT, after=" &")
    assert shell.foreground() == shell.leader.pid
    assert group_of(everybody[1]) == everybody[1]


def test_the_rest_of_a_pipeline_stops_with_it(shell: Terminal) -> None:
    """Ctrl-Z reaches who is in our group too, as if the program were."""
    ours, parent, child = start(shell, INT, after=" | cat")
    rest = [pid for pid in children(shell.leader.pid) if group_of(pid) == group_of(ours)]
    assert len(rest) == 2
    shell.type(STOP)
    shell.lines.upto("Stopped")
    states((parent, child, *rest), "T")
    shell.type("fg\n")
    states((parent, child, *rest), "S")


def test_as_a_session_leader_nobody_is_stopped_for_good(targets: Path) -> None:
    """rtlaunch leads the session (a container with a terminal): nobody could continue us, so on."""
    argv = [launching.stub(), *GROUP, "--", targets / "family", str(CONT)]
    with adopting(), terminal(argv) as on:
        on.lines.upto("ready ")
        parent, _ = map(int, on.lines.line().split())
        on.type(STOP)
        said = sorted((on.lines.line(), on.lines.line()))
        assert said == [f"child {CONT} {SI_USER} 0", f"parent {CONT} {SI_USER} 0"]
        wait_until(lambda: state(on.leader.pid) == "S", "rtlaunch does not come to rest", DEADLINE)
        assert on.foreground() == parent


# ---- a stop before there is a program

MOMENTS, SPAN_S = 16, 0.08


@pytest.mark.parametrize("options", ["", " ".join(GROUP), "--via ptrace"])
def test_a_stop_at_any_instant_of_the_start_can_be_continued(
    shell: Terminal, tmp_path: Path, options: str
) -> None:
    """SIGTSTP of rtlaunch alone on a terminal, then SIGCONT: the program runs, and says so."""
    (tmp_path / "waits").write_text("echo it runs; until [ -e end ]; do sleep 0.01; done; exit 5")
    for moment in range(MOMENTS):
        shell.type(f"rtlaunch -q {options} -- sh waits\n")
        wait_until(lambda: living(shell) != [], "rtlaunch does not start")
        ours = living(shell)[0]
        time.sleep(moment * SPAN_S / MOMENTS)
        stop_and_continue(ours)
        shell.lines.upto("it runs")
        (tmp_path / "end").touch()
        wait_until(lambda: living(shell) == [], "it does not end")
        (tmp_path / "end").unlink()


@pytest.mark.parametrize("options", ["", " ".join(GROUP)])
def test_a_continue_that_comes_with_a_stop_is_not_lost(shell: Terminal, options: str) -> None:
    """rtlaunch hears at once that the program was stopped, and that it is itself to go on."""
    shell.type(f"rtlaunch {options} -- family {INT}\n")
    shell.lines.upto("ready ")
    target = int(shell.lines.line().split()[0])
    ours = int(stat(target)[1])
    os.kill(ours, signal.SIGSTOP)
    states((ours,), "T")
    os.kill(target, TSTP)
    states((target,), "T")
    os.kill(ours, CONT)
    states((ours, target), "S")


def living(shell: Terminal) -> list[int]:
    return [pid for pid in children(shell.leader.pid) if is_alive(pid)]


def stop_and_continue(pid: int) -> None:
    """Send SIGTSTP, let it take effect if there is any, send SIGCONT until the process is awake."""
    for number in (TSTP, CONT):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    wait_until(lambda: state(pid) != "T" or not os.kill(pid, CONT), "it does not go on")


def test_a_stop_during_the_lock_holds_it_up_and_no_longer(
    rtlaunch: Launcher, targets: Path
) -> None:
    """SIGSTOP of rtlaunch while a large program locks; SIGCONT: proven and clean."""
    big = ["/usr/bin/python3", "-c", "print('it runs')"]
    process = rtlaunch.start("--prefault-stack", "6M", "--", *big)
    wait_until(lambda: bool(children(process.pid)) or process.poll() is not None, "no child")
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: state(process.pid) in ("T", "Z"), "it does not stop")
    os.kill(process.pid, CONT)
    out, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (0, "it runs\n")
