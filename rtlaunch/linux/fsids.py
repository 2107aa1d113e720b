"""Opening a file as another user, for the moment of the open (setfsuid(2), setfsgid(2)).

Who may read /proc/PID/smaps is whom ptrace would let (kernel/ptrace.c, __ptrace_may_access): the
same user and group with at least the same capabilities, or CAP_SYS_PTRACE. Root of a container has
all users' ids and not that capability. Only the calling thread is changed, and set back.
"""

from __future__ import annotations

import os

from rtlaunch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def as_owner(folder: str, act: Callable[[], T]) -> T:
    """Do ``act`` with the ids of the owner of ``folder``; as we are where that is not allowed.

    Neither call tells of its failure (setfsuid(2)): ``act`` fails then as before.
    """
    owner = os.stat(folder)
    libc.syscall("setfsgid", owner.st_gid)
    libc.syscall("setfsuid", owner.st_uid)
    try:
        return act()
    finally:
        libc.syscall("setfsuid", os.geteuid())
        libc.syscall("setfsgid", os.getegid())
