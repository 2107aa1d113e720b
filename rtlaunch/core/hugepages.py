"""What may be done with pools of huge pages: usable pages, growth, shrinking, the administrator.

Pure. All sums count *persistent* pages, nr - surplus: what somebody wrote last is what
that is (mm/hugetlb.c, set_max_huge_pages). Free pages are nobody's only after those that
are reserved by a mapping and those that are promised to a lease:

    usable = free - reserved - unclaimed pages of the other leases

The kernel does not say on which node a reservation will fall, nor can we say it of a lease
without a node: for each node that is leased from by name, all of them count against it.
"""

from __future__ import annotations

from rtlaunch.core.ledger import Lease, Mark, Process
from rtlaunch.core.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rtlaunch.core.ledger import Stamp
    from rtlaunch.core.options import HugePages

ALL = "all"  # the scope of a file that sets the pool of all nodes
NOBODY = Process(0, 0, 0)


class Node(Record):
    """The pool of one size on one node; ``node`` is None on a kernel without nodes."""

    node: int | None
    nr: int
    free: int
    surplus: int

    @property
    def persistent(self) -> int:
        """The pages that were set, whether or not more are in use."""
        return self.nr - self.surplus


class Size(Record):
    """The pools of one size. ``overcommit`` is nr_overcommit_hugepages."""

    page_bytes: int
    resv: int
    overcommit: int
    nodes: tuple[Node, ...]

    @property
    def nr(self) -> int:
        """All pages, surplus ones included."""
        return sum(node.nr for node in self.nodes)

    @property
    def free(self) -> int:
        """The pages that are not in use, reserved ones included."""
        return sum(node.free for node in self.nodes)

    @property
    def surplus(self) -> int:
        """The pages in use that go when they are freed."""
        return sum(node.surplus for node in self.nodes)

    @property
    def persistent(self) -> int:
        """The pages that were set."""
        return self.nr - self.surplus


class Room(Record):
    """What a hugetlb cgroup leaves of one size, in bytes; ``file`` holds its limit."""

    page_bytes: int
    file: str
    limit_bytes: int
    used_bytes: int


class HugeFacts(Record):
    """What leases are decided on; ``promised`` are all other leases.

    ``may_grow`` tells whether we may write to the pools, ``unsafe`` what is wrong with the state
    directory, "" if nothing is.
    """

    sizes: tuple[Size, ...]
    promised: tuple[Lease, ...]
    rooms: tuple[Room, ...]
    may_grow: bool
    memory_bytes: int
    available_bytes: int
    state_directory: str
    unsafe: str


class Write(Record):
    """Set a pool, of one node or, None, of all, to ``value`` pages."""

    node: int | None
    value: int


# --- growing and shrinking -----------------------------------------------------------------------


def owed(leases: Iterable[Lease]) -> int:
    """Return how many pages are promised and not yet claimed."""
    return sum(lease.unclaimed for lease in leases)


def at(leases: Iterable[Lease], node: int | None) -> tuple[Lease, ...]:
    """Return the leases of one node or, None, those of any."""
    return tuple(lease for lease in leases if lease.node == node)


def usable(size: Size, leases: Sequence[Lease], node: int | None = None) -> int:
    """Return the pages that nobody has, reserved or was promised; negative if there are too few."""
    if node is None:
        return size.free - size.resv - owed(leases)
    free = sum(each.free for each in size.nodes if each.node == node)
    return free - size.resv - owed(at(leases, node)) - owed(at(leases, None))


def missing(size: Size, leases: Sequence[Lease]) -> tuple[tuple[int | None, int], ...]:
    """Return how many free pages lack for every promise: by node where one was named."""
    found: list[tuple[int | None, int]] = []
    for node in size.nodes:
        if node.node is not None and owed(at(leases, node.node)):
            found.append((node.node, -usable(size, leases, node.node)))
    found = [(node, pages) for node, pages in found if pages > 0]
    rest = -usable(size, leases) - sum(pages for _, pages in found)
    return (*found, (None, rest)) if rest > 0 else tuple(found)


def growth(size: Size, lacking: Sequence[tuple[int | None, int]]) -> Write:
    """Return the first write that brings what lacks.

    It counts from nr, not from nr - surplus: the kernel first makes surplus pages persistent,
    and those bring no free page.
    """
    node, pages = lacking[0]
    return Write(node, pages + (size.nr if node is None else node_of(size, node).nr))


def node_of(size: Size, node: int | None) -> Node:
    """Return the pool of a node; StopIteration if the machine has none such."""
    return next(each for each in size.nodes if each.node == node)


def shrinking(
    size: Size, leases: Sequence[Lease], bases: Mapping[int | None, int]
) -> tuple[Write, ...]:
    """Return the writes that give back what nobody needs any more.

    Never below what the administrator set; while there are leases, never below what they are
    for, nor below what is in use, reserved or promised. Without one the pool is what the
    administrator set, and pages in use above that become surplus, which the kernel frees when
    they are.
    """
    spare = size.persistent
    if leases:
        spare = min(usable(size, leases), size.persistent - sum(lease.count for lease in leases))
    writes = []
    for node in size.nodes:
        here = node.persistent
        if at(leases, node.node) and node.node is not None:
            here = min(
                usable(size, leases, node.node),
                here - sum(lease.count for lease in at(leases, node.node)),
            )
        elif leases:
            here = node.free
        excess = node.persistent - bases.get(node.node, node.persistent)
        given = max(0, min(excess, spare, here))
        if given:
            spare -= given
            writes.append(Write(node.node, node.persistent - given))
    return tuple(writes)


