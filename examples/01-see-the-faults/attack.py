"""Push the memory of a running program out, as memory pressure does, but on demand.

Two ways give the kernel the same advice, MADV_PAGEOUT, for every mapping: from
outside with process_madvise(2), which needs CAP_SYS_NICE, or else from a thread
linked into the program (inside.c), which needs nothing. On a locked mapping the
kernel answers EINVAL: that refusal is a proof of the lock.

It must not touch any process but the one it was given, nor any setting of the host.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

MADV_PAGEOUT = 21  # asm-generic/mman-common.h
SYS_PROCESS_MADVISE = 440  # the same number on every architecture but alpha
ANSWER_SECONDS = 10

_libc = ctypes.CDLL(None, use_errno=True)


class Round(NamedTuple):
    """What became of one round: mappings that took the advice, and those that refused it."""

    taken: int
    refused: int


class Attack(Protocol):
    """A way to page out a program; ``round`` is called with its pid, again and again."""

    words: str

    def environment(self) -> dict[str, str]:
        """Return what the attacked program needs in its environment."""

    def round(self, pid: int) -> Round:
        """Ask the kernel to page out every mapping of ``pid``, once."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def kernels_own(line: str) -> bool:
    """Tell whether a line of maps or smaps is [vdso], [vvar] or [vsyscall]: nobody locks those."""
    name = line.split(maxsplit=5)[5:]
    return bool(name) and name[0].startswith("[v")


def mappings(pid: int) -> Iterator[tuple[int, int]]:
    """Yield start and length, bytes, of what /proc/PID/maps lists, the kernel's own left out."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        if not kernels_own(line):
            start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            yield start, end - start


def process_madvise(pidfd: int, start: int, length: int, advice: int) -> int:
    """Advise the kernel on one range of another process; return 0 or errno (process_madvise(2))."""
    vector = _Iovec(start, length)
    done = _libc.syscall(
        ctypes.c_long(SYS_PROCESS_MADVISE),
        ctypes.c_long(pidfd),
        ctypes.byref(vector),
        ctypes.c_long(1),
        ctypes.c_long(advice),
        ctypes.c_long(0),
    )
    return ctypes.get_errno() if done < 0 else 0


class Outside:
    """Page the program out from this process, by process_madvise(2)."""

    words = "process_madvise(MADV_PAGEOUT) from outside, every mapping"

    def environment(self) -> dict[str, str]:
        """Return nothing: the program has no part in it."""
        return {}

    def round(self, pid: int) -> Round:
        """Ask once for every mapping; OSError where the kernel says neither yes nor EINVAL."""
        pidfd = os.pidfd_open(pid)
        try:
            answers = [
                process_madvise(pidfd, start, length, MADV_PAGEOUT)
                for start, length in mappings(pid)
            ]
        finally:
            os.close(pidfd)
        unexpected = set(answers) - {0, errno.EINVAL}
        if unexpected:
            number = unexpected.pop()
            raise OSError(number, f"process_madvise: {os.strerror(number)}")
        return Round(taken=answers.count(0), refused=answers.count(errno.EINVAL))


class Inside:
    """Page the program out by a thread linked into it (inside.c), told when over a socket."""

    def __init__(self, why: str, scratch: Path) -> None:
        self.words = f"madvise(MADV_PAGEOUT) by a thread inside, every mapping ({why})"
        self._path = scratch / "attack.socket"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(1)
        self._listener.settimeout(ANSWER_SECONDS)
        self._peers: dict[int, socket.socket] = {}

    def environment(self) -> dict[str, str]:
        """Name the socket on which the thread waits for its orders."""
        return {"ATTACK_SOCKET": str(self._path)}

    def round(self, pid: int) -> Round:
        """Have the thread ask once for every mapping; TimeoutError if it does not answer."""
        if pid not in self._peers:
            self._peers[pid], _ = self._listener.accept()
            self._peers[pid].settimeout(ANSWER_SECONDS)
        self._peers[pid].sendall(b"!")
        taken, refused = self._peers[pid].recv(64).split()
        return Round(int(taken), int(refused))


def choose(scratch: Path) -> Attack:
    """Return the attack from outside if the kernel lets us (tried on a child), else from inside."""
    child = os.fork()
    if child == 0:
        os.read(os.pipe()[0], 1)  # waits for ever; the parent ends it
    try:
        Outside().round(child)
    except OSError as failure:
        reason = errno.errorcode.get(failure.errno or 0, "?")
        return Inside(f"from outside: {reason}, CAP_SYS_NICE is needed", scratch)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return Outside()
