"""Chains through what no preload reaches: followed, and locked before a first instruction.

Who is traced, for how long, and at what price: docs/decisions/0043.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import books, launching
from tests.host import wait_until
from tests.kernel import seccomp
from tests.kernel.detached import written
from tests.kernel.injecting import PTRACE, build
from tests.kernel.killing import can_trace
from tests.kernel.processes import (
    Lines,
    adopting,
    is_alive,
    reap,
    sigqueue,
    state,
    status,
)
from tests.kernel.programs import compile_source, need_root
from tests.kernel.terminal import SHELLS, STOP, Job, terminal
from tests.kernel.test_inject_secure import GIVEN
from tests.skips import skip
from tests.standing import DEADLINE_S, PYTHON, SH, standing

UNFOLLOWED = ("--allow", "exec-unfollowed")

# Becomes the rest of its arguments, and imports nothing else that starts a program.
BECOME = "#include <unistd.h>\nint main(int c, char **v) { return c > 1 && execv(v[1], v + 1); }\n"

# Each way leads from what a preload reaches to what none does; {} is the static program.
CHAINS = {
    "sh": ["sh", "-c", "exec {}"],
    "env": ["env", "A=1", "{}"],
    "nice": ["nice", "-n", "1", "{}"],
    "setpriv": ["setpriv", "--no-new-privs", "{}"],
    "setsid": ["env", "setsid", "--wait", "env", "{}"],
    "chrt": ["chrt", "--other", "0", "{}"],
    "no-environment": ["env", "-i", "WAITER_BEFORE_MAIN=1", "{}"],
    "three": ["nice", "sh", "-c", "exec env A=1 {}"],
    "script": ["{script}"],
    "no-name": ["{become}", "{}"],
}
USERS = ["root", "ambient", "limited"]


@pytest.fixture(scope="module")
def waiter(room):
    return build("static", "waiter", room)


@pytest.fixture(scope="module")
def become(room):
    return compile_source("cc", "-O1", BECOME, room / "become")


@pytest.fixture
def chain(request, room, waiter, become):
    """The words of a chain of CHAINS that ends in the static waiter."""
    script = room / "chain.sh"
    script.write_text(f"#!/bin/sh\n/bin/true\nexec {waiter}\n")
    script.chmod(0o755)
    words = CHAINS[request.param]
    return [word.format(waiter, script=script, become=become) for word in words]


def named(program: Path, name: str, folder: Path) -> Path:
    """Return a copy of a program under a name that says that it leads on to another."""
    return Path(shutil.copy(program, folder / name))


def codes(report):
    return [finding["code"] for finding in report["findings"]]


# ---- what is locked


@pytest.mark.parametrize("chain", CHAINS, indirect=True)
def test_a_static_image_is_locked_before_its_first_instruction(rtlaunch, chain, waiter):
    """In its constructor all is locked and resident, nobody traces it, the report has it locked."""
    with standing(rtlaunch, "--", *chain, before_main=True) as held:
        assert books.not_held(held.pid) == []
        assert os.readlink(f"/proc/{held.pid}/exe") == str(waiter)
        assert books.status(held.pid)["TracerPid"] == "0"
        held.tell("")
        held.wait_ready()
        assert books.not_held(held.pid) == []
        ran = held.end()
    assert (ran.code, ran.report["lock"]["ok"], ran.report["verdict"]) == (0, True, "clean")
    last = ran.report["target"]["images"][-1]
    assert (last["path"], last["locked"], last["via"]) == (str(waiter), True, "ptrace")


@pytest.mark.parametrize("kind", ["static-pie", "musl-static"])
def test_whatever_it_is_linked_by(rtlaunch, room, kind):
    """Position independent, or by musl."""
    with standing(rtlaunch, "--", "nice", build(kind, "waiter", room)) as held:
        assert books.not_held(held.pid) == []


@pytest.mark.parametrize("user", USERS)
def test_whoever_runs_it(as_user, waiter, user):
    """As root, with CAP_IPC_LOCK alone, and within 8 MiB: a chain to a static program is locked."""
    with standing(as_user(user), "--", "sh", "-c", f"exec env -i {waiter}") as held:
        assert books.not_held(held.pid) == []
        assert held.end().report["verdict"] == "clean"


@pytest.mark.parametrize("words", [["-i"], ["-u", "LD_PRELOAD"], ["-u", "_RTL_CHANNEL"]], ids=str)
def test_a_dynamic_image_that_lost_the_shim_is_locked_too(rtlaunch, targets, words):
    """env -i ./app: no shim will speak, and that is known at the exec."""
    with standing(rtlaunch, "--", "env", *words, targets / "waiter") as held:
        assert books.not_held(held.pid) == []
        assert [image["via"] for image in held.end().report["target"]["images"]] == [
            "preload", "ptrace",
        ]  # fmt: skip


def test_closed_descriptors_are_known_at_the_exec(rtlaunch, targets):
    """A shell that closes our channel on the way: the next image cannot announce itself."""
    close = "for fd in /proc/$$/fd/*; do fd=${fd##*/}; "
    close += f'[ "$fd" -gt 2 ] && eval "exec $fd>&-"; done; exec {targets / "waiter"}'
    with standing(rtlaunch, "--", "bash", "-c", close) as held:
        assert books.not_held(held.pid) == []


def test_back_and_forth(rtlaunch, waiter, become, room):
    """static shell, dynamic, static again: each is locked as it can be."""
    static_env = named(
        compile_source("cc", "-O1 -static", BECOME, room / "become-static"), "env", room
    )
    with standing(rtlaunch, "--", static_env, become, static_env, waiter) as held:
        assert books.not_held(held.pid) == []
        images = held.end().report["target"]["images"]
    assert [(image["via"], image["locked"]) for image in images] == [
        ("ptrace", True), ("preload", True), ("ptrace", True), ("ptrace", True),
    ]  # fmt: skip


def test_locked_from_outside_altogether(rtlaunch, targets):
    """--via ptrace preloads nothing: a chain of dynamic programs is injected into, one by one."""
    words = ("--via", "ptrace", "--", "nice", "sh", "-c", f"exec {targets / 'waiter'}")
    with standing(rtlaunch, *words) as held:
        assert books.not_held(held.pid) == []
        images = held.end().report["target"]["images"]
    assert [(image["via"], image["locked"]) for image in images] == [("ptrace", True)] * 3


def test_one_that_does_not_fit_is_refused_before_it_runs(as_user, room):
    """A static image over RLIMIT_MEMLOCK: 125, and not an instruction of it."""
    big = "#include <stdio.h>\nstatic volatile char big[64 << 20] = {1};\n"
    big += 'int main(void) { puts("ran"); return big[5]; }\n'
    program = compile_source("cc", "-O1 -static", big, room / "big")
    ran = as_user("limited").run("--", "sh", "-c", f"exec {program}")
    assert (ran.code, ran.out, ran.report["verdict"]) == (125, "", "refused")
    assert ran.report["lock"]["ok"] is False


def test_without_perf_it_is_locked_as_well(rtlaunch, waiter):
    """Where perf is not to be had the exec is known by ptrace."""
    with standing(rtlaunch, "--watch", "proc", "--", "sh", "-c", f"exec {waiter}") as held:
        assert books.not_held(held.pid) == []
        ran = held.end()
    assert (ran.report["lock"]["ok"], ran.report["watch"]["source"]) == (True, "proc")


# ---- who is traced


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--", "sh"], True), (["--", "true"], False), ([*UNFOLLOWED, "--", "sh"], False)],
    ids=["sh", "true", "allowed"],
)
def test_the_plan_says_who_is_followed(rtlaunch, words, told):
    """A shell is, before anything is done."""
    plan = rtlaunch.words("plan", *words)
    ran = subprocess.run(plan, capture_output=True, text=True, check=False)
    assert ("by ptrace to its exec of another program" in ran.stdout) is told


@pytest.mark.parametrize("command", [PYTHON, ("{waiter}",)], ids=["python", "waiter"])
def test_a_program_that_does_not_lead_on_is_not_traced(rtlaunch, targets, command):
    """A plain program has no tracer, and so pays nothing."""
    words = [word.format(waiter=targets / "waiter") for word in command]
    with standing(rtlaunch, "--", *words) as held:
        assert books.status(held.pid)["TracerPid"] == "0"


def test_a_shell_is_traced_and_its_children_are_not(rtlaunch):
    """One that execs nothing stays so, to its end; what it forks runs as ever."""
    line = "echo ready $$; while read line; do grep Tracer /proc/self/status; done"
    with standing(rtlaunch, "--", "sh", "-c", line) as held:
        assert books.status(held.pid)["TracerPid"] == str(held.process.pid)
        assert held.ask("") == "TracerPid:\t0"


@pytest.mark.parametrize("options", [UNFOLLOWED, ("--lock", "none")], ids=" ".join)
def test_a_shell_may_be_left_alone(rtlaunch, options):
    """Where that was allowed, and where nothing is locked, nobody is traced."""
    with standing(rtlaunch, *options, "--", *SH) as held:
        assert books.status(held.pid)["TracerPid"] == "0"


def test_unfollowed_it_is_noticed_afterwards(rtlaunch, waiter):
    """As allowed, a static image runs unlocked, and that is said."""
    ran = rtlaunch.run(*UNFOLLOWED, "--", "sh", "-c", f"exec {waiter} 3", stdin=subprocess.DEVNULL)
    assert (ran.code, ran.report["verdict"]) == (3, "unlocked")
    assert "exec-unannounced" in codes(ran.report)


def test_another_tracer_is_named(rtlaunch, waiter):
    """strace -f rtlaunch -- sh: refused, with the tracer's name; allowed, it runs."""
    if not can_trace():
        skip("no-strace")
    report = rtlaunch.report_path()
    strace = ["strace", "-f", "-qq", "-o", os.devnull]
    words = ["--report", report, "--", "sh", "-c", "echo ran"]
    ran = subprocess.run(
        [*strace, *rtlaunch.words(*words)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (ran.returncode, ran.stdout) == (125, "")
    assert "refused [exec-unfollowed]: dash is there to become" in ran.stderr
    assert "(strace) traces it already" in ran.stderr
    assert codes(json.loads(report.read_text())) == ["exec-unfollowed"]
    again = subprocess.run(
        [*strace, *rtlaunch.words(*UNFOLLOWED, *words)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (again.returncode, again.stdout) == (0, "ran\n")


def test_a_filter_that_kills_for_ptrace_is_named(rtlaunch):
    """rtlaunch lives, and refuses; with best effort it goes on."""
    kill = {"preexec_fn": lambda: seccomp.answer(PTRACE, seccomp.DEATH)}
    ran = rtlaunch.run("--", "sh", "-c", "echo ran", **kill)
    assert (ran.code, ran.out) == (125, "")
    assert "refused [exec-unfollowed]" in ran.err and "seccomp" in ran.err
    ran = rtlaunch.run("--best-effort", "--", "sh", "-c", "echo ran", **kill)
    assert (ran.code, ran.out) == (0, "ran\n")


# ---- privileges


@pytest.mark.parametrize("given", GIVEN)
def test_privileges_that_a_traced_exec_would_take_are_a_refusal(as_user, waiter, here, given):
    """A user's shell execs a set-uid program: it would run without its privileges, and does not."""
    need_root()
    program = Path(shutil.copy(waiter, here / "waiter"))
    GIVEN[given](program)
    code = "target-file-caps" if given == "file-caps" else "target-setuid"
    user = as_user("ambient")
    ran = user.run("--", "sh", "-c", f"exec {program}", stdin=subprocess.DEVNULL)
    assert (ran.code, ran.out) == (125, "")
    assert f"refused [{code}]: {program} was exec()ed in a chain" in ran.err
    ran = user.run(*UNFOLLOWED, "--", "sh", "-c", f"exec {program} 3", stdin=subprocess.DEVNULL)
    assert (ran.code, ran.report["verdict"]) == (3, "unlocked")


@pytest.mark.parametrize("given", ["set-uid", "file-caps"])
def test_by_root_they_are_kept(as_user, waiter, here, given):
    """With CAP_SYS_PTRACE the exec gives what it gives, and the image is locked."""
    need_root()
    program = Path(shutil.copy(waiter, here / "waiter"))
    GIVEN[given](program)
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    words = ("--memlock", "max", "--", *drop, "env", program)
    with standing(as_user("root"), *words) as held:
        assert books.not_held(held.pid) == []
        found = books.status(held.pid)
        gained = {"set-uid": found["Uid"].split()[1] == "0", "file-caps": int(found["CapEff"], 16)}
        assert gained[given]
        assert held.end().report["verdict"] == "clean"


# ---- signals, stops, deaths, while it is traced


@pytest.fixture
def shell_that_tells(targets, tmp_path):
    """A program that says which signals reach it, under the name of one that is followed."""
    return named(targets / "signals", "sh", tmp_path)


def traced(held) -> bool:
    return books.status(held.pid)["TracerPid"] == str(held.process.pid)


def test_signals_arrive_once_and_whole(rtlaunch, shell_that_tells):
    """A thousand, to the program and by way of rtlaunch: each once, with its value."""
    process = rtlaunch.start("--", shell_that_tells, stdin=subprocess.PIPE)
    try:
        lines = Lines(process.stdout.fileno())
        target = int(lines.line().split()[1])
        wait_until(lambda: books.status(target)["TracerPid"] != "0", "it is not traced")
        for value in range(500):
            sigqueue(target, signal.SIGRTMIN, value)
            sigqueue(process.pid, signal.SIGRTMIN + 1, value)
        sigqueue(target, signal.SIGRTMAX, 9)
        rows = Counter(lines.line() for _ in range(1001))
    finally:
        process.communicate(timeout=DEADLINE_S)
    ours = [f"{int(signal.SIGRTMIN)} -1 {value}" for value in range(500)]
    passed = [f"{int(signal.SIGRTMIN) + 1} -1 {value}" for value in range(500)]
    assert rows == Counter([*ours, *passed, f"{int(signal.SIGRTMAX)} -1 9"])
    assert process.returncode == 0


def test_a_handler_that_is_not_blocked_runs(rtlaunch):
    """A shell's trap: the signal stops the traced shell, and is then delivered."""
    line = 'n=0; trap "n=\\$((n+1)); echo \\$n" USR1; echo ready $$; while :; do sleep 0.01; done'
    with standing(rtlaunch, "--", "sh", "-c", line) as held:
        for count in range(1, 51):
            os.kill(held.pid, signal.SIGUSR1)
            assert held.process.stdout.readline() == f"{count}\n"
        os.kill(held.pid, signal.SIGTERM)
        assert held.process.wait(DEADLINE_S) == 128 + signal.SIGTERM


def test_a_stop_and_a_continue(rtlaunch):
    """SIGSTOP stands it still, SIGCONT lets it go on, over and over, and it can exec then."""
    with standing(rtlaunch, "--", *SH) as held:
        for _ in range(20):
            os.kill(held.pid, signal.SIGSTOP)
            wait_until(lambda: state(held.pid) in "tT", "it does not stop")
            os.kill(held.pid, signal.SIGCONT)
            wait_until(lambda: state(held.pid) == "S", "it does not go on")
        assert traced(held)
        assert held.end().report["verdict"] == "clean"


def test_a_kill_of_the_target(rtlaunch):
    """SIGKILL ends it at once, and is its exit code."""
    with standing(rtlaunch, "--", *SH) as held:
        os.kill(held.pid, signal.SIGKILL)
        assert held.process.wait(DEADLINE_S) == 128 + signal.SIGKILL


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_the_death_of_rtlaunch_is_a_sigterm(rtlaunch, tmp_path, stopped):
    """Killed while it traces: the program gets the death signal, as ever."""
    told = tmp_path / "told"
    line = f'trap "echo got >{told}; exit" TERM; echo ready $$; while :; do sleep 0.01; done'
    with adopting(), standing(rtlaunch, "--", "sh", "-c", line) as held:
        if stopped:
            os.kill(held.pid, signal.SIGSTOP)
            wait_until(lambda: state(held.pid) in "tT", "it does not stop")
        held.process.kill()
        held.process.wait()
        if stopped:
            wait_until(lambda: state(held.pid) == "T", "it is not left stopped")
            os.kill(held.pid, signal.SIGCONT)
        wait_until(told.exists, "it got no SIGTERM")
        wait_until(lambda: not is_alive(held.pid), "it lives on")
        reap(held.pid)


@contextmanager
def at_a_terminal(folder):
    """A shell that waits for a line, with rtlaunch on its PATH."""
    path = f"{launching.stub().parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PS1": "$ ", "TERM": "dumb", "ENV": ""}
    with adopting(), terminal(SHELLS["sh"], env=environ, cwd=folder) as shell:
        shell.lines.upto("$ ")
        yield shell


def test_ctrl_z_stops_both_and_fg_goes_on(shell_that_tells, tmp_path):
    """The shell at the terminal sees its job stop, and continues it."""
    with at_a_terminal(tmp_path) as shell:
        shell.type(f"rtlaunch -- {shell_that_tells} {int(signal.SIGUSR1)} {int(signal.SIGRTMAX)}\n")
        job = Job(shell)
        for _ in range(3):
            shell.type(STOP)
            wait_until(lambda: job.states() in (("T", "t"), ("T", "T")), f"{job.states()}")
            shell.type("fg\n")
            wait_until(lambda: job.states() == ("S", "S"), f"{job.states()}")
        assert status(job.target, "TracerPid") == str(job.rtlaunch)
        os.kill(job.target, signal.SIGUSR1)
        shell.lines.upto(f"{int(signal.SIGUSR1)} 0 0\n")


def test_rtlaunch_continued_alone_continues_it(shell_that_tells, tmp_path):
    """After Ctrl-Z, kill -CONT of rtlaunch: the traced program goes on with it."""
    with at_a_terminal(tmp_path) as shell:
        shell.type(f"rtlaunch -- {shell_that_tells} {int(signal.SIGRTMAX)}\n")
        job = Job(shell)
        shell.type(STOP)
        wait_until(lambda: job.states()[0] == "T", f"{job.states()}")
        os.kill(job.rtlaunch, signal.SIGCONT)
        wait_until(lambda: job.states() == ("S", "S"), f"{job.states()}")


def test_a_stop_on_the_way_holds_a_static_shell(rtlaunch, waiter, room):
    """A stopped program that is followed on after its injection stands, until it is continued."""
    line = 'kill -STOP $$; exec "$@"'
    with standing(rtlaunch, "--", "bash", "-c", f"echo ready $$; {line}", "-", waiter) as held:
        wait_until(lambda: state(held.pid) in "tT", "it does not stop")
        os.kill(held.pid, signal.SIGCONT)
        held.wait_ready()
        assert books.not_held(held.pid) == []


# ---- exec mode


def test_in_exec_mode_the_side_process_follows(rtlaunch, waiter, tmp_path):
    """The program has our PID, its parent reaps it, and the static image is locked."""
    report = tmp_path / "report.json"
    process = rtlaunch.start(
        "--mode", "exec", "--report", report, "--", "sh", "-c", f"exec {waiter} 7",
        stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == f"ready {process.pid}\n"
        assert books.not_held(process.pid) == []
        assert books.status(process.pid)["TracerPid"] == "0"
    finally:
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 7
    found = written(report)
    assert found["complete"]
    assert (found["lock"]["ok"], found["verdict"], found["exit"]["code"]) == (True, "clean", 7)


@pytest.mark.parametrize("end", ["exit 5", "kill -TERM $$"])
def test_in_exec_mode_a_traced_shell_is_reaped_by_its_parent(rtlaunch, tmp_path, end):
    """A tracer takes the end of its tracee first: it passes it on, with the status."""
    report = tmp_path / "report.json"
    words = ("--mode", "exec", "--report", report, "--", "sh", "-c", f"sleep 0.1; {end}")
    process = rtlaunch.start(*words)
    assert process.wait(DEADLINE_S) == (5 if "exit" in end else -signal.SIGTERM)
    process.communicate()
    found = written(report)["exit"]
    assert (found["code"], found["signal"]) == ((5, None) if "exit" in end else (None, "SIGTERM"))
