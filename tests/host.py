"""The host that tests run on: its state, its processes, its compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# What a test could change and must not leave changed.
SYSCTLS = (
    "kernel/numa_balancing",
    "kernel/perf_event_paranoid",
    "kernel/sched_rt_runtime_us",
    "kernel/core_pattern",
    "vm/compact_unevictable_allowed",
    "vm/nr_hugepages",
    "vm/nr_overcommit_hugepages",
    "vm/overcommit_memory",
    "vm/page-cluster",
    "vm/swappiness",
)
CGROUP_DEPTH = 2
STATE = Path("/run/rtlaunch")  # where root's launches without a folder of their own keep theirs
HUGE_PAGES = (  # by size, and by node
    ("/sys/kernel/mm/hugepages", "*/nr*_hugepages"),
    ("/sys/devices/system/node", "node*/hugepages/*/nr_hugepages"),
)


def state() -> dict[str, object]:
    """Read what every test must leave as it was."""
    read = {f"sysctl {name}": text(Path("/proc/sys") / name) for name in SYSCTLS}
    read["swap"] = [line.split()[0] for line in text(Path("/proc/swaps")).splitlines()[1:]]
    read["mounts"] = text(Path("/proc/self/mountinfo"))
    read["cgroups"] = sorted(str(path) for path in cgroups())
    read["/run"] = sorted(os.listdir("/run")) + sorted(map(str, STATE.rglob("*")))
    read["huge pages"] = {
        str(path): text(path)
        for top, pattern in HUGE_PAGES
        for path in sorted(Path(top).glob(pattern))
    }
    return read


def text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def cgroups() -> list[Path]:
    top = Path("/sys/fs/cgroup")
    found = [path for path in top.glob("*") if path.is_dir()]
    for _ in range(CGROUP_DEPTH - 1):
        found += [below for path in found for below in path.glob("*") if below.is_dir()]
    return found


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Name what differs between two states."""
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def descendants() -> set[int]:
    """Return the pids of all processes below this one, zombies included."""
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        pid = todo.pop()
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue  # it ended meanwhile
        for task in tasks:
            try:
                words = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            except OSError:
                continue
            children = {int(word) for word in words}
            found |= children
            todo += children
    return found


def wait_until(true: Callable[[], object], what: str, seconds: float = 10) -> None:
    """Poll ``true`` until it is; AssertionError with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"after {seconds} s: {what}"
        time.sleep(0.005)


def compile_targets(sources: Path) -> Path:
    """Compile every test program into a fresh folder that everybody may read and enter."""
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-targets-"))
    folder.chmod(0o755)
    for source in sorted(sources.glob("*.c")):
        compile_c(source, folder / source.stem)
    return folder


def compile_c(source: Path, program: Path, *flags: str) -> Path:
    """Compile one C program with the system's compiler."""
    compiler = shutil.which("cc") or "gcc"
    command = [compiler, "-O1", "-g", "-Wall", "-o", str(program), str(source), "-pthread", *flags]
    subprocess.run(command, check=True)
    return program
