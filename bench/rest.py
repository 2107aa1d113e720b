"""The watcher while nothing happens, and at the end.

It must not wake up, must not be large, and must not stay.
"""

from __future__ import annotations

import os
import select
import signal
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
ENDS = 10
END_BUDGET_MS = 100
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


def watcher_of(report: str) -> int:
    """Return the side process that will write ``report``, no draft; BenchError if none will."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            name, command = (folder / "comm").read_text(), (folder / "cmdline").read_bytes()
            leads = os.getsid(pid) == pid
        except OSError:
            continue  # it ended meanwhile
        if name == "rtlaunch-watch\n" and leads and report.encode() in command:
            return pid
    raise BenchError(f"no side process will write {report}")


def await_end(pid: int) -> None:
    """Wait until a process has ended; BenchError if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            raise BenchError(f"process {pid} does not end within {PATIENCE_SECONDS} s")
        time.sleep(0.01)


def at_rest(stage: Stage, mode: str) -> tuple[int, int]:
    """Return wake-ups and private dirty memory (kB) of who watches a target that waits."""
    report = stage.path(f"rest-{mode}.json")
    command = stage.under("--mode", mode, "--watch", "perf", "--report", report)
    with talking(stage, [*command, stage.path("batch"), "mmap"]) as talker:
        pid = talker.launcher_pid if mode == "supervise" else watcher_of(report)
        settle(pid)
        before = switches(pid)
        time.sleep(SECONDS)
        woken, kilobytes = switches(pid) - before, private_dirty_kb(pid)
    await_end(pid)  # the side process has its report still to write
    source = read_report(report)["watch"]["source"]
    if source != "perf":
        raise BenchError(f"the watch source was {source}, not perf")
    return woken, kilobytes


def outlives_ms(stage: Stage, report: str) -> float:
    """Return how long a side process is there once its target is killed, ms: it writes a report."""
    command = stage.under("--mode", "exec", "--report", report)
    with talking(stage, [*command, stage.path("batch"), "mmap"]) as talker:
        watcher = watcher_of(report)
        settle(watcher)
        pidfd = os.pidfd_open(watcher)
        killed = time.monotonic()
        os.kill(talker.pid, signal.SIGKILL)
        gone, _, _ = select.select([pidfd], [], [], PATIENCE_SECONDS)
        took = (time.monotonic() - killed) * 1000
        os.close(pidfd)
    if not gone:
        raise BenchError(f"process {watcher} does not end within {PATIENCE_SECONDS} s")
    return took


def measure(stage: Stage) -> list[Row]:
    """Look from outside at who watches, in both process models."""
    bare = bare_private_dirty_kb(stage)
    rows = []
    for mode in ("supervise", "exec"):
        woken, ours = at_rest(stage, mode)
        print(f"\nat rest, {mode}: {woken} wake-ups in {SECONDS} s; private dirty {ours} kB")
        rows += [
            Row(f"watcher at rest, {mode}: wake-ups in {SECONDS} s", woken, 0),
            Row(f"watcher at rest, {mode}: private dirty / bare", ours / bare, MEMORY_BUDGET),
        ]
    print(f"bare interpreter: private dirty {bare} kB")
    ends = sorted(outlives_ms(stage, stage.path(f"end-{turn}.json")) for turn in range(ENDS))
    print(
        "from the SIGKILL of a target to the end of its watcher, ms:", *(f"{ms:.1f}" for ms in ends)
    )
    rows.append(Row(f"watcher, exec: the longest of {ENDS} ends", ends[-1], END_BUDGET_MS, "ms"))
    return rows
