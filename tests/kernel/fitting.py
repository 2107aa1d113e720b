"""Running ``rtlaunch fit``, and the line that it recommends, from outside."""

from __future__ import annotations

import json
import shlex
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import books
from tests.launching import AS_NOBODY, Ran
from tests.standing import READY, Standing, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launching import Launcher

MIB = 1 << 20
PYTHON = "/usr/bin/python3"
SOURCE = Path(__file__).resolve().parents[1] / "targets" / "fitted.c"
STANDING_PYTHON = (PYTHON, "-c", READY)


def fit(launcher: Launcher, *words: str | Path, **how: Any) -> tuple[Ran, dict[str, Any]]:
    """Run ``rtlaunch fit --json WORDS`` to its end; return it, and what it found, {} if nothing."""
    process = launcher.start("fit", "--json", *words, **{"stdin": subprocess.DEVNULL, **how})
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    own, found = parted(out)
    return Ran(process.returncode, own, err), found


def parted(out: str) -> tuple[str, dict[str, Any]]:
    """Part what the program wrote from the last line, which is rtlaunch's."""
    lines = out.splitlines(keepends=True)
    if not lines or not lines[-1].startswith('{"schema": "rtlaunch.fit/1"'):
        return out, {}
    return "".join(lines[:-1]), json.loads(lines[-1])


@contextmanager
def measuring(launcher: Launcher, *words: str | Path, **how: Any) -> Iterator[Standing]:
    """Run ``rtlaunch fit --json WORDS``; yield it once its target is ready."""
    process = launcher.start("fit", "--json", *words, stdin=subprocess.PIPE, **how)
    held = Standing(process, Path("none"))
    try:
        held.pid = held.wait_ready()
        yield held
    finally:
        finish(process)


def recommended(found: dict[str, Any]) -> list[str]:
    """Return the words of the line that is recommended, without the program's name."""
    program, *words = shlex.split(found["recommended"]["line"])
    assert program == "rtlaunch"
    return words


def may_lock(memlock_bytes: int) -> list[str]:
    """Return the words that become a user with that limit and without capabilities."""
    return ["prlimit", f"--memlock={memlock_bytes}:{memlock_bytes}", *AS_NOBODY]


def resident(pid: int) -> int:
    """Return what is in memory, by smaps: VmRSS lags behind by a batch for each CPU."""
    return sum(mapping.resident for mapping in books.smaps(pid))
