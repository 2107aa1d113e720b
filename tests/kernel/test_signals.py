"""What is sent to rtlaunch was meant for the program: it gets each signal, once, with its value.

What a terminal sends is tests/kernel/test_pty.py's.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.kernel.killing import can_trace
from tests.kernel.processes import Running, running, sigqueue
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Launcher

SI_USER, SI_QUEUE = 0, -1  # sigaction(2)

# All but what nobody can take (KILL, STOP), a parent's own (CHLD), and glibc's own 32 and 33.
NUMBERS = sorted(
    set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33}
)
REALTIME = [number for number in NUMBERS if number >= signal.SIGRTMIN]
LAST = int(signal.SIGRTMAX)


@pytest.fixture
def target(rtlaunch: Launcher, targets: Path) -> Iterator[Running]:
    """A target that takes all signals and says so."""
    with running(rtlaunch, [], [targets / "signals"]) as found:
        yield found


def taken(target: Running) -> list[tuple[int, int, int]]:
    """Return what the target took up to now: number, si_code, value of each."""
    sigqueue(target.pid, LAST, 77)
    told = target.lines.upto(f"{LAST} {SI_QUEUE} 77\n").splitlines()[:-1]
    return [(int(number), int(code), int(value)) for number, code, value in map(str.split, told)]


def test_each_signal_arrives_once(target: Running) -> None:
    """kill(2) of rtlaunch with each signal there is: the target gets that one, once, as a kill."""
    for number in NUMBERS:
        os.kill(target.pid, number)
        assert target.lines.line() == f"{number} {SI_USER} 0"
    assert taken(target) == []


def test_queued_values_arrive(target: Running) -> None:
    """sigqueue(3) with the smallest, the largest and some other value: the very value."""
    values = [0, 1, 2**31 - 1, 2**31, 2**63 - 1]
    for value in values:
        sigqueue(target.pid, signal.SIGUSR1, value)
        assert target.lines.line() == f"{int(signal.SIGUSR1)} {SI_QUEUE} {value}"


def test_a_signal_that_wakes_the_watcher_arrives_as_well(target: Running) -> None:
    """SIGIO is what perf's rings are watched by: each that is sent is the target's all the same."""
    for value in range(200):
        sigqueue(target.pid, signal.SIGIO, value)
        assert target.lines.line() == f"{int(signal.SIGIO)} {SI_QUEUE} {value}"
        os.kill(target.pid, signal.SIGIO)
        assert target.lines.line() == f"{int(signal.SIGIO)} {SI_USER} 0"
    assert taken(target) == []


def test_queued_signals_arrive_in_number_and_order(target: Running) -> None:
    """A burst of real-time signals: each one arrives, lower numbers first, in order of value."""
    os.kill(target.pid, signal.SIGSTOP)  # so that they queue up
    sent = [(number, value) for value in range(3) for number in REALTIME[:-1]]
    for number, value in sent:
        sigqueue(target.pid, number, value)
    os.kill(target.pid, signal.SIGCONT)
    expected = [(number, SI_QUEUE, value) for number, value in sorted(sent)]
    assert [one for one in taken(target) if one[0] != signal.SIGCONT] == expected


def test_killed_real_time_signals_are_counted(target: Running) -> None:
    """Five kill(2) with one real-time signal are five for the target."""
    for _ in range(5):
        os.kill(target.pid, signal.SIGRTMIN)
    assert taken(target) == [(signal.SIGRTMIN, SI_USER, 0)] * 5


def test_a_thread_directed_signal_arrives(target: Running) -> None:
    """tgkill(2) of rtlaunch's main thread was meant for the program as well."""
    import ctypes

    tgkill = 234 if os.uname().machine == "x86_64" else 131  # asm/unistd_64.h, asm-generic/unistd.h
    assert ctypes.CDLL(None).syscall(tgkill, target.pid, target.pid, int(signal.SIGUSR2)) == 0
    assert taken(target) == [(signal.SIGUSR2, SI_USER, 0)]


def test_the_death_of_rtlaunchs_child_is_its_own_business(target: Running) -> None:
    """SIGCHLD sent to rtlaunch is not passed on."""
    os.kill(target.pid, signal.SIGCHLD)
    assert taken(target) == []


def test_a_timer_set_before_rtlaunch_started_ends_the_program(
    rtlaunch: Launcher, targets: Path
) -> None:
    """alarm(2) is kept over exec, so it would have reached the program: it does."""

    def soon() -> None:
        signal.setitimer(signal.ITIMER_REAL, 1.5)

    with running(rtlaunch, [], [targets / "signals"], preexec_fn=soon) as target:
        assert target.lines.line().split()[0] == str(int(signal.SIGALRM))


