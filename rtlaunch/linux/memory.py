"""How much memory may still be taken: /proc/meminfo and the memory cgroups, read at each launch.

Six short files or so, 0.2 ms. Nothing is changed, and nothing here fails: what
cannot be read, or says what no kernel says, is None. Judging is
:mod:`rtlaunch.core.budget`'s.
"""

from __future__ import annotations

import os

from rtlaunch.core.budget import Memory, parse_meminfo
from rtlaunch.core.cgroup import CgroupLimit, memory_hierarchies, parse_limit, usual_hierarchy
from rtlaunch.core.numbers import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtlaunch.core.cgroup import Hierarchy

OVERCOMMIT = "/proc/sys/vm/overcommit_memory"
_CHUNK_BYTES = 1 << 16


def read_text(path: str) -> str | None:
    """Return the text of a file of /proc or /sys; None where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK_BYTES):
            chunks.append(chunk)
    except OSError:
        return None
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def read_number(path: str) -> int | None:
    """Return the number in a file of /proc or /sys; None where there is none."""
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def read_memory() -> Memory:
    """Return what memory there is, and the limits of the cgroups that we are in."""
    meminfo = read_text("/proc/meminfo") or ""
    groups = tuple(group for group in cgroup_limits() if group.limit != UNLIMITED)
    return parse_meminfo(meminfo, read_number(OVERCOMMIT), groups)


def cgroup_limits() -> tuple[CgroupLimit, ...]:
    """Return the memory limit of our cgroup and of every one above it that can be seen."""
    cgroup = read_text("/proc/self/cgroup") or ""
    usual = usual_hierarchy(cgroup)
    if usual and os.access(f"{usual.folders[0]}/{usual.limit_file}", os.R_OK):
        return tuple(_limits_of(usual))
    places = memory_hierarchies(cgroup, read_text("/proc/self/mountinfo") or "")
    return tuple(limit for place in places for limit in _limits_of(place))


def _limits_of(place: Hierarchy) -> Iterator[CgroupLimit]:
    """Yield the limit of each folder that has one or could have; its use only where it has."""
    for folder in place.folders:
        text = read_text(f"{folder}/{place.limit_file}")
        limit = None if text is None else parse_limit(text)
        if limit == UNLIMITED:
            yield CgroupLimit(folder, limit, None)
        elif limit is not None:
            usage = read_number(f"{folder}/{place.usage_file}")
            kernel = read_number(f"{folder}/{place.kernel_file}") if place.kernel_file else 0
            cache = place.cache_in(read_text(f"{folder}/memory.stat") or "")
            yield CgroupLimit(folder, limit, usage, cache + (kernel or 0))
