"""Pools of huge pages in /sys and /proc: one function per operation.

Nothing is decided here. Pools are written without O_TRUNC, so that the times of these files
tell of the writes of others (Documentation/admin-guide/mm/hugetlbpage.rst, fs/kernfs/inode.c).
"""

from __future__ import annotations

import os

from rtlaunch.core.cgroup import hierarchies, parse_limit
from rtlaunch.core.hugepages import ALL, Node, Room, Size
from rtlaunch.core.ledger import Stamp
from rtlaunch.core.numbers import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

POOLS = "/sys/kernel/mm/hugepages"
NODES = "/sys/devices/system/node"
VM = "/proc/sys/vm"
NR, NR_MEMPOLICY = "nr_hugepages", "nr_hugepages_mempolicy"
OVERCOMMIT = "nr_overcommit_hugepages"
_TRIES = 100  # two equal readings in a row are soon had; a storm of surplus pages is no reason
_GIB, _MIB = 1 << 30, 1 << 20

# The limit and the use of a hugetlb cgroup, by its version: of touched pages, of reserved ones.
_CGROUP_FILES = {
    1: (
        ("limit_in_bytes", "usage_in_bytes"),
        ("rsvd.limit_in_bytes", "rsvd.usage_in_bytes"),
    ),
    2: (("max", "current"), ("rsvd.max", "rsvd.current")),
}


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


def _number(path: str) -> int:
    return int(_read(path))


def _write(path: str, value: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)


def _folder(page_bytes: int, node: int | None = None) -> str:
    """Return the directory of a pool, of one node or of all."""
    top = POOLS if node is None else f"{NODES}/node{node}/hugepages"
    return f"{top}/hugepages-{page_bytes >> 10}kB"


def page_sizes() -> tuple[int, ...]:
    """Return the sizes that this kernel keeps pools of, in bytes, smallest first."""
    try:
        names = os.listdir(POOLS)
    except OSError:
        return ()
    head, tail = "hugepages-", "kB"
    sizes = [name[len(head) : -len(tail)] for name in names if name.startswith(head)]
    return tuple(sorted(int(size) << 10 for size in sizes))


def nodes() -> tuple[int, ...]:
    """Return the NUMA nodes that have pools; () on a kernel without nodes."""
    try:
        names = os.listdir(NODES)
    except OSError:
        return ()
    numbers = sorted(int(name[4:]) for name in names if name[:4] == "node" and name[4:].isdigit())
    return tuple(node for node in numbers if os.path.isdir(f"{NODES}/node{node}/hugepages"))


def read_size(page_bytes: int, of_nodes: tuple[int, ...]) -> Size:
    """Read the pools of one size.

    Reserved pages are read before free ones: a page that is touched in between makes the sum
    too small, never too large.
    """
    folder = _folder(page_bytes)
    resv = _number(f"{folder}/resv_hugepages")
    pools = tuple(_read_node(page_bytes, node) for node in of_nodes or (None,))
    return Size(page_bytes, resv, _number(f"{folder}/{OVERCOMMIT}"), pools)


def read_persistent(page_bytes: int, of_nodes: tuple[int, ...]) -> tuple[int, ...]:
    """Read nr - surplus of each pool of one size, in the order of ``read_size``."""
    pairs = (_read_pair(_folder(page_bytes, node)) for node in of_nodes or (None,))
    return tuple(nr - surplus for nr, surplus in pairs)


def _read_node(page_bytes: int, node: int | None) -> Node:
    """Read one pool."""
    folder = _folder(page_bytes, node)
    nr, surplus = _read_pair(folder)
    return Node(node, nr, _number(f"{folder}/free_hugepages"), surplus)


def _read_pair(folder: str) -> tuple[int, int]:
    """Read nr and surplus, which belong together: until they hold still."""
    before: tuple[int, int] | None = None
    for _ in range(_TRIES):
        now = _number(f"{folder}/{NR}"), _number(f"{folder}/surplus_hugepages")
        if now == before or not now[1]:
            break
        before = now
    return now


def write_nr(page_bytes: int, node: int | None, value: int) -> None:
    """Set a pool (nr_hugepages); the kernel may do less, without an error."""
    _write(f"{_folder(page_bytes, node)}/{NR}", value)