def test_a_signal_the_program_does_not_take_ends_it_and_the_run(
    rtlaunch: Launcher, targets: Path
) -> None:
    """SIGTERM of rtlaunch: the program dies of it, rtlaunch says 128 + 15."""
    with running(rtlaunch, [], [targets / "signals", str(int(signal.SIGUSR1))]) as target:
        os.kill(target.pid, signal.SIGTERM)
        assert target.process.wait(10) == 128 + signal.SIGTERM


# ---- before there is a program

LOADER, INTERPRETER, SCRIPT, OURS = (
    "/libc.so.6", "/encodings/", "/rtlaunch/__main__.py", "/rtlaunch/launch."
)  # fmt: skip


def interrupt_at(launcher: Launcher, file: str, trace: Path, *words: str | Path) -> None:
    """Let ``rtlaunch WORDS``, from now on, be interrupted as it opens its first such file."""
    if not can_trace():
        skip("no-strace")
    strace = ["strace", "-qq", "-e", "trace=openat", "-o", str(trace)]
    launcher.prefix = strace
    launcher.start(*words).communicate(timeout=20)
    opened = [line for line in trace.read_text().splitlines() if line.startswith("openat(")]
    when = next(at for at, line in enumerate(opened, 1) if file in line)
    launcher.prefix = [*strace, "-e", f"inject=openat:signal=INT:when={when}"]


@pytest.mark.parametrize("file", [LOADER, INTERPRETER, SCRIPT, OURS])
def test_an_interrupt_while_rtlaunch_starts_is_a_plain_death(
    rtlaunch: Launcher, tmp_path: Path, file: str
) -> None:
    """Ctrl-C before there is a program: rtlaunch dies of it without a traceback, nothing starts."""
    marker = tmp_path / "marker"
    interrupt_at(rtlaunch, file, tmp_path / "trace", "--", "touch", marker)
    marker.unlink()
    run = rtlaunch.start("--", "touch", marker)
    out, err = run.communicate(timeout=10)
    assert (run.returncode, out, err) == (-signal.SIGINT, "", "")
    assert not marker.exists()


@pytest.mark.parametrize("words", [["plan", "--", "true"], ["--help"], ["explain", "usage"]])
def test_an_interrupt_at_the_start_of_another_command_is_a_plain_death(
    rtlaunch: Launcher, tmp_path: Path, words: list[str]
) -> None:
    """Not of a launch alone."""
    interrupt_at(rtlaunch, SCRIPT, tmp_path / "trace", *words)
    run = rtlaunch.start(*words)
    out, err = run.communicate(timeout=10)
    assert (run.returncode, out, err) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("blocked", [[], [signal.SIGINT], [signal.SIGINT, signal.SIGUSR1]])
def test_what_was_blocked_at_the_start_is_blocked_in_the_program(
    rtlaunch: Launcher, blocked: list[signal.Signals]
) -> None:
    """What rtlaunch holds back while it starts leaves no trace in the program's mask."""

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)

    out = rtlaunch.run("--", "grep", "SigBlk", "/proc/self/status", preexec_fn=block).out
    assert int(out.split()[1], 16) == sum(1 << number - 1 for number in blocked)


def test_an_interrupt_that_is_ignored_is_nothing_to_rtlaunch_either(
    rtlaunch: Launcher, tmp_path: Path
) -> None:
    """As a shell starts its background jobs: SIGINT at the start is lost, the program runs."""
    interrupt_at(rtlaunch, SCRIPT, tmp_path / "trace", "--", "sh", "-c", "exit 3")

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    ran = rtlaunch.run("--", "sh", "-c", "exit 3", preexec_fn=ignore)
    assert (ran.code, ran.err) == (3, "")


# ---- arming


def test_a_signal_that_arms_may_come_before_the_proof(rtlaunch: Launcher) -> None:
    """--arm signal:USR1, sent as the program announces itself: it arms at the proof, unseen."""
    if not can_trace():
        skip("no-strace")
    first_message = ["-e", "trace=recvmsg", "-e", "inject=recvmsg:signal=USR1:when=1"]
    rtlaunch.prefix = ["strace", "-qq", "-o", os.devnull, *first_message]
    ran = rtlaunch.run("--arm", "signal:USR1", "--", "true")
    times = ran.report["time"]
    assert (ran.code, ran.report["verdict"]) == (0, "clean")
    assert times["proven_ns"] <= times["armed_ns"] <= times["go_ns"]
