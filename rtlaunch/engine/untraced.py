"""Beginning to trace a child; and why that cannot be, worked out after the kernel refused.

It looks and words; what follows is the supervisor's to do.
"""

from __future__ import annotations

import errno
import os

from rtlaunch.core import untraced
from rtlaunch.engine.inject import Injection
from rtlaunch.linux import libc, proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.findings import Finding

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


def begin(pid: int) -> Injection:
    """Trace ``pid``; OSError as ptrace(2) has it, EPERM also where a filter would kill us."""
    if libc.has_seccomp_filter() and not _survives():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return Injection(pid)


def _survives() -> bool:
    """Try a harmless request where a seccomp filter may answer by death."""
    from rtlaunch.engine import trial

    return trial.survives(lambda: ptrace.interrupt(os.getpid()))


def explain(pid: int, error: OSError) -> Finding:
    """Return the finding for a child that may not be traced, with the rule that decides."""
    number = error.errno or 0
    tracer = _tracer(pid)
    return untraced.denied(
        untraced.Denial(
            number,
            os.strerror(number),
            tracer,
            _name(tracer) if tracer else "",
            libc.has_seccomp_filter(),
            _yama(),
        )
    )


def _tracer(pid: int) -> int:
    """Return who traces ``pid``, 0 if nobody that we can see does."""
    lines = proc.read_text(pid, "status").splitlines()
    found = next((line for line in lines if line.startswith("TracerPid:")), "TracerPid: 0")
    return int(found.split()[1])


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