def write_overcommit(page_bytes: int, value: int) -> None:
    """Set nr_overcommit_hugepages; EINVAL for pages that cannot be made at run time."""
    _write(f"{_folder(page_bytes)}/{OVERCOMMIT}", value)


def may_write(page_bytes: int) -> bool:
    """Ask whether we may set the pool (faccessat2(2): mode, and a read-only mount)."""
    return os.access(f"{_folder(page_bytes)}/{NR}", os.W_OK, effective_ids=True)


def compact_memory() -> None:
    """Make larger blocks of free memory (vm.compact_memory)."""
    _write(f"{VM}/compact_memory", 1)


def default_page_bytes() -> int:
    """Return the size that vm.nr_hugepages is about; 0 if /proc/meminfo does not say."""
    return meminfo().get("Hugepagesize", 0)


def meminfo() -> dict[str, int]:
    """Return the rows of /proc/meminfo that are sizes, in bytes."""
    rows = (line.split() for line in _read("/proc/meminfo").splitlines())
    return {row[0].rstrip(":"): int(row[1]) << 10 for row in rows if row[2:] == ["kB"]}


def files(page_bytes: int, of_nodes: tuple[int, ...]) -> list[tuple[str, str]]:
    """Return the files that set a pool, each with its scope."""
    folder = _folder(page_bytes)
    found = [(ALL, f"{folder}/{NR}"), (ALL, f"{folder}/{NR_MEMPOLICY}")]
    if page_bytes == default_page_bytes():
        found += [(ALL, f"{VM}/{NR}"), (ALL, f"{VM}/{NR_MEMPOLICY}")]
    return found + [(str(node), f"{_folder(page_bytes, node)}/{NR}") for node in of_nodes]


def read_stamps(page_bytes: int, scoped: Iterable[tuple[str, str]]) -> tuple[Stamp, ...]:
    """Read when each of the files that set a pool was opened with O_TRUNC last."""
    found = []
    for scope, file in scoped:
        try:
            status = os.stat(file)
        except OSError:
            continue  # no such file on this kernel
        found.append(Stamp(page_bytes, scope, file, status.st_ino, status.st_mtime_ns))
    return tuple(found)


def keep_times(scoped: Iterable[tuple[str, str]]) -> None:
    """Make sysfs remember these times (utimensat(2)): it forgets those that nobody has set."""
    for _, file in scoped:
        if file.startswith("/sys/"):
            try:
                os.utime(file)
            except OSError:
                continue  # a read-only mount, a file that is not there


# --- hugetlb cgroups ---------------------------------------------------------------------------


def _cgroup_name(page_bytes: int) -> str:
    """Return how cgroup files spell a size (mm/hugetlb_cgroup.c, mem_fmt)."""
    for unit, name in ((_GIB, "GB"), (_MIB, "MB")):
        if page_bytes >= unit:
            return f"{page_bytes // unit}{name}"
    return f"{page_bytes >> 10}KB"


def cgroup_rooms(page_bytes: int) -> tuple[Room, ...]:
    """Return each limit that our hugetlb cgroup and those above it put on pages of one size."""
    try:
        cgroup, mounts = _read_whole("/proc/self/cgroup"), _read_whole("/proc/self/mountinfo")
    except OSError:
        return ()
    name = _cgroup_name(page_bytes)
    rooms = []
    for place in hierarchies(cgroup, mounts, "hugetlb"):
        for folder in place.folders:
            for limit, used in _CGROUP_FILES[place.version]:
                file = f"{folder}/hugetlb.{name}.{limit}"
                room = _room(page_bytes, file, f"{folder}/hugetlb.{name}.{used}")
                rooms += [room] if room else []
    return tuple(rooms)


def _room(page_bytes: int, limit_file: str, used_file: str) -> Room | None:
    try:
        limit = parse_limit(_read(limit_file))
        if limit is None or limit == UNLIMITED:
            return None
        return Room(page_bytes, limit_file, limit, _number(used_file))
    except OSError:
        return None  # the top group has no such files


def _read_whole(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
