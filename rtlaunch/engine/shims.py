"""Where the shim lies, and a name for it that LD_PRELOAD can carry.

ld.so splits LD_PRELOAD at spaces and colons, and an installation may lie under
a path with either. Then a symbolic link in the state directory stands for it:
one for each installation, not for each launch, so that programs that outlive
their launcher find it still.
"""

from __future__ import annotations

import os

from rtlaunch.core.facts import Shim
from rtlaunch.core.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.facts import Account

NATIVE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "native")
SEPARATORS = (" ", ":")  # ld.so(8)
OTHERS_MAY_WRITE = 0o022


def find(machine: str, environ: Mapping[str, str]) -> Shim | None:
    """Return the shim for ``machine`` (as uname has it), or None if there is none."""
    path = os.path.join(NATIVE, f"rtlaunch-shim-{machine}.so")
    try:
        noexec = bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return None
    return Shim(machine, path, preloadable(path, environ), noexec)


def for_account(shim: Shim, account: Account) -> Shim:
    """Return the shim with why ``account``, whom the target becomes, cannot read it."""
    from rtlaunch.engine import hidden

    return replace(shim, hidden=hidden.reason(shim, account))


def guest(name: str, machine: str, environ: Mapping[str, str]) -> str:
    """Return another guest as LD_PRELOAD can carry it; "" where there is none, or no way to."""
    path = path_of(name, machine)
    return preloadable(path, environ) if os.path.exists(path) else ""


def path_of(name: str, machine: str) -> str:
    """Return where the guest of that name lies, if this installation has it."""
    return os.path.join(NATIVE, f"rtlaunch-{name}-{machine}.so")


def preloadable(path: str, environ: Mapping[str, str]) -> str:
    """Return a name for ``path`` without separators, "" if none can be had."""
    plain = not any(separator in path for separator in SEPARATORS)
    return path if plain else alias(path, environ)


def installed() -> frozenset[str]:
    """Return the machines that this installation has a shim for."""
    head, tail = "rtlaunch-shim-", ".so"
    return frozenset(
        name[len(head) : -len(tail)]
        for name in os.listdir(NATIVE)
        if name.startswith(head) and name.endswith(tail)
    )


def state_directory(environ: Mapping[str, str]) -> str:
    """Return the state directory: RTLAUNCH_STATE_DIR, /run/rtlaunch for root, else the user's own.

    That one is in XDG_RUNTIME_DIR. Empty where the user has no runtime directory:
    /tmp is no place for a library that others load.
    """
    given = environ.get("RTLAUNCH_STATE_DIR")
    if given:
        return given
    if os.geteuid() == 0:
        return "/run/rtlaunch"
    runtime = environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "rtlaunch") if runtime else ""


def alias(path: str, environ: Mapping[str, str]) -> str:
    """Return a link to ``path`` without separators in its name, "" if none can be had."""
    folder = state_directory(environ)
    if not folder or any(separator in folder for separator in SEPARATORS):
        return ""
    folder = os.path.abspath(folder)  # the target may go elsewhere before it exec()s again
    found = os.stat(path)
    link = os.path.join(folder, f"shim-{found.st_dev:x}-{found.st_ino:x}.so")
    try:
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o755)  # whatever our umask: the target may be another user
        owner = os.stat(folder)
        if owner.st_uid not in (0, os.geteuid()) or owner.st_mode & OTHERS_MAY_WRITE:
            return ""
        if not os.path.islink(link) or os.readlink(link) != path:
            put_link(path, link)
    except OSError:
        return ""
    return link


def put_link(path: str, link: str) -> None:
    """Make ``link`` point to ``path`` in one step, whatever it was before.

    Only to replace another one takes it a second name (rename(2)), which a SIGKILL could leave.
    """
    try:
        os.symlink(path, link)
    except FileExistsError:
        fresh = f"{link}.{os.getpid()}"
        os.symlink(path, fresh)
        os.rename(fresh, link)
