"""Which shim a target gets, where it lies, and a name for it that LD_PRELOAD can carry.

ld.so splits LD_PRELOAD at spaces and colons, and an installation may lie under
a path with either. Then a symbolic link in the state directory stands for it:
one for each installation, not for each launch, so that programs that outlive
their launcher find it still.

Where programs of both word sizes can run, the name has $LIB in it, for which
each loader puts the folder of its own class (docs/decisions/0045).
"""

from __future__ import annotations

import os

from rtlaunch.core.facts import Shim
from rtlaunch.core.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.facts import Account
    from rtlaunch.core.target import Target

NATIVE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "native")
SEPARATORS = (" ", ":")  # ld.so(8)
OTHERS_MAY_WRITE = 0o022
LOADER_32 = "/lib/ld-linux.so.2"  # the name that the i386 ABI gives glibc's loader
MUSL = b"/ld-musl-"


def choose(
    host: str, target: Target, environ: Mapping[str, str]
) -> tuple[Shim | None, frozenset[str]]:
    """Return the shim for ``target``, and the machines of host and target that there is one for.

    A dynamic program takes its own machine's. A static one passes it on, and takes the host's.
    """
    own = find(host, environ)
    program, machines = target.program, {host} if own else set()
    if program is None or program.elf is None or program.elf.machine == host:
        return own, frozenset(machines)
    musl = MUSL in (program.elf.interp or b"")  # it would find the host's under $LIB
    theirs = find(program.elf.machine, environ, plain=musl)
    if theirs:
        machines.add(theirs.machine)
    return theirs if theirs and program.elf.dynamic else own, frozenset(machines)


def find(machine: str, environ: Mapping[str, str], plain: bool = False) -> Shim | None:
    """Return the shim for ``machine`` (as uname has it), or None if there is none.

    ``plain`` asks for the very file, where a loader would not find it by $LIB.
    """
    path = path_of("shim", machine)
    try:
        noexec = bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return None
    name = preloadable(path, environ) if plain else named("shim", path, environ)
    return Shim(machine, path, name, noexec, both=not plain and bool(tree()))


def for_account(shim: Shim, account: Account) -> Shim:
    """Return the shim with why ``account``, whom the target becomes, cannot read it."""
    from rtlaunch.engine import hidden

    return replace(shim, hidden=hidden.reason(shim, account))


def guest(name: str, machine: str, environ: Mapping[str, str]) -> str:
    """Return another guest as LD_PRELOAD can carry it; "" where there is none, or no way to."""
    path = path_of(name, machine)
    return named(name, path, environ) if os.path.exists(path) else ""


def named(guest_name: str, path: str, environ: Mapping[str, str]) -> str:
    """Return a name that each loader finds its own guest by, else that of the file at ``path``."""
    folder = tree()
    if not folder:
        return preloadable(path, environ)
    folder = preloadable(folder, environ)
    return f"{folder}/$LIB/rtlaunch-{guest_name}.so" if folder else ""


def tree() -> str:
    """Return the folder whose $LIB leads each loader to its own class; "" for no such need.

    Which one it is: where /lib64 is /lib (Arch), $LIB of 64 bits is lib, else that of 32 may be.
    """
    if not os.path.exists(LOADER_32):
        return ""
    merged = os.path.realpath("/lib64") == os.path.realpath("/lib")
    folder = os.path.join(NATIVE, "merged" if merged else "split")
    return folder if os.path.isdir(folder) else ""


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
    tail = os.path.splitext(path)[1]
    link = os.path.join(folder, f"shim-{found.st_dev:x}-{found.st_ino:x}{tail}")
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
