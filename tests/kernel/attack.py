"""Pushing the memory of a process out, from the test, whenever it wants: process_madvise(2).

On a locked mapping the kernel answers EINVAL, which is a proof of the lock as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests import books
from tests.skips import skip

MADV_PAGEOUT = 21  # asm-generic/mman-common.h
SYS_PROCESS_MADVISE = 440  # on every architecture but alpha
CAP_SYS_NICE = 23

libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@dataclass
class Round:
    """How many mappings took the advice, and how many refused it with EINVAL."""

    taken: int = 0
    refused: int = 0


def need_right() -> None:
    """Skip where the kernel lets us advise no other process."""
    if not books.holds("self", CAP_SYS_NICE):
        skip("not-root")


def own_copy(program: Path, folder: Path) -> Path:
    """Copy a program, so that one process alone maps it, and write it out: dirty pages stay."""
    copy = Path(shutil.copy(program, folder / program.name))
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    return copy


def page_out(pid: int) -> Round:
    """Ask once for every mapping of ``pid`` that mlock could lock."""
    pidfd = os.pidfd_open(pid)
    answers = Round()
    try:
        for mapping in books.smaps(pid):
            if mapping.lockable:
                advise(pidfd, mapping, answers)
    finally:
        os.close(pidfd)
    return answers


def advise(pidfd: int, mapping: books.Mapping, answers: Round) -> None:
    vector = Iovec(mapping.start, mapping.end - mapping.start)
    numbers = (SYS_PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, MADV_PAGEOUT, 0)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in numbers]
    if libc.syscall(*words) >= 0:
        answers.taken += 1
    elif ctypes.get_errno() == errno.EINVAL:
        answers.refused += 1
    elif ctypes.get_errno() != errno.ENOMEM:  # the program has unmapped it meanwhile
        raise OSError(ctypes.get_errno(), f"process_madvise of {mapping}")
