"""Asking the kernel whether another user can read a file, in a forked child that becomes that user.

Mode bits would be a guess: access control lists, security modules and mounts say more. It must not
change anything, and is imported only where the target becomes another user.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Account, Shim

TOKEN = "/$"  # ld.so(8), dynamic string tokens: what follows is the loader's to expand


def reason(shim: Shim, account: Account) -> str:
    """Return why ``account`` cannot open the shim; "" where it can, or nobody can tell."""
    if not shim.preload or os.geteuid() != 0:
        return ""
    pid = os.fork()
    if not pid:
        os._exit(_errno_as(shim, account))
    _, status = os.waitpid(pid, 0)
    errno = os.waitstatus_to_exitcode(status)
    return os.strerror(errno) if errno > 0 else ""


def _errno_as(shim: Shim, account: Account) -> int:
    """Become the account for good, and try; 0 for success, and for what has another cause."""
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError:
        return 0  # whoever may not become another user is told so by others
    try:
        os.open(shim.path, os.O_RDONLY | os.O_CLOEXEC)
        os.stat(shim.preload.partition(TOKEN)[0])  # an alias is in another folder
    except OSError as error:
        return error.errno or 0
    return 0
