"""Readiness for a program that cannot say it: whom NOTIFY_SOCKET names, what is in the way.

Pure. sd_notify(3) has the address: a path, or a name of the abstract name space after ``@``. Who
says READY=1, and when, is :mod:`rtlaunch.engine.readiness`'s.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options

VARIABLE = "NOTIFY_SOCKET"
LONGEST = 107  # bytes of sun_path (unix(7)), less the one that ends or begins it


class SayReady(Step):
    """Tell a service manager that the program is ready, from the unit's main process."""

    socket: str
    by_program: bool

    def describe(self) -> str:
        """Say who tells whom."""
        who = "the program's own process" if self.by_program else "rtlaunch, the main process"
        return f"say READY=1 to {self.socket}, from {who}"


def steps(facts: Facts, by_program: bool) -> tuple[Step, ...]:
    """Return the step, where there is somebody to be told."""
    to = facts.environ.get(VARIABLE)
    return (SayReady(to, by_program),) if to and not facts.notify_error else ()


def address(text: str) -> bytes:
    """Return a socket's address as bind(2) takes it; ValueError, with the reason, for none."""
    name = text.encode("utf-8", "surrogateescape")
    if name[:1] not in (b"/", b"@") or len(name) < 2:
        raise ValueError("it is neither an absolute path nor a name after @")
    if len(name) > LONGEST:
        raise ValueError(f"it has {len(name)} bytes, and an address at most {LONGEST}")
    return b"\0" + name[1:] if name[:1] == b"@" else name


def findings(options: Options, facts: Facts, has_speaker: bool) -> Iterable[Finding]:
    """Find what keeps ``--notify`` from being heard.

    ``has_speaker`` tells whether there will be a shim, or ourselves, under the main PID.
    """
    if not facts.environ.get(VARIABLE):
        yield Finding(
            "notify-missing",
            "--notify has nobody to tell: NOTIFY_SOCKET is not set",
            why="a service manager sets it where it waits for READY=1 (systemd: Type=notify)",
        )
    elif facts.notify_error:
        yield failed(facts.environ[VARIABLE], facts.notify_error)
    elif not has_speaker:
        yield failed(facts.environ[VARIABLE], "nothing of ours will be in the program to say it")


def failed(socket: str, why: str) -> Finding:
    """Return the finding for a READY=1 that cannot be sent to ``socket``."""
    return Finding(
        "notify-failed",
        f"READY=1 cannot be sent to NOTIFY_SOCKET={socket}: {why}",
        why="who waits for it would wait until its time is over, and then end the program",
        values={"socket": socket, "error": why},
    )
