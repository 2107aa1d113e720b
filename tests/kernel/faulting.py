"""A target that takes page faults on command, and a watch on it.

tests/targets/faulter.c maps a file and obeys; each command is answered when it is done.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rtlaunch.core.options import Reaction
from rtlaunch.core.proc import Stat, parse_smaps, parse_status
from rtlaunch.engine import watch
from rtlaunch.engine.feed import Feed
from rtlaunch.engine.listener import Observer
from rtlaunch.linux import proc
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtlaunch.core.faults import WatchResult

PAGE = 4096
LOG, NONE = Reaction("log"), Reaction("none")


def need_perf() -> None:
    """Skip the test where perf is not to be had by us."""
    feed = Feed(os.getpid())
    try:
        feed.open()
    except OSError:
        skip("no-perf")
    feed.close()


def make_file(path: Path, pages: int) -> Path:
    """Write a file of so many pages to the disk, where its pages can be read from again."""
    with path.open("wb") as file:
        for _ in range(pages):
            file.write(os.urandom(PAGE))
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o666)
    return path


class Faulter:
    """A running faulter and its file."""

    def __init__(self, program: Path, file: Path, **how: Any) -> None:
        self.program = program
        self.file = file
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([program, file], **streams, bufsize=1, **how)
        self.pid = self.process.pid
        self.address = self.read_ready()
        self.reader = proc.StatReader(self.pid)

    def read_ready(self) -> int:
        """Wait for the greeting of an image; return where it mapped its file."""
        assert self.process.stdout
        word, address = self.process.stdout.readline().split()
        assert word == "ready"
        return int(address, 16)

    def say(self, command: str) -> str:
        """Send a command and return the reply."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        return self.process.stdout.readline().strip()

    def evict(self) -> None:
        """Push the file's pages out of memory, all of them."""
        assert self.say("evict") == "left 0"
        self.say("counts")  # what replying takes is in memory

    def become(self, program: Path, file: Path, how: str = "exec") -> None:
        """Let it exec another faulter in place; ``how`` is the command."""
        assert self.process.stdin
        self.process.stdin.write(f"{how} {program} {file}\n")
        self.address = self.read_ready()

    def stat(self) -> Stat:
        """Return the kernel's books of it."""
        return self.reader.read()

    def name(self) -> str:
        return parse_status(proc.read_text(self.pid, "status")).name

    def mappings(self) -> Any:
        return parse_smaps(proc.read_text(self.pid, "smaps"))

    def end(self) -> Stat:
        """Let it exit and return the last counts, of the zombie."""
        assert self.process.stdin
        self.process.stdin.close()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return self.stat()

    def close(self) -> None:
        """Kill it, if it still runs, and reap it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()
        self.reader.close()


@contextmanager
def running(program: Path, file: Path, **how: Any) -> Iterator[Faulter]:
    """A faulter whose file is not in memory."""
    faulter = Faulter(program, file, **how)
    try:
        faulter.evict()
        yield faulter
    finally:
        faulter.close()


class Recorder(Observer):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.hidden = 0
        self.signals: list[int] = []
        self.limits: list[tuple[str, int]] = []
        self.strange: list[int] = []

    def fault(self, line: str, hidden: int) -> None:
        self.lines.append(line)
        self.hidden += hidden

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def exceeded(self, kind: str, count: int) -> None:
        self.limits.append((kind, count))

    def unannounced(self, exec_ns: int) -> None:
        self.strange.append(exec_ns)


class Watching:
    """A watch that is armed, the kernel's counts at that moment, and what was heard."""

    def __init__(self, faulter: Faulter, wanted: watch.Wanted, start: bool) -> None:
        self.faulter = faulter
        self.heard = Recorder()
        self.watch = watch.open_watch(faulter.pid, wanted, faulter.name(), faulter.mappings())
        if start:
            self.watch.start(self.heard)
        self.before = self.rearmed = faulter.stat()
        self.watch.arm(time.monotonic_ns())
        self.result: WatchResult | None = None
        self.major = self.minor = -1

    def rearm(self) -> None:
        """Announce the image exec()ed last, and watch on as if it had been proven."""
        self.watch.announced(time.monotonic_ns())
        self.watch.rearm(self.faulter.name(), self.faulter.mappings())
        self.rearmed = self.faulter.stat()

    def after_arm(self, result: WatchResult) -> int:
        """Return the major faults after arming, without those of the start of an image."""
        return result.earlier_major + self.faulter.stat().majflt - self.rearmed.majflt

    def stop(self) -> WatchResult:
        """End the target, take the kernel's counts of it, end the watch."""
        after = self.faulter.end()
        self.major = after.majflt - self.before.majflt
        self.minor = after.minflt - self.before.minflt
        self.result = self.watch.stop()
        return self.result


@contextmanager
def watching(
    faulter: Faulter,
    *,
    source: str = "auto",
    on_major: Reaction = LOG,
    on_minor: Reaction = NONE,
    max_major: int | None = None,
    max_minor: int | None = None,
    start: bool = True,
) -> Iterator[Watching]:
    """Watch a faulter from now on; without ``start`` nobody empties the rings."""
    wanted = watch.Wanted(source, on_major, on_minor, max_major, max_minor)
    watched = Watching(faulter, wanted, start)
    try:
        yield watched
    finally:
        if watched.result is None:
            watched.watch.stop()
