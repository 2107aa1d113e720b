"""Which memory cgroup a process is in, from the texts of /proc/self/cgroup and mountinfo.

Pure (cgroups(7), proc_pid_mountinfo(5)); reading the limits there is
:mod:`rtlaunch.linux.host`'s.
"""

from __future__ import annotations

from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# What v1 prints for no limit is LONG_MAX rounded down to a page, whatever the page size.
V1_UNLIMITED = 1 << 62


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


def memory_hierarchies(cgroup: str, mountinfo: str) -> tuple[Hierarchy, ...]:
    """Return the hierarchies with a memory controller that we are in; v2 may have none enabled."""
    places = _places(cgroup)
    return tuple(
        Hierarchy(version, mount, _below(root, places[version]))
        for version, root, mount in _mounts(mountinfo)
        if version in places
    )


def _places(cgroup: str) -> dict[int, str]:
    """Return our path in the v1 memory hierarchy and in v2's, from /proc/self/cgroup."""
    places = {}
    for line in cgroup.splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            places[2] = path
        elif "memory" in controllers.split(","):
            places[1] = path
    return places


def _mounts(mountinfo: str) -> Iterator[tuple[int, str, str]]:
    """Yield version, root and mount point of the first mount of each version that has memory."""
    seen = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = (*after.split(" ", 2), "", "")[:3]
        version = {"cgroup": 1, "cgroup2": 2}.get(kind, 0)
        if not version or version in seen or (version == 1 and "memory" not in options.split(",")):
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


def parse_limit(text: str) -> int:
    """Return a limit in bytes, UNLIMITED for ``max`` and for v1's huge number."""
    word = text.strip()
    if word == "max" or int(word) >= V1_UNLIMITED:
        return UNLIMITED
    return int(word)
