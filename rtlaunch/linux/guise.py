"""Being another user for the moment of one call, by the calling thread alone.

For an open (setfsuid(2), setfsgid(2)) and for a signal (setresuid(2)).

Who may read /proc/PID/smaps is whom ptrace would let (kernel/ptrace.c, __ptrace_may_access): the
same user and group with at least the same capabilities, or CAP_SYS_PTRACE. Who may send a signal
is the same user, or who has CAP_KILL (kernel/signal.c, kill_ok_by_cred). Root of a container may
become any user, and has often neither capability.
"""

from __future__ import annotations

import errno
import os

from rtlaunch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

UNCHANGED = -1  # setresuid(2)


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


def as_sender(pid: int, act: Callable[[], None]) -> None:
    """Do ``act``, which signals ``pid``, as who runs it.

    PermissionError where we may not be that, ProcessLookupError where it is gone. Our own effective
    capabilities are gone meanwhile, and back with our own id (capabilities(7)).
    """
    ours = os.geteuid()
    try:
        theirs = os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    libc.syscall("setresuid", UNCHANGED, theirs, UNCHANGED)
    try:
        act()
    finally:
        libc.syscall("setresuid", UNCHANGED, ours, UNCHANGED)
