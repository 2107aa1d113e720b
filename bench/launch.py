"""From the exec of rtlaunch to the target's main(), against a bare interpreter's start and end."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.sampling import in_turn, ratio, show_raw
from bench.stage import Stage, environment
from bench.verdict import BenchError, Row

ROUNDS = 40
BUDGET, BUDGET_WITH_PROFILE = 2.0, 3.0
PROFILE = """\
format = 1
lock = "current,future"
memlock = "max"
watch = "auto"
[limit]
nofile = "1024"
"""
BARE, OURS, WITH_PROFILE = "python3 -I -c pass", "rtlaunch", "rtlaunch --profile"

# What others cost that set one thing and exec; for comparison alone.
OTHERS = {
    "chrt": ("-o", "0"),
    "prlimit": ("--core=0",),
    "tini": ("-s", "--"),
    "hugectl": ("--heap",),
}


def spawn(command: list[str]) -> tuple[int, str, int]:
    """Run a command to its end; return when it began, what it wrote, and when it was over, ns."""
    read_end, write_end = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, write_end, 1),
        (os.POSIX_SPAWN_DUP2, null, 2),
    ]
    began = time.monotonic_ns()
    pid = os.posix_spawn(command[0], command, environment(), file_actions=actions)
    os.close(write_end)
    with open(read_end, encoding="ascii") as out:
        written = out.read()
    _, status = os.waitpid(pid, 0)
    ended = time.monotonic_ns()
    os.close(null)
    if status:
        raise BenchError(f"wait status {status:#x} from: {' '.join(command)}")
    return began, written, ended


def until_exit(command: list[str]) -> int:
    """Return how long a command takes in all, ns."""
    began, _, ended = spawn(command)
    return ended - began


def until_main(command: list[str]) -> int:
    """Return how long it takes until start.c, at the end of a command, is in main(), ns."""
    began, written, _ = spawn(command)
    return int(written) - began


def subjects(stage: Stage) -> dict[str, Callable[[], int]]:
    """Return what is measured, by name; others only where they are installed."""
    profile, start = stage.path("profile.toml"), stage.path("start")
    Path(profile).write_text(PROFILE, encoding="utf-8")
    Path(profile).chmod(0o644)
    found = {name: path for name in OTHERS if (path := shutil.which(name))}
    return {
        BARE: partial(until_exit, [stage.interpreter, "-I", "-c", "pass"]),
        OURS: partial(until_main, [*stage.under(), start]),
        WITH_PROFILE: partial(until_main, [*stage.under("--profile", profile), start]),
        "nothing": partial(until_main, [start]),
        **{name: partial(until_main, [path, *OTHERS[name], start]) for name, path in found.items()},
    }


def measure(stage: Stage) -> list[Row]:
    """Measure all in turn."""
    chosen = subjects(stage)
    samples = in_turn(chosen, ROUNDS)
    show_raw("launch, until main()", samples)
    budgets = {OURS: BUDGET, WITH_PROFILE: BUDGET_WITH_PROFILE}
    return [
        Row(f"launch: {name} / {BARE}", ratio(samples, name, BARE), budgets.get(name))
        for name in chosen
        if name != BARE
    ]
