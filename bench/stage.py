"""Where everything happens: the rtlaunch under test, a scratch directory, compiled programs.

Each function here starts or reads one thing. It must not judge a number, and
ends only what it started.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.verdict import BenchError

HERE = Path(__file__).resolve().parent
PROGRAMS = ("start", "batch", "faults", "events", "mixing", "idle", "reserve", "crowd")
DEADLINE_SECONDS = 120


@dataclass(frozen=True)
class Stage:
    """The surroundings of one run; ``interpreter`` is rtlaunch's own, by its real path."""

    rtlaunch: str
    scratch: Path
    interpreter: str = ""

    def path(self, name: str) -> str:
        """Return the path of a compiled program, or of any file, in the scratch directory."""
        return str(self.scratch / name)

    def under(self, *options: str) -> list[str]:
        """Return the beginning of a command that runs under rtlaunch with ``options``."""
        return [self.rtlaunch, *options, "--"]

    def said(self) -> str:
        """Return the last lines that the started programs wrote to stderr."""
        lines = Path(self.path("stderr")).read_text(errors="replace").splitlines()
        return "\n".join(f"  stderr: {line}" for line in lines[-8:])


def environment() -> dict[str, str]:
    """Return ours without what would configure rtlaunch."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RTLAUNCH_")}


def compile_programs(scratch: Path) -> None:
    """Compile every program of this directory; BenchError without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("no C compiler; try: apt install gcc libc6-dev")
    for name in PROGRAMS:
        source, target = str(HERE / f"{name}.c"), str(scratch / name)
        subprocess.run([compiler, "-O2", "-pthread", "-o", target, source], check=True)


def run(stage: Stage, command: Sequence[str]) -> str:
    """Run a command to its end and return what it wrote; BenchError unless it exits 0."""
    with open(stage.path("stderr"), "a", encoding="utf-8") as stderr:
        done = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    if done.returncode:
        raise BenchError(f"exit status {done.returncode} from: {' '.join(command)}")
    return done.stdout


def read_report(path: str) -> dict[str, Any]:
    """Read a report that rtlaunch wrote; BenchError if it is not there or not JSON."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"no report: {error}") from error
    assert isinstance(content, dict)
    return content
