"""Programs that are locked from outside, and launches that are held at one step of that.

strace delays rtlaunch as it enters its Nth ptrace request, so that a test has time to do
something to the target in each state of the injection. strace traces rtlaunch alone: the target
is rtlaunch's to trace.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import books
from tests.host import wait_until
from tests.kernel.killing import can_trace
from tests.kernel.processes import Lines, state
from tests.kernel.programs import compile_source
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.launching import Launcher

SOURCES = Path(__file__).parent.parent / "targets"
PTRACE = {"x86_64": 101}.get(os.uname().machine, 117)

# What is injected into, and how it is made: compiler, flags, rtlaunch's options.
KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "static": ("cc", "-static", ()),
    "static-pie": ("cc", "-static-pie", ()),
    "musl-static": ("musl-gcc", "-static", ()),
    "dynamic": ("cc", "", ("--via", "ptrace")),
    "musl": ("musl-gcc", "", ("--via", "ptrace")),
}

# The requests of one injection, in order: the first is PTRACE_SEIZE, the last PTRACE_DETACH.
REQUESTS = 28
SEIZE, DETACH = 1, REQUESTS

DELAY_US = 150_000
SETTLED_S = 20


def build(kind: str, name: str, room: Path) -> Path:
    """Compile tests/targets/NAME.c in the way of KINDS, once for each folder."""
    compiler, flags, _ = KINDS[kind]
    source = (SOURCES / f"{name}.c").read_text()
    return compile_source(compiler, f"{flags} -O1 -pthread", source, room / f"{name}-{kind}")


class Held:
    """rtlaunch, held at one of its requests, and its target."""

    def __init__(self, process: subprocess.Popen[str], request: int) -> None:
        assert process.stdout
        self.process = process
        self.request = request
        self.lines = Lines(process.stdout.fileno())
        self.rtlaunch = 0
        self.target = 0

    def is_held(self) -> bool:
        """Tell whether rtlaunch stands before a request, and has for a while."""
        # strace has forked others before, to try out what the kernel can do
        self.rtlaunch = max(books.children(self.process.pid), default=0)
        before = self.call()
        return before.startswith(f"{PTRACE} ") and not self.moves(before)

    def moves(self, before: str) -> bool:
        with suppress(AssertionError):
            wait_until(lambda: self.call() != before, "it stands", DELAY_US / 1e6 / 8)
            return True
        return False

    def call(self) -> str:
        """Return rtlaunch's current system call and its arguments, as /proc has them."""
        try:
            return Path(f"/proc/{self.rtlaunch}/syscall").read_text()
        except OSError:
            return ""

    def wait_held(self) -> None:
        wait_until(self.is_held, f"rtlaunch does not come to its request {self.request}")
        living = (pid for pid in books.children(self.rtlaunch) if state(pid) != "Z")
        self.target = next(living)  # the entry stub leaves a child to be reaped

    def wait_idle(self, letter: str) -> None:
        """Wait until rtlaunch has done what it can, and the target is in this state."""
        idle = lambda: not self.call().startswith((f"{PTRACE} ", "running"))  # noqa: E731
        wait_until(
            lambda: state(self.target) == letter and idle() and not self.moves(self.call()),
            f"the target is in state {state(self.target)!r}, not {letter!r}",
        )

    def end(self) -> int:
        """Close the target's input, on which it ends; return rtlaunch's exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(SETTLED_S)

    def close(self) -> None:
        """End what is left, the target first."""
        for pid in (self.target, self.rtlaunch):
            if pid and pid in [*books.children(self.process.pid), *self.grandchildren()]:
                os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream and not stream.closed:
                stream.close()

    def grandchildren(self) -> list[int]:
        with suppress(OSError):
            return books.children(self.rtlaunch) if self.rtlaunch else []
        return []


@contextmanager
def held_at(
    launcher: Launcher,
    request: int,
    options: Sequence[str],
    command: Sequence[str | Path],
    how: str = f"delay_enter={DELAY_US}",
    blocked: str = "",
    **more: Any,
) -> Iterator[Held]:
    """Run ``rtlaunch OPTIONS -- COMMAND`` to its Nth ptrace request; ``blocked`` as env(1)'s."""
    if not can_trace():
        skip("no-strace")
    inject = f"inject=ptrace:{how}:when={request}"
    words = ["strace", "-qq", "-o", os.devnull, "-e", "trace=ptrace", "-e", inject]
    words += ["env", f"--block-signal={blocked}"] if blocked else []
    words += launcher.words(*options, "--", *command)
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        words, text=True, cwd=launcher.folder, start_new_session=True, **{**streams, **more}
    )
    found = Held(process, request)
    try:
        found.wait_held()
        yield found
    finally:
        found.close()
