"""A target that stands in main(), or before it, while a test reads the kernel's books of it.

tests/targets/waiter.c obeys one line at a time; any other program that says "ready" and a
number will do as well, as long as it ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests import books
from tests.host import wait_until
from tests.launching import Ran

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Launcher

DEADLINE_S = 20
BEFORE_MAIN = "WAITER_BEFORE_MAIN"
READY = 'import os, sys; print("ready", os.getpid(), flush=True); sys.stdin.read()'
PYTHON = ("/usr/bin/python3", "-c", READY)
SH = ("/bin/sh", "-c", "echo ready $$; while read line; do :; done")


class Standing:
    """rtlaunch and its target, which waits for the next line."""

    def __init__(self, process: subprocess.Popen[str], report: Path) -> None:
        self.process = process
        self.report_path = report
        self.pid = 0

    def wait_ready(self) -> int:
        """Wait for the target's greeting; return the number in it, which is waiter.c's pid."""
        assert self.process.stdout
        greeting = self.process.stdout.readline()
        if not greeting:
            raise AssertionError(f"it ended before it was ready: {self.end().err}")
        return int(greeting.split()[-1], 0)

    def ask(self, line: str) -> str:
        """Send one line; return the reply."""
        self.tell(line)
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        """Send one line that has no reply."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def number(self, line: str) -> int:
        """Send one line whose reply is a number, hexadecimal if it is an address."""
        return int(self.ask(line), 0)

    def end(self) -> Ran:
        """Let the target end; return what came of it."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        path = self.report_path
        report = json.loads(path.read_text()) if path.exists() else {}
        return Ran(self.process.returncode, out or "", err or "", report)


@contextmanager
def standing(
    launcher: Launcher, *words: str | Path, before_main: bool = False, **how: Any
) -> Iterator[Standing]:
    """Run ``rtlaunch --report FILE WORDS``; yield it once its target is ready.

    ``before_main`` holds waiter.c in its own constructor, right after the shim's.
    """
    if before_main:
        how["env"] = {**how.get("env", os.environ), BEFORE_MAIN: "1"}
    report = launcher.report_path()
    process = launcher.start("--report", report, *words, stdin=subprocess.PIPE, **how)
    held = Standing(process, report)
    try:
        held.pid = held.wait_ready()
        yield held
    finally:
        finish(process)


def finish(process: subprocess.Popen[str]) -> None:
    """End rtlaunch and its target, if they are still there, and close the pipes."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream and not stream.closed:
            try:
                stream.close()
            except BrokenPipeError:
                continue  # what was not read any more


def target_of(launcher: int, program: str | Path) -> int:
    """Return the child of rtlaunch that runs ``program``, as soon as there is one."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [pid for pid in books.children(launcher) if runs(pid, program)]
        return bool(found)

    wait_until(there, f"no child of {launcher} runs {program}")
    return found[0]


def runs(pid: int, program: str | Path) -> bool:
    """Tell whether a process runs ``program`` now."""
    try:
        return os.readlink(f"/proc/{pid}/exe") == os.path.realpath(program)
    except OSError:
        return False  # it ended meanwhile
