"""Saying READY=1 for a program that cannot: once, after its first proof, by who has its main PID.

A service manager goes by who sent a datagram, which the kernel tells it (NotifyAccess=main), so
the sender is chosen by the process model: we, while the target is our child; else the target,
before its main(): by its shim, or by a call that is made in its name. All that can go wrong with
the address does so here, before the fork; the target is handed a socket that is connected.

It must not wait: a manager that does not read is given up after :data:`PATIENCE_S`.
"""

from __future__ import annotations

import _socket
import os
from _struct import Struct
from errno import EPERM

from rtlaunch.core import protocol
from rtlaunch.core.findings import Refusal
from rtlaunch.core.readiness import VARIABLE, address, failed
from rtlaunch.engine import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.findings import Finding
    from rtlaunch.engine.handshake import Speaker

PATIENCE_S = 5
TIMEVAL = Struct("@ll")  # of SO_SNDTIMEO, socket(7)


def connect(text: str) -> _socket.socket:
    """Return a socket that is connected to ``text``; OSError or ValueError where it cannot be."""
    to = address(text)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, TIMEVAL.pack(PATIENCE_S, 0))
        sock.connect(to)
    except OSError:
        sock.close()
        raise
    return sock


def error_of(environ: Mapping[str, str]) -> str:
    """Return why nobody could be told; empty where somebody can, or nobody is to be."""
    text = environ.get(VARIABLE)
    if not text:
        return ""
    try:
        connect(text).close()
    except (OSError, ValueError) as error:
        return reason(error)
    return ""


def reason(error: OSError | ValueError) -> str:
    """Say an error in words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def begin(environ: Mapping[str, str], by_us: bool) -> Readiness | None:
    """Return who will tell NOTIFY_SOCKET; None where there is none, or that was allowed to fail."""
    text = environ.get(VARIABLE)
    if not text or error_of(environ):
        return None
    try:
        return Readiness(text, connect(text), by_us)
    except (OSError, ValueError) as error:
        raise Refusal(failed(text, reason(error))) from error


class Readiness:
    """One READY=1: ``by_us`` where we are the main process, else by the target itself."""

    def __init__(self, text: str, sock: _socket.socket, by_us: bool) -> None:
        self.text = text
        self.sock = sock
        self.by_us = by_us

    def descriptors(self) -> tuple[int, ...]:
        """Return what a target must be handed before its exec, where no shim can be later."""
        return () if self.by_us else (self.sock.fileno(),)

    def identity(self) -> tuple[int, int] | None:
        """Return what fstat says of that descriptor, by which it is found in the target."""
        if self.by_us:
            return None
        found = os.fstat(self.sock.fileno())
        return found.st_dev, found.st_ino

    def announce(self, speaker: Speaker) -> protocol.Message | None:
        """Say it; return NOTIFIED, or None where the target was asked to and will answer."""
        return self.announce_ourselves() if self.by_us else speaker.notify(self.sock)

    def announce_ourselves(self) -> protocol.Message:
        """Say it as who we are; return NOTIFIED, with EPERM where that is not the main process."""
        if not self.by_us:
            return protocol.Message(protocol.NOTIFIED, error=EPERM)
        try:
            self.sock.send(protocol.READY.encode())
        except OSError as error:
            return protocol.Message(protocol.NOTIFIED, error=error.errno or 0)
        return protocol.Message(protocol.NOTIFIED)

    def not_said(self, errno: int) -> Finding:
        """Return the finding for what was not sent."""
        return failed(self.text, os.strerror(errno))

    def close(self) -> None:
        """Let go of the socket."""
        self.sock.close()


def ask(sock: _socket.socket, ready: _socket.socket) -> protocol.Message | None:
    """Have a shim say it on ``ready``; None, or NOTIFIED at once where it could not be asked."""
    try:
        channel.hand_over(sock, protocol.Message(protocol.NOTIFY), ready.fileno())
    except OSError as error:
        return protocol.Message(protocol.NOTIFIED, error=error.errno or 0)
    return None
