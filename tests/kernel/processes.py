"""Processes as /proc shows them, and targets that are talked with, never without a deadline."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.launching import Launcher

DEADLINE = 15.0  # s; what takes longer on a loaded machine hangs

PR_SET_CHILD_SUBREAPER = 36
libc = ctypes.CDLL(None, use_errno=True)


# ---- what /proc says


def stat(pid: int) -> list[str]:
    """Return what follows the name in /proc/PID/stat: state, ppid, pgrp, session...; [] if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state(pid: int) -> str:
    """Return the state letter, "" if it is gone."""
    return (stat(pid) or [""])[0]


def is_alive(pid: int) -> bool:
    """Tell whether the process runs or could: it is no zombie."""
    return state(pid) not in ("", "Z", "X")


def status(pid: int, key: str) -> str:
    """Return one value of /proc/PID/status; "" if it is gone or has none."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    rows = dict(line.partition(":")[::2] for line in text.splitlines())
    return rows.get(key, "").strip()


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies included."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{tid}/children").read_text().split())
    return found


def switches(pid: int) -> list[str]:
    """Return how often each thread went to sleep or was put off, in words."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    lines = [line for task in tasks for line in (task / "status").read_text().splitlines()]
    return [line for line in lines if line.startswith("Pid:") or "ctxt_switches" in line]


# ---- signals


def sigqueue(pid: int, number: int, value: int) -> None:
    """Queue a signal with a value (sigqueue(3))."""
    if libc.sigqueue(pid, number, ctypes.c_void_p(value)):
        raise OSError(ctypes.get_errno(), "sigqueue")


@contextmanager
def adopting() -> Iterator[None]:
    """Let orphans become ours, not init's, so that we see and reap them."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def reap(pid: int) -> int:
    """Reap a child that has ended or is about to; return its exit code, -N for signal N."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    raise AssertionError(f"{pid} does not end")


# ---- sessions


def session(leader: int) -> list[int]:
    """Return who is left of a session below its leader or below us, who adopt; zombies as well."""
    found, todo = [], [*children(leader), *children(os.getpid())]
    while todo:
        pid = todo.pop()
        fields = stat(pid)
        if pid != leader and fields and int(fields[3]) == leader:
            todo += children(pid)
            found.append(pid)
    return found


def alive_in(leader: int) -> list[int]:
    """Return who lives on of a session; who has ended and is our child is reaped."""
    found = []
    for pid in session(leader):
        if is_alive(pid):
            found.append(pid)
        elif pid in children(os.getpid()):
            os.waitpid(pid, 0)
    return found


def end_session(leader: int) -> None:
    """Kill and reap who is left of a session whose leader has ended."""
    deadline = time.monotonic() + DEADLINE
    while session(leader):
        assert time.monotonic() < deadline, f"session {leader} does not end"
        for pid in alive_in(leader):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# ---- talking


class Lines:
    """Lines from a descriptor, each awaited until a deadline."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""  # all that came
        self.rest = ""

    def more(self, deadline: float) -> bool:
        """Read what is there, or will be; False at the end. AssertionError when nothing comes."""
        left = deadline - time.monotonic()
        ready, _, _ = select.select([self.fd], [], [], max(0, left))
        assert ready, f"nothing more came after {self.seen!r}"
        try:
            data = os.read(self.fd, 1 << 16).decode("utf-8", "replace").replace("\r", "")
        except OSError:  # the other side of a terminal is gone
            return False
        self.seen += data
        self.rest += data
        return bool(data)

    def line(self) -> str:
        """Return the next line without its end; "" at the end of all."""
        deadline = time.monotonic() + DEADLINE
        while "\n" not in self.rest and self.more(deadline):
            pass
        line, _, self.rest = self.rest.partition("\n")
        return line

    def upto(self, text: str) -> str:
        """Return all up to and with ``text``, which comes next or later; the rest is kept."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.rest:
            assert self.more(deadline), f"{text!r} never came; this did: {self.seen!r}"
        before, found, self.rest = self.rest.partition(text)
        return before + found

    def all(self) -> str:
        """Return all that comes until the end."""
        deadline = time.monotonic() + DEADLINE
        while self.more(deadline):
            pass
        rest, self.rest = self.rest, ""
        return rest


class Running:
    """A running rtlaunch whose target says "ready PID ..." first."""

    def __init__(self, process: subprocess.Popen[str], report: Path | None = None) -> None:
        assert process.stdout
        self.process = process
        self.report = report
        self.pid = process.pid
        self.lines = Lines(process.stdout.fileno())
        self.target = 0

    def ready(self) -> None:
        """Wait until the target is in main(); take its pid, as it says or as the kernel does."""
        words = self.lines.line().split()
        assert words[:1] == ["ready"], self.lines.seen
        self.target = int(words[1]) if words[1].isdecimal() else children(self.pid)[0]

    def say(self, line: str) -> None:
        """Send the target a line."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        """Send the target a line and return its answer."""
        self.say(line)
        return self.lines.line()

    def end(self) -> int:
        """Close the target's input, on which it ends; return rtlaunch's exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """End the target, if it still runs, and then rtlaunch, which would reap it."""
        if self.target in children(self.process.pid):
            os.kill(self.target, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(DEADLINE)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


@contextmanager
def running(
    launcher: Launcher, options: Sequence[str | Path], command: Sequence[str | Path], **how: Any
) -> Iterator[Running]:
    """Run ``rtlaunch OPTIONS -- COMMAND`` until the target is ready, and end both afterwards."""
    report = launcher.report_path()
    words = ("--report", report, *options, "--", *command)
    streams = {"stdin": subprocess.PIPE, "stderr": None, "bufsize": 1}
    found = Running(launcher.start(*words, **{**streams, **how}), report)
    try:
        found.ready()
        yield found
    finally:
        found.close()
