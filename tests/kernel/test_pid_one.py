"""rtlaunch as PID 1 of its own pid namespace, as in a container: no stop signal is lost.

The kernel drops what the first process of a namespace has no handler for (kernel/signal.c,
sig_task_ignored), unless it is blocked: from its first instruction on rtlaunch has to take it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import books
from tests.host import wait_until
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launching import Launcher

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
STOPPED = 128 + signal.SIGTERM


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Skip where no pid namespace can be made."""
    probe = subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False)
    if probe.returncode:
        skip("no-mount")


@contextmanager
def as_pid_one(launcher: Launcher, *words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run rtlaunch as PID 1; what is yielded is unshare, which ends with its code."""
    process = subprocess.Popen(
        [*UNSHARE, str(launcher.program), *map(str, words)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=launcher.folder,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_process(process: subprocess.Popen[bytes], program: str) -> int:
    """Return the host's pid of PID 1 as soon as it runs a program of this name."""
    found: list[int] = []

    def runs() -> bool:
        found[:] = books.children(process.pid)
        return bool(found) and name_of(found[0]).startswith(program)

    wait_until(runs, f"PID 1 does not run {program}")
    return found[0]


def name_of(pid: int) -> str:
    """Return the name of the program that a process runs; empty where it is gone."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


def test_a_stop_while_the_interpreter_starts_is_not_lost(rtlaunch: Launcher) -> None:
    """SIGTERM in the first milliseconds of PID 1 ends the program, as it does later."""
    with as_pid_one(rtlaunch, "--", "/bin/sleep", "60") as process:
        os.kill(first_process(process, "python"), signal.SIGTERM)
        assert process.wait(10) == STOPPED


@pytest.mark.parametrize("delay_ms", [5, 10, 15, 20, 30, 45])
def test_a_stop_at_any_moment_ends_it(rtlaunch: Launcher, delay_ms: int) -> None:
    """While it imports, before the fork, before exec, during the lock: the same end."""
    with as_pid_one(rtlaunch, "--", "/bin/sleep", "60") as process:
        pid = first_process(process, "python")
        signal.sigtimedwait([], delay_ms / 1000)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(10) == STOPPED


def test_signals_of_the_program_are_not_blocked(rtlaunch: Launcher) -> None:
    """What PID 1 blocks for itself is not passed on: the program's mask is as it was."""
    with as_pid_one(rtlaunch, "--", "/bin/cat", "/proc/self/status") as process:
        out, err = process.communicate(timeout=10)
    assert books.status_of(out.decode())["SigBlk"] == f"{0:016x}", err


def test_a_subcommand_can_be_stopped(rtlaunch: Launcher) -> None:
    """What is no launch has no signal blocked: plan prints and ends."""
    with as_pid_one(rtlaunch, "plan", "--", "/bin/true") as process:
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"exec /bin/true" in out
