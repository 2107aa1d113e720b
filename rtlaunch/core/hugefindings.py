"""What stands against a lease of huge pages, found before anything is changed.

Pure: options and facts in, findings out; what may be done with a pool is
:mod:`rtlaunch.core.hugepages`'s.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.hugepages import as_lease, at, missing, owed, usable
from rtlaunch.core.ledger import of_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.hugepages import HugeFacts, Room, Size
    from rtlaunch.core.ledger import Lease
    from rtlaunch.core.options import HugePages, Options


def findings(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find what keeps a lease from being had, with nothing touched."""
    huge = facts.hugepages
    if huge is None:
        return
    known = {size.page_bytes: size for size in huge.sizes}
    possible = []
    for asked in options.hugepages:
        finding = unknown_size(asked, known) or unknown_node(asked, known[asked.page_bytes])
        if finding:
            yield finding
        else:
            possible.append(asked)
    for page_bytes in sorted({asked.page_bytes for asked in possible}):
        wanted = tuple(as_lease(asked) for asked in possible if asked.page_bytes == page_bytes)
        yield from of_pool(known[page_bytes], wanted, huge)
        yield from of_cgroups(page_bytes, wanted, huge.rooms)
    if huge.unsafe:
        yield Finding(
            "state-directory",
            f"the state directory {huge.state_directory or '(none)'} cannot be used: {huge.unsafe}",
            why="leases are written down there, so that others respect them and a killed "
            "launcher's are given back",
            values={"path": huge.state_directory},
        )


def unknown_size(asked: HugePages, known: Mapping[int, Size]) -> Finding | None:
    """Return the finding for a size that this machine lacks."""
    if asked.page_bytes in known:
        return None
    from rtlaunch.core.units import format_size, spell_size

    there = ", ".join(spell_size(size) for size in sorted(known)) or "none at all"
    return Finding(
        "hugepages-size",
        f"no huge pages of {format_size(asked.page_bytes)} on this machine; it has {there}",
        why="the sizes are the processor's and the kernel's (/sys/kernel/mm/hugepages)",
        values={"page_bytes": asked.page_bytes, "sizes": sorted(known)},
    )


def unknown_node(asked: HugePages, size: Size) -> Finding | None:
    """Return the finding for a NUMA node that does not exist, or has no such pages."""
    nodes = [node.node for node in size.nodes if node.node is not None]
    if asked.node is None or asked.node in nodes:
        return None
    there = ", ".join(map(str, nodes)) or "no nodes (a kernel without NUMA)"
    return Finding(
        "hugepages-node",
        f"there is no NUMA node {asked.node} with huge pages; this machine has {there}",
        why="pools are kept by node (/sys/devices/system/node)",
        values={"node": asked.node, "nodes": nodes},
    )


def of_pool(size: Size, wanted: Sequence[Lease], huge: HugeFacts) -> Iterable[Finding]:
    """Find a lease that is larger than memory, or than the pool where we may not grow it."""
    whole = sum(lease.count for lease in wanted) * size.page_bytes
    if whole > huge.memory_bytes:
        yield unavailable(size, wanted, huge.promised, huge.memory_bytes, "all memory there is")
        return
    leases = (*of_size(huge.promised, size.page_bytes), *wanted)
    lacking = sum(pages for _, pages in missing(size, leases))
    if lacking and not huge.may_grow:
        yield denied(size, wanted, huge.promised)
    elif lacking * size.page_bytes > huge.available_bytes:
        yield unavailable(size, wanted, huge.promised, huge.available_bytes, "what is available")


def told(size: Size, wanted: Sequence[Lease], leases: Sequence[Lease]) -> tuple[str, str]:
    """Say what was asked, and what is free where."""
    from rtlaunch.core.units import spell_size

    pages = spell_size(size.page_bytes)
    places = {lease.node for lease in wanted}
    asked = ", ".join(
        f"{sum(lease.count for lease in at(wanted, node))}"
        + ("" if node is None else f" on node {node}")
        for node in sorted(places, key=lambda node: -1 if node is None else node)
    )
    others = owed(of_size(leases, size.page_bytes))
    by_node = "; ".join(
        f"node {node.node}: {node.free} free of {node.nr}"
        for node in size.nodes
        if node.node is not None
    )
    free = f"{size.free} free of {size.nr}, {size.resv} reserved, {others} promised to others"
    return f"{asked} huge pages of {pages}", free + (f" ({by_node})" if by_node else "")


