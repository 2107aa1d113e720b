"""The journal's socket: whether stderr leads there, and one datagram to it.

It must not know what an entry holds; that is :mod:`rtlaunch.report.journal`'s.
"""

from __future__ import annotations

import _socket
import os
import time
from fcntl import ioctl

SOCKET = "/run/systemd/journal/socket"
SIOCOUTQ = 0x5411  # include/uapi/asm-generic/ioctls.h: bytes that the other side has not read
READ_WITHIN_S = 0.05
POLL_S = 0.001


def is_stream(fd: int, named: str) -> bool:
    """Tell whether ``fd`` is the stream DEVICE:INODE of JOURNAL_STREAM (systemd.exec(5))."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def send(data: bytes, patience_s: float) -> None:
    """Send one entry, and wait a moment until it was read.

    The journal looks its sender up in /proc: of one that has ended by then it does not know the
    unit. OSError where there is no journal, it does not read for ``patience_s``, or the entry is
    too long for a datagram.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(patience_s)
        sock.connect(SOCKET)
        sock.send(data)
        until = time.monotonic() + READ_WITHIN_S
        while unread_bytes(sock) and time.monotonic() < until:
            time.sleep(POLL_S)
    finally:
        sock.close()


def unread_bytes(sock: _socket.socket) -> int:
    """Return how much of what was sent nobody has read yet."""
    return int.from_bytes(ioctl(sock.fileno(), SIOCOUTQ, bytes(4)), "little")
