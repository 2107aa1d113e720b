"""Who a process is, beyond a number that is used again: its start, its boot, its namespace.

For books that outlive processes. It decides nothing.
"""

from __future__ import annotations

import os

from rtlaunch.core.ledger import Process
from rtlaunch.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BOOT_ID = "/proc/sys/kernel/random/boot_id"
MOST_DESCENDANTS = 64
START = 20  # of the words behind the name in /proc/PID/stat, the one with the start (from 1)


def boot_id() -> str:
    """Return the id of this boot."""
    with open(BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


def namespace() -> int:
    """Return our pid namespace's inode."""
    return os.stat("/proc/self/ns/pid").st_ino


def identify(pid: int) -> Process | None:
    """Return who ``pid`` is; None if it has ended, be it reaped or not."""
    start = started(pid)
    return None if start is None else Process(pid, start, namespace())


def started(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot; None if it has ended."""
    try:
        state, *fields = proc.read_stat(pid).rpartition(") ")[2].split(" ", START)
    except OSError:
        return None
    return None if state in "ZX" else int(fields[START - 2])


def is_alive(process: Process | None, here: int) -> bool:
    """Tell whether a process of the ledger lives; of another pid namespace that is assumed."""
    if process is None:
        return False
    return process.namespace != here or started(process.pid) == process.start


def descendants(pid: int) -> Iterable[int]:
    """Yield a process and those below it, some dozens at most."""
    todo, seen = [pid], 0
    while todo and seen < MOST_DESCENDANTS:
        pid, seen = todo.pop(), seen + 1
        yield pid
        try:
            for tid in proc.thread_ids(pid):
                todo += map(int, proc.read_text(pid, f"task/{tid}/children").split())
        except OSError:
            continue  # it ended, or the kernel does not say
