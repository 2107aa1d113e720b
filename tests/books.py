"""The kernel's books of a process, read by the tests themselves: rtlaunch has no part in it.

A target that stands still is read as often as a test likes. Parsers here are made for
being read, not for speed, and share nothing with those that they check.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")

# VmFlags of what mlock passes over (mm/mlock.c): device memory, memory that must not grow,
# huge pages (in memory from the start), droppable memory.
NEVER_LOCKED = {"io", "pf", "mm", "de", "ht", "dp"}
GUARD = "gu"  # madvise(2), MADV_GUARD_INSTALL: holes that are meant


@dataclass
class Mapping:
    """One mapping of smaps; sizes in bytes."""

    start: int
    end: int
    permissions: str
    offset: int
    inode: int
    path: str
    resident: int = 0
    flags: set[str] = field(default_factory=set)

    @property
    def lockable(self) -> bool:
        return not self.flags & NEVER_LOCKED and self.path != "[vsyscall]"

    @property
    def locked(self) -> bool:
        return "lo" in self.flags

    @property
    def expected(self) -> int:
        """How much of it can be in memory: what is accessible, and lies within its file."""
        readable = self.permissions[:3] != "---"
        only_zeros = self.inode == 0 and "w" not in self.permissions  # the zero page is not in Rss
        if not readable or only_zeros or GUARD in self.flags:
            return 0
        size = self.end - self.start
        if not self.inode:
            return size
        try:
            pages = -(-Path(self.path).stat().st_size // PAGE)
        except OSError:
            return size
        return max(0, min(size, pages * PAGE - self.offset))

    def __str__(self) -> str:
        size = self.end - self.start
        flags = " ".join(sorted(self.flags))
        return f"{self.start:x} {self.permissions} {self.path} {self.resident} of {size}: {flags}"


def smaps(pid: int) -> list[Mapping]:
    """Read /proc/PID/smaps."""
    found: list[Mapping] = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if re.match("[0-9a-f]+-[0-9a-f]+$", words[0]):
            start, end = (int(bound, 16) for bound in words[0].split("-"))
            path = words[5] if len(words) > 5 else ""
            found.append(Mapping(start, end, words[1], int(words[2], 16), int(words[4]), path))
        elif words[0] == "Rss:":
            found[-1].resident = int(words[1]) * 1024
        elif words[0] == "VmFlags:":
            found[-1].flags = set(line.split()[1:])
    assert found, f"smaps of {pid} is empty"
    return found


def not_locked(pid: int) -> list[str]:
    """Name every mapping of a process that mlock could lock and that is not locked."""
    return [str(each) for each in smaps(pid) if each.lockable and not each.locked]


def not_held(pid: int) -> list[str]:
    """Name every lockable mapping of a process that is not locked, or not wholly in memory."""
    return [
        str(each)
        for each in smaps(pid)
        if each.lockable and (not each.locked or each.resident < each.expected)
    ]


def mapping_at(pid: int, address: int) -> Mapping:
    """Return the mapping that an address lies in."""
    return next(each for each in smaps(pid) if each.start <= address < each.end)


def stack(pid: int) -> Mapping:
    """Return the main stack."""
    return next(each for each in smaps(pid) if each.path == "[stack]")


def status(pid: int | str) -> dict[str, str]:
    """Read /proc/PID/status as it stands."""
    return status_of(Path(f"/proc/{pid}/status").read_text())


def status_of(text: str) -> dict[str, str]:
    """Split what /proc/PID/status holds."""
    lines = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in lines}


def locked_bytes(pid: int) -> int:
    """Return VmLck."""
    return int(status(pid)["VmLck"].split()[0]) * 1024


def limits(pid: int | str) -> dict[str, tuple[int, int]]:
    """Read soft and hard limits by prlimit's names, -1 for unlimited, from /proc/PID/limits."""
    return limits_of(Path(f"/proc/{pid}/limits").read_text())


def wakes(pid: int) -> int:
    """Return how often the threads of a process have waited for something, and gone on."""
    found = 0
    for task in threads(pid):
        text = Path(f"/proc/{pid}/task/{task}/status").read_text()
        found += int(status_of(text)["voluntary_ctxt_switches"])
    return found


def holds(pid: int | str, capability: int) -> bool:
    """Tell whether a process has a capability, by number, in its effective set."""
    return bool(int(status(pid)["CapEff"], 16) >> capability & 1)


# The kernel's words for each limit (fs/proc/base.c, lnames), and the name that setrlimit(2) has.
LIMIT_NAMES = {
    "Max cpu time": "cpu",
    "Max file size": "fsize",
    "Max data size": "data",
    "Max stack size": "stack",
    "Max core file size": "core",
    "Max resident set": "rss",
    "Max processes": "nproc",
    "Max open files": "nofile",
    "Max locked memory": "memlock",
    "Max address space": "as",
    "Max file locks": "locks",
    "Max pending signals": "sigpending",
    "Max msgqueue size": "msgqueue",
    "Max nice priority": "nice",
    "Max realtime priority": "rtprio",
    "Max realtime timeout": "rttime",
}


def limits_of(text: str) -> dict[str, tuple[int, int]]:
    """Split what /proc/PID/limits holds."""
    found = {}
    for line in text.splitlines()[1:]:
        soft, hard = (-1 if word == "unlimited" else int(word) for word in line[26:].split()[:2])
        found[LIMIT_NAMES[line[:26].strip()]] = (soft, hard)
    return found


def major_faults(pid: int) -> int:
    """Return majflt of the whole process, from /proc/PID/stat."""
    return int(after_name(Path(f"/proc/{pid}/stat").read_text())[9])


def after_name(stat: str) -> list[str]:
    """Return the fields of a stat file from the state (field 3, proc(5)) on."""
    return stat.rpartition(")")[2].split()


def children(pid: int) -> list[int]:
    """Return the living children of a process, of all its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found += map(int, task.read_text().split())
    return found


def threads(pid: int) -> list[int]:
    """Return the threads of a process."""
    return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
