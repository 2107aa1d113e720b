"""Processes that run already when rtlaunch comes, and rtlaunch coming to them."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.kernel.processes import DEADLINE, Lines
from tests.launching import Ran

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Launcher


class Runner:
    """A test program that has said "ready PID"; it is no child of any rtlaunch."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self.process = process
        self.pid = process.pid
        self.lines = Lines(process.stdout.fileno())

    def say(self, line: str) -> None:
        """Send it a line."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(DEADLINE)


@contextmanager
def started(*words: str | Path, **how: Any) -> Iterator[Runner]:
    """Start a test program, wait until it is ready, and end it afterwards."""
    process = subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **how,
    )
    runner = Runner(process)
    try:
        assert runner.lines.line().startswith("ready"), runner.lines.seen
        yield runner
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream
            stream.close()


def call(launcher: Launcher, *words: str | int) -> Ran:
    """Run ``rtlaunch WORDS`` to its end."""
    process = launcher.start(*map(str, words))
    try:
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    return Ran(process.returncode, out, err)


def refused_as(ran: Ran) -> str:
    """Return the code of a refusal; "" for none."""
    return ran.err.partition("[")[2].partition("]")[0] if ran.code == 125 else ""
