"""Whatever happens in the midst of an injection: no signal is lost, nobody is left stopped.

Each of rtlaunch's ptrace requests is a moment at which something can happen: the target not yet
in its program, in it but not locked, being locked, locked, about to go.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from tests import books
from tests.host import wait_until
from tests.kernel.injecting import DETACH, REQUESTS, SEIZE, build, held_at
from tests.kernel.processes import is_alive, sigqueue, state

RT = signal.SIGRTMIN  # the C library's: 34
# Not in its program yet; at the exec, before and after its mask is set; entering and leaving calls
# that touch the stack, lock, set the death signal, close; about to go. EVERY_CALL=1: all of them.
STATES = (SEIZE, 2, 4, 5, 8, 12, 15, 16, 18, 22, 26, 27, DETACH)
EVERY = range(SEIZE, REQUESTS + 1) if os.environ.get("EVERY_CALL") else STATES
IN_THE_PROGRAM = [request for request in EVERY if request != SEIZE]
BLOCKED = "USR1,USR2,CONT,TERM,RTMIN,RTMAX"
QUEUED = Counter([f"{int(signal.SIGUSR1)} -1 7", f"{int(RT)} -1 1", f"{int(RT)} -1 2"])


@pytest.fixture(scope="module")
def program(room):
    return build("static", "signals", room)


def queue_some(pid: int) -> None:
    """Send what QUEUED tells of."""
    sigqueue(pid, signal.SIGUSR1, 7)
    sigqueue(pid, RT, 1)
    sigqueue(pid, RT, 2)


def told_until_last(held) -> Counter[str]:
    """Return all that the target was told of, up to the signal that it takes last of all."""
    assert held.lines.line().startswith(f"ready {held.target} ")
    sigqueue(held.target, signal.SIGRTMAX, 9)
    told: Counter[str] = Counter()
    while (line := held.lines.line()) != f"{int(signal.SIGRTMAX)} -1 9":
        told[line] += 1
    return told


def test_the_requests_are_as_many_as_here(rtlaunch, program):
    """After the last that is known here the target runs untraced: no state goes untested."""
    with held_at(rtlaunch, DETACH, (), [program]) as held:
        assert books.status(held.target)["TracerPid"] == str(held.rtlaunch)
        assert held.lines.line().startswith("ready ")
        assert books.status(held.target)["TracerPid"] == "0"
        assert held.end() == 0


@pytest.mark.parametrize("request_", EVERY)
def test_signals_arrive_once_and_whole(rtlaunch, program, request_):
    """Queued meanwhile, blocked ones are pending in main(): each once, in order, with its value."""
    with held_at(rtlaunch, request_, (), [program], blocked=BLOCKED) as held:
        queue_some(held.target)
        assert told_until_last(held) == QUEUED
        assert held.end() == 0


@pytest.mark.parametrize("request_", EVERY)
def test_a_stop_stops_it_and_a_continue_lets_it_go(rtlaunch, program, request_):
    """SIGSTOP holds it back from main(), however far it was; SIGCONT, and it runs, locked."""
    with held_at(rtlaunch, request_, (), [program], blocked=BLOCKED) as held:
        os.kill(held.target, signal.SIGSTOP)
        queue_some(held.target)
        held.wait_idle("t" if request_ == SEIZE else "T")
        assert held.lines.seen == ""
        os.kill(held.target, signal.SIGCONT)
        assert told_until_last(held) == QUEUED + Counter([f"{int(signal.SIGCONT)} 0 0"])
        assert books.not_held(held.target) == []
        assert held.end() == 0


@pytest.mark.parametrize("request_", EVERY)
def test_stopped_and_continued_it_is_not_left_stopped(rtlaunch, program, request_):
    """SIGSTOP and then SIGCONT within one state: nothing holds it."""
    with held_at(rtlaunch, request_, (), [program], blocked=BLOCKED) as held:
        for _ in range(3):
            os.kill(held.target, signal.SIGSTOP)
            os.kill(held.target, signal.SIGCONT)
        assert told_until_last(held) == Counter([f"{int(signal.SIGCONT)} 0 0"])
        assert held.end() == 0


@pytest.mark.parametrize("request_", IN_THE_PROGRAM)
def test_a_signal_that_ends_it_ends_it_when_it_is_let_go(rtlaunch, program, request_):
    """SIGTERM of the target waits while it is locked: 128 + 15, and main() never runs."""
    with held_at(rtlaunch, request_, (), [program]) as held:
        os.kill(held.target, signal.SIGTERM)
        out, _ = held.process.communicate(timeout=20)
        assert (held.process.returncode, out) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize("request_", EVERY)
def test_a_signal_that_ends_rtlaunch_is_passed_on(rtlaunch, room, tmp_path, request_):
    """SIGTERM of rtlaunch reaches the target once it runs, locked, or before it does."""
    record = tmp_path / "record"
    with held_at(rtlaunch, request_, (), [build("static", "started", room), record]) as held:
        os.kill(held.rtlaunch, signal.SIGTERM)
        held.process.communicate(timeout=20)
        assert held.process.returncode == 128 + signal.SIGTERM
        words = record.read_text().split() if record.exists() else []
        assert not words or int(words[1]) > 0


@pytest.mark.parametrize("request_", EVERY)
def test_a_target_that_is_killed_is_reaped_and_said(rtlaunch, program, request_):
    """SIGKILL of the target in each state: refused, it did not get to main()."""
    with held_at(rtlaunch, request_, (), [program]) as held:
        os.kill(held.target, signal.SIGKILL)
        out, err = held.process.communicate(timeout=20)
        assert (held.process.returncode, out) == (125, "")
        assert err.startswith("rtlaunch: refused [died-before-go]: ")
        assert "died of SIGKILL" in err


@pytest.mark.parametrize("request_", EVERY)
def test_a_launcher_that_is_killed_takes_it_along(rtlaunch, program, request_):
    """SIGKILL of rtlaunch before go: the target ends, and never gets to main()."""
    with held_at(rtlaunch, request_, (), [program]) as held:
        os.kill(held.rtlaunch, signal.SIGKILL)
        wait_until(lambda: not is_alive(held.target), "the target lives on")
        assert held.process.communicate(timeout=20)[0] == ""


@pytest.mark.parametrize("request_", EVERY)
def test_a_launcher_that_is_stopped_goes_on(rtlaunch, program, request_):
    """SIGSTOP of rtlaunch: the target waits, unlocked or locked, until it is continued."""
    with held_at(rtlaunch, request_, (), [program]) as held:
        os.kill(held.rtlaunch, signal.SIGSTOP)
        wait_until(lambda: held.process.poll() is None and not running(held), "it goes on")
        os.kill(held.rtlaunch, signal.SIGCONT)
        assert held.lines.line().startswith("ready ")
        assert books.not_held(held.target) == []
        assert held.end() == 0


def running(held) -> bool:
    """Tell whether the launcher runs on in spite of a stop, under its tracer."""
    return state(held.rtlaunch) not in "tT"


def test_a_launch_that_takes_long_to_its_exec_is_no_silence(rtlaunch, program):
    """Six seconds between fork and exec, more than a shim may be silent: waited for, and locked."""
    with held_at(rtlaunch, SEIZE, (), [program], how="delay_exit=300000") as held:
        os.kill(held.target, signal.SIGSTOP)
        held.wait_idle("t")
        patience = wait_seconds(6)
        wait_until(patience, "time passes", 10)
        assert (state(held.target), held.process.poll()) == ("t", None)
        os.kill(held.target, signal.SIGCONT)
        assert held.lines.line().startswith("ready ")
        assert books.not_held(held.target) == []
        assert held.end() == 0


def wait_seconds(seconds: float):
    """Return what is true from so many seconds on: for what has no event to wait for."""
    import time

    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due
