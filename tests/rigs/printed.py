"""What ``plan --as`` prints for containers, and the books of what it started."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.launching import Launcher

STACK_KB = 16  # how far two stacks differ: the kernel begins each somewhere else
BOOKS = ("/bin/sh", "-c", "cat /proc/$$/status /proc/$$/smaps; true")


def plan(rtlaunch: Launcher, engine: str, *words: str) -> str:
    """Return what is printed for an engine."""
    process = rtlaunch.start("plan", "--as", engine, *words)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    return out


def as_script(script: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what was printed, as a shell script."""
    return subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environ, timeout=60, check=False
    )


def locked_kb(books: str) -> tuple[int, int]:
    """Return VmLck without the stack, and the stack, by status and smaps in one text."""
    rows = dict(line.partition(":")[::2] for line in books.splitlines() if line.startswith("VmLck"))
    stack = int(books.partition("[stack]")[2].split()[1])
    return int(rows["VmLck"].split()[0]) - stack, stack


def assert_locked_alike(printed: str, launched: str) -> None:
    """Compare VmLck, and the stacks as far as they can be: the kernel began each somewhere else."""
    (rest, stack), (meant, meant_stack) = locked_kb(printed), locked_kb(launched)
    assert rest == meant > 1000
    assert abs(stack - meant_stack) <= STACK_KB
