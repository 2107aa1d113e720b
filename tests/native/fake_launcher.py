"""A launcher that says what a test wants it to say, so that each answer of the shim can be seen.

It judges nothing, and shares nothing with the real one but rtlaunch.core.protocol.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import shlex
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Self

from rtlaunch.core.protocol import (
    CHANNEL_VARIABLE,
    MESSAGE_BYTES,
    Message,
    channel_variable,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 20
HIGH = 600  # out of the way of what a shell or a libc opens


class Target:
    """A process with the shim in it, and what it said at its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def end(self) -> tuple[int, dict[str, str]]:
        """Return its exit status (-N for signal N) and the lines of books.c by their first word."""
        out, _ = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, dict(line.split(" ", 1) for line in out.splitlines())

    def has_said_nothing(self) -> bool:
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], 0)[0]


class FakeLauncher:
    """Both ends of a channel, and the targets that were started with it."""

    def __init__(self, shim: Path) -> None:
        self.shim = shim
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(DEADLINE_S)
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.their_fd = fcntl.fcntl(theirs, fcntl.F_DUPFD, HIGH)
        theirs.close()
        self.targets: list[Target] = []
        self.pairs: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self.channel, *self.pairs):
            end.close()
        os.close(self.their_fd)
        for target in self.targets:
            target.process.kill()
            target.process.communicate()

    def variable(self, pid: int | None) -> str:
        """Return the channel's text; the pid as the shell's own where ``pid`` is None."""
        found = os.fstat(self.their_fd)
        text = channel_variable(self.their_fd, found.st_dev, found.st_ino, pid or 0)
        return text if pid is not None else text.removesuffix("0") + "$(printf %x $$)"

    def start(
        self,
        *command: str | Path,
        pid: int | None = None,
        variable: str | None = None,
        before: str = "",
        runner: str = "",
    ) -> Target:
        """Start ``command`` with the shim, as this very pid unless ``pid`` says another.

        ``before`` is shell to run first, ``runner`` a prefix that keeps the pid, or an emulator
        that takes the environment of its guest by ``-E``.
        """
        text = self.variable(pid) if variable is None else shlex.quote(variable)
        settings = (f"{CHANNEL_VARIABLE}={text}", f"LD_PRELOAD={shlex.quote(str(self.shim))}")
        if "qemu" in runner:
            words = [runner, *(f"-E {setting}" for setting in settings)]
        else:
            words = [runner, "env", *settings]
        script = " ".join([before, "exec", *words, *(shlex.quote(str(word)) for word in command)])
        target = Target(
            subprocess.Popen(
                ["sh", "-c", script],
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[self.their_fd],
            )
        )
        self.targets.append(target)
        return target

    def entered(self) -> tuple[Message, int, socket.socket]:
        """Await ENTERED; return it, the pid that the kernel says sent it, and the private end."""
        room = socket.CMSG_SPACE(array.array("i").itemsize) + socket.CMSG_SPACE(12)
        data, control, _, _ = self.channel.recvmsg(MESSAGE_BYTES, room)
        passed = {kind: array.array("i", value) for _, kind, value in control}
        pair = socket.socket(fileno=passed[socket.SCM_RIGHTS][0])
        pair.settimeout(DEADLINE_S)
        self.pairs.append(pair)
        return unpack(data), passed[socket.SCM_CREDENTIALS][0], pair

    def channel_is_empty(self) -> bool:
        """Say whether nothing was sent, or nothing more."""
        return not select.select([self.channel], [], [], 0)[0]


def tell(end: socket.socket, kind: int, **fields: int) -> None:
    end.send(pack(Message(kind, **fields)))


def hear(end: socket.socket) -> Message:
    return unpack(end.recv(MESSAGE_BYTES))


def stop_and_continue(pid: int) -> None:
    """Stop the process, see the kernel say so, and let it go on."""
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(pid, signal.SIGCONT)
