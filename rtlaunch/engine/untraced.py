"""Beginning to trace a child; and why that cannot be, worked out after the kernel refused.

It looks and words; what follows is :mod:`rtlaunch.engine.tracing`'s to do.
"""

from __future__ import annotations

import errno
import os

from rtlaunch.core import untraced
from rtlaunch.core.proc import parse_stat, parse_status
from rtlaunch.engine.inject import Injection
from rtlaunch.linux import libc, proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from rtlaunch.core.findings import Finding

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


def begin(
    pid: int, sock: _socket.socket | None = None, witness: tuple[int, int] | None = None
) -> Injection:
    """Trace the process ``pid``; the parameters are Injection's.

    OSError as ptrace(2) has it, EPERM also where a seccomp filter would kill us for it.
    ProcessLookupError where it has ended: of a zombie the kernel says EPERM.
    """
    if libc.has_seccomp_filter() and not _survives():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    try:
        return Injection(pid, sock, witness)
    except PermissionError:
        if _is_dead(pid):
            raise ProcessLookupError from None
        raise


def _is_dead(pid: int) -> bool:
    try:
        return parse_stat(proc.read_stat(pid)).state in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _survives() -> bool:
    """Try a harmless request where a seccomp filter may answer by death."""
    from rtlaunch.engine import trial

    return trial.survives(lambda: ptrace.interrupt(os.getpid()))


def explain(pid: int, error: OSError, leader: str = "") -> Finding:
    """Return the finding for a process that may not be traced, with the rule that decides.

    ``leader`` is the name of one that runs locked, and was to be traced to its next exec.
    """
    number = error.errno or 0
    tracer = parse_status(proc.read_text(pid, "status")).tracer
    denial = untraced.Denial(
        number,
        os.strerror(number),
        tracer,
        _name(tracer) if tracer else "",
        libc.has_seccomp_filter(),
        _yama(),
    )
    return untraced.unfollowed(leader, denial) if leader else untraced.denied(denial)


def _name(pid: int) -> str:
    try:
        return proc.read_text(pid, "comm").rstrip("\n")
    except OSError:
        return ""


def _yama() -> int | None:
    try:
        with open(_YAMA, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
