"""Whatever happens while `lock PID` holds a thread: no signal is lost, nobody is left stopped.

strace holds the one that traces as it enters its Nth request, and the test does something to it,
to rtlaunch or to the process. EVERY_CALL=1: at all of its requests.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import books
from tests.host import wait_until
from tests.kernel.injecting import DELAY_US, PTRACE
from tests.kernel.killing import can_trace
from tests.kernel.processes import DEADLINE, children, sigqueue, state
from tests.kernel.runners import started
from tests.skips import skip

# PTRACE_SEIZE and INTERRUPT; stopped, and read; blocked; given a call, which it enters, and leaves;
# put back, its signals last; let go.
REQUESTS = 13
SEIZE, DETACH = 1, REQUESTS
STATES = (SEIZE, 2, 3, 6, 7, 8, 9, 11, 12, DETACH)
EVERY = range(SEIZE, REQUESTS + 1) if os.environ.get("EVERY_CALL") else STATES
RT = signal.SIGRTMIN  # the C library's: 34
QUEUED = Counter([f"{int(signal.SIGUSR1)} -1 7", f"{int(RT)} -1 1", f"{int(RT)} -1 2"])


class Held:
    """rtlaunch lock PID, whose tracer stands before a request."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.rtlaunch = self.tracer = 0

    def stands(self) -> bool:
        """Tell whether there is a child of rtlaunch within a request."""
        self.rtlaunch = max(children(self.process.pid), default=0)
        for pid in children(self.rtlaunch) if self.rtlaunch else []:
            if calls(pid).startswith(f"{PTRACE} "):
                self.tracer = pid
        return bool(self.tracer) and not self.moves()

    def moves(self) -> bool:
        """Tell whether the tracer goes on within an eighth of the time that it is held."""
        before = calls(self.tracer)
        with suppress(AssertionError):
            wait_until(lambda: calls(self.tracer) != before, "it stands", DELAY_US / 1e6 / 8)
            return True
        return False

    def end(self) -> tuple[int, str]:
        """Return the exit code, and what was said on stderr."""
        _, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, err


def calls(pid: int) -> str:
    """Return the current system call of a process, as /proc has it; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/syscall").read_text()
    except OSError:
        return ""


@contextmanager
def held_at(launcher, request: int, pid: int):
    """Run ``rtlaunch lock PID`` up to its Nth request."""
    if not can_trace():
        skip("no-strace")
    inject = f"inject=ptrace:delay_enter={DELAY_US}:when={request}"
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=ptrace", "-e", inject]
    process = subprocess.Popen(
        [*command, *launcher.words("lock", str(pid))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=launcher.folder,
    )  # fmt: skip
    held = Held(process)
    try:
        wait_until(held.stands, f"it does not come to its request {request}")
        yield held
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.wait(DEADLINE)
        process.kill()
        process.communicate()


def is_free(pid: int) -> bool:
    """Nobody traces it, and it is not stopped."""
    return books.status(pid)["TracerPid"] == "0" and state(pid) not in "tT"


def told_until_last(runner) -> Counter[str]:
    """Return all that the program was told of, up to the signal that it takes last of all."""
    sigqueue(runner.pid, signal.SIGRTMAX, 9)
    told: Counter[str] = Counter()
    while (line := runner.lines.line()) != f"{int(signal.SIGRTMAX)} -1 9":
        told[line] += 1
    return told


@pytest.fixture
def signals(targets):
    """A process that waits for signals, all of which are blocked."""
    with started(targets / "signals") as runner:
        wait_until(lambda: state(runner.pid) == "S", "it does not sleep")
        yield runner


@pytest.fixture
def reader(targets):
    """A process that blocks in read(2), and dies of what ends a process."""
    with started(targets / "sleepers", "read") as runner:
        wait_until(lambda: state(runner.pid) == "S", "it does not sleep")
        yield runner


def test_the_requests_are_as_many_as_here(rtlaunch, reader):
    """With the last that is known here it is let go: no state goes untested."""
    with held_at(rtlaunch, DETACH, reader.pid) as held:
        assert books.status(reader.pid)["TracerPid"] == str(held.tracer)
        assert books.not_held(reader.pid) == []
        assert held.end() == (0, "")
        assert is_free(reader.pid)


@pytest.mark.parametrize("request_", EVERY)
def test_signals_arrive_once_and_whole(rtlaunch, signals, request_):
    """Queued meanwhile: each once, in order, with its value."""
    with held_at(rtlaunch, request_, signals.pid) as held:
        sigqueue(signals.pid, signal.SIGUSR1, 7)
        sigqueue(signals.pid, RT, 1)
        sigqueue(signals.pid, RT, 2)
        assert held.end()[0] == 0
        assert told_until_last(signals) == QUEUED
        assert books.not_held(signals.pid) == []


@pytest.mark.parametrize("request_", EVERY)
def test_a_stop_stops_it_and_a_continue_lets_it_go(rtlaunch, signals, request_):
    """SIGSTOP meanwhile: locked, it stands until SIGCONT."""
    with held_at(rtlaunch, request_, signals.pid) as held:
        os.kill(signals.pid, signal.SIGSTOP)
        assert held.end()[0] == 0
        wait_until(lambda: state(signals.pid) == "T", "it does not stop")
        assert books.not_held(signals.pid) == []
        os.kill(signals.pid, signal.SIGCONT)
        assert told_until_last(signals) == Counter([f"{int(signal.SIGCONT)} 0 0"])


@pytest.mark.parametrize("request_", EVERY)
def test_stopped_and_continued_it_is_not_left_stopped(rtlaunch, signals, request_):
    """SIGSTOP and then SIGCONT within one state: nothing holds it."""
    with held_at(rtlaunch, request_, signals.pid) as held:
        os.kill(signals.pid, signal.SIGSTOP)
        os.kill(signals.pid, signal.SIGCONT)
        assert held.end()[0] == 0
        assert told_until_last(signals) == Counter([f"{int(signal.SIGCONT)} 0 0"])
        assert is_free(signals.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
@pytest.mark.parametrize("request_", EVERY)
def test_what_ends_it_ends_it(rtlaunch, reader, request_, number):
    """SIGTERM and SIGKILL of the process: it dies of that; rtlaunch locked it, or says that."""
    with held_at(rtlaunch, request_, reader.pid) as held:
        os.kill(reader.pid, number)
        code, err = held.end()
        assert code == 0 or "[process-missing]" in err, err
        assert reader.wait() == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
@pytest.mark.parametrize("request_", EVERY)
def test_what_ends_rtlaunch_harms_nobody(rtlaunch, reader, request_, number):
    """SIGTERM and SIGKILL of rtlaunch: the process is let go, whole, and goes on with its call."""
    with held_at(rtlaunch, request_, reader.pid) as held:
        os.kill(held.rtlaunch, number)
        held.process.wait(DEADLINE)
        wait_until(lambda: is_free(reader.pid), "it is left stopped or traced")
        reader.say("go")
        assert reader.lines.line().split()[:3] == ["read", "1", "0"]


@pytest.mark.parametrize("request_", EVERY)
def test_a_stopped_rtlaunch_holds_nobody_up(rtlaunch, reader, request_):
    """SIGSTOP of rtlaunch: who traces goes on to the end, and the process runs."""
    with held_at(rtlaunch, request_, reader.pid) as held:
        os.kill(held.rtlaunch, signal.SIGSTOP)
        wait_until(lambda: is_free(reader.pid), "it is left stopped or traced")
        reader.say("go")
        assert reader.lines.line().split()[:3] == ["read", "1", "0"]
        os.kill(held.rtlaunch, signal.SIGCONT)
        held.end()
