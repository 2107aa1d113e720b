"""Asking the kernel whether another user can read a file, in a forked child that becomes that user.

Mode bits would be a guess: access control lists, security modules and mounts say more. It must not
change anything, and is imported only where the target becomes another user.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Account


def reason(path: str, account: Account) -> str:
    """Return why ``account`` cannot open ``path``; "" where it can, or nobody can tell."""
    if not path or os.geteuid() != 0:
        return ""
    pid = os.fork()
    if not pid:
        os._exit(_errno_as(path, account))
    _, status = os.waitpid(pid, 0)
    errno = os.waitstatus_to_exitcode(status)
    return os.strerror(errno) if errno > 0 else ""


def _errno_as(path: str, account: Account) -> int:
    """Become the account for good, and try; 0 for success, and for what has another cause."""
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError:
        return 0  # whoever may not become another user is told so by others
    try:
        os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or 0
    return 0