def numbers(
    size: Size, wanted: Sequence[Lease], leases: Sequence[Lease], got: int
) -> dict[str, object]:
    """Return the values that remedies and programs need."""
    from rtlaunch.core.units import spell_size

    asked = sum(lease.count for lease in wanted)
    return {
        "page_bytes": size.page_bytes,
        "page_size": spell_size(size.page_bytes),
        "asked": asked,
        "got": got,
        "pool": size.persistent + max(0, asked - got),
        "free": size.free,
        "reserved": size.resv,
        "promised": owed(of_size(leases, size.page_bytes)),
        "free_by_node": {str(node.node): node.free for node in size.nodes},
    }


def unavailable(
    size: Size, wanted: Sequence[Lease], leases: Sequence[Lease], memory_bytes: int, what: str
) -> Finding:
    """Return the finding for a lease that memory cannot hold."""
    from rtlaunch.core.units import format_size

    asked, free = told(size, wanted, leases)
    need = format_size(sum(lease.count for lease in wanted) * size.page_bytes)
    got = max(0, usable(size, of_size(leases, size.page_bytes)))
    return Finding(
        "hugepages-unavailable",
        f"{asked} were asked for, {need}; {what} is {format_size(memory_bytes)}; {free}",
        why="a pool grows by whole huge pages of free memory; it was not touched",
        values=numbers(size, wanted, leases, got),
    )


def short(
    size: Size, wanted: Sequence[Lease], leases: Sequence[Lease], got: int, error: str = ""
) -> Finding:
    """Return the finding for a pool that did not grow enough and was put back."""
    asked, free = told(size, wanted, leases)
    because = f" ({error})" if error else ""
    return Finding(
        "hugepages-unavailable",
        f"{asked} were asked for, {got} could be had{because}; {free}",
        why="memory has no more free blocks of that size, also after compaction; the pool was "
        "put back to what it was",
        values=numbers(size, wanted, leases, got),
    )


def denied(size: Size, wanted: Sequence[Lease], leases: Sequence[Lease]) -> Finding:
    """Return the finding for a pool that is too small and that we may not grow."""
    asked, free = told(size, wanted, leases)
    got = max(0, usable(size, of_size(leases, size.page_bytes)))
    return Finding(
        "hugepages-denied",
        f"{asked} were asked for, {got} can be had: {free}",
        why="only root may grow a pool (nr_hugepages); what is free in it anybody may lease",
        values=numbers(size, wanted, leases, got),
    )


def of_cgroups(
    page_bytes: int, wanted: Sequence[Lease], rooms: Iterable[Room]
) -> Iterable[Finding]:
    """Find a hugetlb cgroup, ours or one above it, that would kill the program as it touches."""
    need = sum(lease.count for lease in wanted) * page_bytes
    tight = [
        room
        for room in rooms
        if room.page_bytes == page_bytes and room.limit_bytes - room.used_bytes < need
    ]
    if not tight:
        return
    from rtlaunch.core.units import format_size, spell_size

    room = min(tight, key=lambda room: room.limit_bytes - room.used_bytes)
    yield Finding(
        "hugepages-cgroup",
        f"{format_size(need)} of huge pages were asked for; {room.file} allows "
        f"{format_size(room.limit_bytes)}, of which {format_size(room.used_bytes)} are in use",
        why="the kernel lets the mapping pass and ends the program by SIGBUS when it touches it",
        values={
            "page_bytes": page_bytes,
            "page_size": spell_size(page_bytes),
            "needed_bytes": need,
            "limit_bytes": room.limit_bytes,
            "used_bytes": room.used_bytes,
            "enough_bytes": room.used_bytes + need,
            "file": room.file,
        },
    )