def net(size: Size, leases: Sequence[Lease], base: int) -> int:
    """Return nr_overcommit_hugepages while there are leases.

    With it a program still gets its pages if the administrator takes them from the pool between
    ``go`` and its mmap: the kernel then makes surplus pages. Those that are in use or reserved
    become surplus by the same stroke, and count against it.
    """
    if not leases:
        return base
    return base + sum(lease.count for lease in leases) + size.nr - size.free + size.resv


# --- whose doing it was --------------------------------------------------------------------------


def is_ours(mark: Mark, now: int) -> bool:
    """Tell whether a pool may be as we left it, or as a write of ours left it that was cut short.

    The kernel stops growing a pool where it finds no more pages or the writer is killed.
    """
    return min(mark.written, mark.intent) <= now <= max(mark.written, mark.intent)


def overwritten(before: Iterable[Stamp], now: Iterable[Stamp]) -> frozenset[str]:
    """Return the scopes (``all`` or a node) of the files that somebody else has written since."""
    times = {(stamp.file, stamp.inode): stamp.time_ns for stamp in before}
    return frozenset(
        stamp.scope
        for stamp in now
        if times.get((stamp.file, stamp.inode), stamp.time_ns) != stamp.time_ns
    )


def changed(marks: Iterable[Mark], size: Size) -> frozenset[int | None]:
    """Return the nodes whose pools are as no write of ours would have left them."""
    known = {mark.node: mark for mark in marks}
    return frozenset(
        node.node
        for node in size.nodes
        if node.node in known and not is_ours(known[node.node], node.persistent)
    )


def settled(marks: Sequence[Mark], size: Size, scopes: Collection[str]) -> tuple[Mark, ...]:
    """Return the marks of one size as they are now, the administrator's writes taken over.

    What was written is what is persistent now: that is the administrator's word, leases or not,
    and the reservation of ``hugepages reserve`` is part of it no more. A pool that has no mark
    yet is the administrator's.
    """
    known = {mark.node: mark for mark in marks}
    theirs = changed(marks, size)
    found = []
    for node in size.nodes:
        now, mark = node.persistent, known.get(node.node)
        written = node.node in theirs or ALL in scopes or str(node.node) in scopes
        if mark is None or written:
            found.append(Mark(size.page_bytes, node.node, now, now, now))
        else:
            found.append(replace(mark, written=now, intent=now))
    return tuple(found)


def intending(marks: Sequence[Mark], size: Size, write: Write) -> tuple[Mark, ...]:
    """Return the marks that say what is about to be written.

    Of a write for all nodes the kernel chooses where pages go: each may get them all.
    """
    more = write.value - size.persistent
    return tuple(
        replace(mark, intent=write.value if write.node is not None else mark.written + more)
        if write.node in (None, mark.node)
        else mark
        for mark in marks
    )


def as_lease(asked: HugePages, launcher: Process = NOBODY, uid: int = 0) -> Lease:
    """Return the lease that was asked for."""
    return Lease(asked.page_bytes, asked.node, asked.count, launcher, uid)


# --- what has been claimed -----------------------------------------------------------------------


def hugetlb_bytes(status: str) -> int:
    """Return the huge pages that a process has touched, in bytes, from its /proc/PID/status."""
    _, _, rest = status.partition("\nHugetlbPages:")
    words = rest.split(None, 1)
    return int(words[0]) << 10 if words and words[0].isdigit() else 0


def huge_by_node(numa_maps: str, page_bytes: int) -> dict[int | None, int]:
    """Return the huge pages of one size that a process has, by node, from its numa_maps."""
    found: dict[int | None, int] = {}
    for line in numa_maps.splitlines():
        words = line.split(" ")
        if f"kernelpagesize_kB={page_bytes >> 10}" not in words or "huge" not in words:
            continue
        for word in words:
            node, equals, pages = word.partition("=")
            if equals and node[:1] == "N" and node[1:].isdigit():
                found[int(node[1:])] = found.get(int(node[1:]), 0) + int(pages)
    return found


def claim(leases: Sequence[Lease], pages: Mapping[int | None, int]) -> tuple[Lease, ...]:
    """Return the leases of one target with what it has of them; a page counts for one lease only.

    Leases of a node take from that node first.
    """
    left = dict(pages)
    claimed = {}
    for at_index in sorted(range(len(leases)), key=lambda index: leases[index].node is None):
        lease = leases[at_index]
        nodes = tuple(left) if lease.node is None else (lease.node,)
        taken = 0
        for node in nodes:
            part = min(left.get(node, 0), lease.count - taken)
            taken += part
            left[node] = left.get(node, 0) - part
        claimed[at_index] = replace(lease, claimed=max(lease.claimed, taken))
    return tuple(claimed[index] for index in range(len(leases)))
