"""The side process of exec mode, found from outside: by its name, its session and its report."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.host import wait_until
from tests.kernel.processes import children, stat, state, status

if TYPE_CHECKING:
    from tests.standing import Standing

EXEC = ("--mode", "exec")
WATCHER = "rtlaunch-watch"
WRITER = "rtlaunch-draft"
GONE_WITHIN_S = 2.0  # the promise is 0.1; a loaded machine has other things to do

CATCH_S = 30
DRAFT_WITHIN_S = 3  # of a fault: one second after the last, and what a loaded machine takes


def watchers_of(report: Path) -> list[int]:
    """Return the side processes that were told to write ``report``; who writes a draft is none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and status(int(entry.name), "Name") == WATCHER:
            command = (entry / "cmdline").read_bytes().decode()
            if str(report) in command and stat(int(entry.name))[3:4] == [entry.name]:
                found.append(int(entry.name))
    return found


def written(report: Path) -> dict[str, Any]:
    """Wait for the report of a run whose side process ends by itself; return it."""
    wait_until(report.exists, "no report was written")
    wait_until(lambda: not watchers_of(report), "the side process did not end")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def major_in(report: Path) -> int:
    """Return the count of major faults that a report has, from exec on: the load's may be some."""
    watch = json.loads(report.read_text())["watch"]
    return int(watch["before_arm"]["major"]) + int(watch["after_arm"]["major"])


def take_faults(held: Standing) -> None:
    """Have a faulter take major faults."""
    assert held.ask("evict") == "left 0"
    held.ask("touch 0 12")


def stop_writer(held: Standing, watcher: int) -> int:
    """Have the next draft begun and its writer stopped in the middle; return the writer."""
    deadline = time.monotonic() + CATCH_S
    while time.monotonic() < deadline:
        take_faults(held)
        missed = time.monotonic() + DRAFT_WITHIN_S
        while time.monotonic() < missed:
            for pid in children(watcher):
                if status(pid, "Name") == WRITER and is_stopped(pid):
                    return pid
    raise AssertionError(f"{watcher} has no draft written")


def is_stopped(pid: int) -> bool:
    """Stop a process; False where it has ended first."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    wait_until(lambda: state(pid) not in ("R", "S", "D"), "it does not stop")
    return state(pid) == "T"
