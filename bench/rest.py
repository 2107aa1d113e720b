"""The watcher while nothing happens: it must not wake up, and must not be large."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bench.stage import Stage, read_report
from bench.talk import talking
from bench.verdict import BenchError, Row

SECONDS = 10
SETTLED_SECONDS = 1.0
PATIENCE_SECONDS = 20
MEMORY_BUDGET = 1.5
# It must not exec, nor end: it says that it runs, then waits for a line that never comes.
BARE = "print(flush=True); input()"


def switches(pid: int) -> int:
    """Count the context switches of all threads of a process so far: each wake-up ends in one."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "ctxt_switches:" in line:
                total += int(line.split()[1])
    return total


def private_dirty_kb(pid: int) -> int:
    """Return the memory that a process alone pays for, kB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise BenchError(f"no Private_Dirty in /proc/{pid}/smaps_rollup")


def settle(pid: int) -> None:
    """Wait until a process has come to rest; BenchError if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    before = switches(pid)
    while time.monotonic() < deadline:
        time.sleep(SETTLED_SECONDS)
        now = switches(pid)
        if now == before:
            return
        before = now
    raise BenchError(f"the watcher does not come to rest within {PATIENCE_SECONDS} s")


def bare_private_dirty_kb(stage: Stage) -> int:
    """Return what a bare interpreter that waits for input has for itself, kB."""
    with subprocess.Popen(
        [stage.interpreter, "-I", "-c", BARE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        kilobytes = private_dirty_kb(process.pid)
        process.communicate(b"\n")
    return kilobytes


def measure(stage: Stage) -> list[Row]:
    """Watch a target that waits for input, from outside."""
    report = stage.path("rest.json")
    command = stage.under("--watch", "perf", "--report", report)
    with talking(stage, [*command, stage.path("batch"), "mmap"]) as talker:
        settle(talker.launcher_pid)
        before = switches(talker.launcher_pid)
        time.sleep(SECONDS)
        woken = switches(talker.launcher_pid) - before
        ours = private_dirty_kb(talker.launcher_pid)
    source = read_report(report)["watch"]["source"]
    if source != "perf":
        raise BenchError(f"the watch source was {source}, not perf")
    bare = bare_private_dirty_kb(stage)
    print(f"\nat rest: {woken} wake-ups in {SECONDS} s; private dirty {ours} kB, bare {bare} kB")
    return [
        Row(f"watcher at rest: wake-ups in {SECONDS} s", woken, 0),
        Row("watcher at rest: private dirty / bare interpreter", ours / bare, MEMORY_BUDGET),
    ]
