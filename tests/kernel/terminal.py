"""A terminal with a session of its own, and shells with job control on it."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.host import wait_until
from tests.kernel.processes import DEADLINE, Lines, end_session, state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# As people use them, but without files of the user's, and without line editing, which echoes.
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "--noediting", "-i"],
    "sh": ["sh", "-i"],
}
LAST = int(signal.SIGRTMAX)
INTERRUPT, QUIT, STOP = "\x03", "\x1c", "\x1a"  # Ctrl-C, Ctrl-\, Ctrl-Z: termios' defaults


class Terminal:
    """A pseudo-terminal whose session leader is one process; nothing that is typed is echoed."""

    def __init__(self, argv: Sequence[str | Path], **how: Any) -> None:
        self.master, slave = os.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.leader = subprocess.Popen(["setsid", "--ctty", *map(str, argv)], **{**streams, **how})
        os.close(slave)
        self.lines = Lines(self.master)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def foreground(self) -> int:
        """Return the process group that has the terminal."""
        packed = fcntl.ioctl(self.master, termios.TIOCGPGRP, b"\0" * 4)
        return int(struct.unpack("i", packed)[0])

    def hang_up(self) -> None:
        """Let the line go dead, as when a window is closed."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def end(self) -> None:
        """Kill and reap all that is left of the session."""
        self.leader.kill()
        self.leader.wait()
        end_session(self.leader.pid)
        self.hang_up()


@contextmanager
def terminal(argv: Sequence[str | Path], **how: Any) -> Iterator[Terminal]:
    """Run a session leader on a terminal of its own; all of its session ends with the block."""
    found = Terminal(argv, **how)
    try:
        yield found
    finally:
        found.end()


class Job:
    """A target that was started from a shell on a terminal, with its rtlaunch."""

    def __init__(self, on: Terminal, greeting: str = "") -> None:
        self.on = on
        words = greeting or on.lines.upto("ready ") + on.lines.line()
        self.target, self.rtlaunch = map(int, words.split()[-2:])

    def taken(self) -> list[str]:
        """Return the signals that the target took up to now, each as "NUMBER CODE".

        A last one is sent through rtlaunch: of those that wait, the highest number comes last.
        """
        os.kill(self.rtlaunch, LAST)
        told = self.on.lines.upto(f"{LAST} 0 0\n")
        rows = [line.split() for line in told.splitlines()[:-1]]
        return [f"{row[0]} {row[1]}" for row in rows if len(row) == 3 and row[0].isdigit()]

    def states(self) -> tuple[str, str]:
        """Return the states of rtlaunch and of the target."""
        return state(self.rtlaunch), state(self.target)

    def wait_for(self, *states: str) -> None:
        """Wait until rtlaunch and target have these states."""
        wait_until(lambda: self.states() == states, f"{self.states()} never are {states}", DEADLINE)
