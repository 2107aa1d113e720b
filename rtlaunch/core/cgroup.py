"""Which memory cgroup a process is in, and what its limits leave, from the texts of the kernel.

Pure (cgroups(7), proc_pid_mountinfo(5), Documentation/admin-guide/cgroup-v1/memory.rst and
cgroup-v2.rst); reading is :mod:`rtlaunch.linux.memory`'s. It is on the launch path.
"""

from __future__ import annotations

from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# What v1 prints for no limit is LONG_MAX rounded down to a page, whatever the page size.
V1_UNLIMITED = 1 << 62

# What the kernel drops before it kills, as memory.stat names it: page cache that nobody has locked,
# and caches of its own. v1 has a total_ for a group with all below it, and its kernel memory
# elsewhere, as one sum: all of that is taken for droppable.
CACHE = {
    1: ("total_inactive_file", "total_active_file"),
    2: ("inactive_file", "active_file", "slab_reclaimable"),
}

USUAL_MOUNTS = {1: "/sys/fs/cgroup/memory", 2: "/sys/fs/cgroup"}


class CgroupLimit(Record):
    """A memory cgroup that is ours or above it: its directory, its limit and use, in bytes.

    ``usage`` is exact, None if not known. ``cache`` is the part of it that the
    kernel drops before it kills, and is up to two seconds old (mm/memcontrol.c,
    FLUSH_TIME): a change below may not have been added up here.
    """

    folder: str
    limit: int
    usage: int | None
    cache: int = 0

    @property
    def held(self) -> int:
        """What only swap could take away."""
        return max(0, (self.usage or 0) - self.cache)

    @property
    def left(self) -> int:
        """What may be locked here before the kernel kills, without swap."""
        return max(0, self.limit - self.held)

    def room(self, swap_free: int) -> int:
        """Return what may be locked here when others' memory can go to so much swap, at most."""
        return min(self.limit, self.left + min(swap_free, self.held))


class Hierarchy(Record):
    """A mounted hierarchy that could limit memory, and our place in it.

    ``path`` is ours below ``mount``, without a slash at the end: empty for the top.
    """

    version: int
    mount: str
    path: str

    @property
    def folders(self) -> tuple[str, ...]:
        """Our cgroup's directory, then each one above it, the mount point last."""
        parts = [part for part in self.path.split("/") if part]
        depths = range(len(parts), -1, -1)
        return tuple("/".join([self.mount, *parts[:depth]]) for depth in depths)

    @property
    def limit_file(self) -> str:
        """The name of the file that holds the limit in bytes."""
        return "memory.max" if self.version == 2 else "memory.limit_in_bytes"

    @property
    def usage_file(self) -> str:
        """The name of the file that holds what is used, in bytes."""
        return "memory.current" if self.version == 2 else "memory.usage_in_bytes"

    @property
    def kernel_file(self) -> str:
        """The name of the file that holds the kernel's own use; v2 has it in memory.stat."""
        return "" if self.version == 2 else "memory.kmem.usage_in_bytes"

    def cache_in(self, stat: str) -> int:
        """Return what of a group's use is cache, from the text of its memory.stat."""
        counts = parse_stat(stat)
        return sum(counts.get(name, 0) for name in CACHE[self.version])


def usual_hierarchy(cgroup: str) -> Hierarchy | None:
    """Return where our memory cgroup is on most machines, for a look that spares reading mountinfo.

    That file has a line for each container of the machine. A controller is in one
    hierarchy: v1's where it is there. None where we are outside of what can be seen.
    """
    places = _places(cgroup, "memory")
    version = min(places, default=0)
    if not version or ".." in places[version].split("/"):
        return None
    return Hierarchy(version, USUAL_MOUNTS[version], places[version])


def memory_hierarchies(cgroup: str, mountinfo: str) -> tuple[Hierarchy, ...]:
    """Return the hierarchies with a memory controller that we are in; v2 may have none enabled."""
    return hierarchies(cgroup, mountinfo, "memory")


def hierarchies(cgroup: str, mountinfo: str, controller: str) -> tuple[Hierarchy, ...]:
    """Return the hierarchies with a controller that we are in, as the one for memory."""
    places = _places(cgroup, controller)
    return tuple(
        Hierarchy(version, mount, _below(root, places[version]))
        for version, root, mount in _mounts(mountinfo, controller)
        if version in places
    )


def _places(cgroup: str, controller: str) -> dict[int, str]:
    """Return our path in the controller's v1 hierarchy and in v2's, from /proc/self/cgroup."""
    places = {}
    for line in cgroup.splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            places[2] = path
        elif controller in controllers.split(","):
            places[1] = path
    return places


def _mounts(mountinfo: str, controller: str) -> Iterator[tuple[int, str, str]]:
    """Yield version, root and mount point of each version's first mount that may have it."""
    seen = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = (*after.split(" ", 2), "", "")[:3]
        version = {"cgroup": 1, "cgroup2": 2}.get(kind, 0)
        lacks = version == 1 and controller not in options.split(",")
        if not version or version in seen or lacks:
            continue
        seen.add(version)
        fields = before.split(" ")
        yield version, fields[3], fields[4].replace("\\040", " ")


def _below(root: str, path: str) -> str:
    """Return ``path`` as seen below a mount whose root is ``root``; the top if it lies outside."""
    if root == "/":
        return path if ".." not in path.split("/") else ""
    inside = path == root or path.startswith(root + "/")
    return path[len(root) :] if inside else ""


def parse_limit(text: str) -> int | None:
    """Return a limit in bytes, UNLIMITED for ``max`` and for v1's huge number; None for neither."""
    word = text.strip()
    if word == "max":
        return UNLIMITED
    if not word.isdecimal():
        return None
    return UNLIMITED if int(word) >= V1_UNLIMITED else int(word)


def parse_stat(text: str) -> dict[str, int]:
    """Return the counts of a memory.stat by name."""
    pairs = (line.partition(" ")[::2] for line in text.splitlines())
    return {name: int(count) for name, count in pairs if count.isdecimal()}
