"""What is said of a target that ptrace cannot lock: which rule is in the way, with its values.

Pure: the engine asks the kernel and hands the answers in (crun's way: diagnosed after it failed).
The rules are those of ptrace(2), "Ptrace access mode checking", and of yama
(Documentation/admin-guide/LSM/Yama.rst).
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CAP_SYS_PTRACE_ONLY, NOBODY = 2, 3  # kernel.yama.ptrace_scope

YAMA: Mapping[int, str] = {
    CAP_SYS_PTRACE_ONLY: "kernel.yama.ptrace_scope is 2, and we lack CAP_SYS_PTRACE",
    NOBODY: "kernel.yama.ptrace_scope is 3: nobody may, until the next boot",
}


class Denial(Record):
    """What the kernel said, and what there is to explain it.

    ``tracer`` is the pid of who traces the target already, 0 for nobody; ``yama`` the scope that
    is set, None without yama.
    """

    errno: int
    said: str
    tracer: int = 0
    tracer_name: str = ""
    seccomp: bool = False
    yama: int | None = None


def denied(denial: Denial) -> Finding:
    """Return the finding for a child that we may not trace."""
    return Finding(
        "ptrace-denied",
        f"the program cannot be stopped at its exec: {cause(denial)}",
        why="without a preload only ptrace can lock it before its first instruction",
        values={
            "errno": denial.errno,
            "tracer": denial.tracer or None,
            "seccomp": denial.seccomp,
            "ptrace_scope": denial.yama,
        },
    )


def unfollowed(name: str, denial: Denial) -> Finding:
    """Return the finding for a program that is there to exec another, and may not be traced."""
    return Finding(
        "exec-unfollowed",
        f"{name} is there to become another program, and cannot be followed: {cause(denial)}",
        why="if that one is static, or loses LD_PRELOAD on the way, it would run unlocked",
        values={
            "program": name,
            "errno": denial.errno,
            "tracer": denial.tracer or None,
            "seccomp": denial.seccomp,
            "ptrace_scope": denial.yama,
        },
    )


def cause(denial: Denial) -> str:
    """Say which rule it is, the surest first."""
    if denial.tracer:
        name = f" ({denial.tracer_name})" if denial.tracer_name else ""
        return f"process {denial.tracer}{name} traces it already, and there can be one tracer only"
    if denial.seccomp:
        return f"{denial.said}: a seccomp filter is in force"
    scope = YAMA.get(denial.yama or 0)
    if scope:
        return f"{denial.said}: {scope}"
    return f"{denial.said}: rtlaunch is not dumpable, or a security module forbids it"


def failed(command: str, pid: int, error: OSError) -> Finding:
    """Return the finding for an injection that was begun and could not be made."""
    return Finding(
        "inject-failed",
        f"{command}[{pid}] stands at its exec and could not be locked from outside: "
        f"{error.strerror or error}",
        why="system calls are made in its name, through its registers and its vdso",
        values={"pid": pid, "errno": error.errno or None},
    )
