"""The channel to the shim: one socketpair for all images, one more for each conversation.

It moves messages and decides nothing. Who sent a message is what the kernel
says (SCM_CREDENTIALS, unix(7)), never what the message says.
"""

from __future__ import annotations

import _socket
import os
from _struct import Struct
from fcntl import F_DUPFD, fcntl

from rtlaunch.core.protocol import MESSAGE_BYTES, Message, pack, unpack
from rtlaunch.core.record import Record

UCRED = Struct("=iII")  # struct ucred: pid, uid, gid
FD = Struct("=i")
MOST_HANDED = 2  # descriptors with one message
ANCILLARY_BYTES = _socket.CMSG_SPACE(UCRED.size) + _socket.CMSG_SPACE(FD.size)

# Where the target's end goes: out of the way of programs that count on low numbers, and below
# 1024, since select(2) cannot take more and a target may list its descriptors.
HIGHEST_FD = 1023


class Sender(Record):
    """Who sent a message, in our own pid namespace."""

    pid: int
    uid: int
    gid: int


class Arrival(Record):
    """A message with its sender, and the descriptor that came with it (-1: none)."""

    message: Message
    sender: Sender
    fd: int


def open_channel() -> tuple[_socket.socket, _socket.socket]:
    """Return our end, which learns the sender of each message, and the target's end."""
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
    ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    ours.setblocking(False)
    return ours, theirs


def open_witness() -> tuple[_socket.socket, _socket.socket]:
    """Return both ends of what tells of an exec: its target's end is closed by it."""
    ours, theirs = _socket.socketpair(
        _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    )
    ours.setblocking(False)
    return ours, theirs


def move_high(fd: int, nofile_soft: int) -> int:
    """Duplicate ``fd``, without close-on-exec, to the highest free number up to 1023.

    ``nofile_soft`` is the limit in force. OSError (EMFILE) when nothing is free.
    """
    top = min(nofile_soft, HIGHEST_FD + 1) if nofile_soft >= 0 else HIGHEST_FD + 1
    for lowest in (top - 1, top - 8, top // 2, 3):
        try:
            return fcntl(fd, F_DUPFD, lowest)
        except OSError:
            continue
    return fcntl(fd, F_DUPFD, 3)


def receive(sock: _socket.socket) -> Arrival | None:
    """Take one message, None when none is waiting.

    EOFError when every descriptor of the other side is closed, or ``sock`` is
    none of the shim's making; ValueError, with the reason, for a datagram that
    is no message of ours.
    """
    try:
        data, ancillary, _, _ = sock.recvmsg(
            MESSAGE_BYTES + 1, ANCILLARY_BYTES, _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        return None
    except OSError:
        raise EOFError from None
    sender, fds = Sender(0, 0, 0), [-1]
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
            sender = Sender(*UCRED.unpack(payload))
        elif level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds = [each for (each,) in FD.iter_unpack(payload)]
    fd, *others = fds
    for other in others:
        os.close(other)
    if not data and not sender.pid:  # an empty datagram has a sender
        raise EOFError
    try:
        return Arrival(unpack(data), sender, fd)
    except ValueError:
        if fd >= 0:
            os.close(fd)
        raise


def hand_over(sock: _socket.socket, message: Message, *fds: int) -> None:
    """Send one message with descriptors; OSError where nobody can take it."""
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(map(FD.pack, fds)))
    sock.sendmsg([pack(message)], [rights], _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)


def take(sock: _socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """Wait for a datagram, b"" at the end of file, and its descriptors: not close-on-exec."""
    data, ancillary, _, _ = sock.recvmsg(MESSAGE_BYTES, _socket.CMSG_SPACE(MOST_HANDED * FD.size))
    whole = (payload[: len(payload) // FD.size * FD.size] for _, _, payload in ancillary)
    return data, tuple(fd for payload in whole for (fd,) in FD.iter_unpack(payload))


def tell(sock: _socket.socket, message: Message) -> bool:
    """Send one message; False when nobody is there to read it."""
    try:
        sock.send(pack(message), _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
    except OSError:  # EPIPE, ECONNRESET, EAGAIN; any other for a socket of somebody else's making
        return False
    return True
