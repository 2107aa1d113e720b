"""How much of its lease a target has by now: the huge pages that its processes have touched.

It only reads, and what it cannot read has not been claimed; what that means for a lease
:mod:`rtlaunch.core.hugepages` decides, and :mod:`rtlaunch.engine.ledger` writes down.
"""

from __future__ import annotations

from rtlaunch.core import hugepages as deciding
from rtlaunch.linux import hugepages as pools
from rtlaunch.linux import proc, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtlaunch.core.ledger import Lease


def claimed(pid: int, leases: Sequence[Lease], nodes: tuple[int, ...]) -> Sequence[Lease]:
    """Return the leases of a target with what it, or one process below it, has touched.

    What processes share is counted by each of them: the most counts, not the sum.
    """
    for each in processes.descendants(pid):
        leases = deciding.claim(leases, touched(each, leases[0].page_bytes, nodes))
        if not any(lease.unclaimed for lease in leases):
            break
    return leases


def touched(pid: int, page_bytes: int, nodes: tuple[int, ...]) -> dict[int | None, int]:
    """Return how many huge pages of one size a process has on which node.

    From status, which costs the process nothing, where there is one node and one size in use;
    else from numa_maps.
    """
    try:
        held = deciding.hugetlb_bytes(proc.read_text(pid, "status"))
        if held and (len(nodes) > 1 or other_sizes_in_use(page_bytes, nodes)):
            return deciding.huge_by_node(proc.read_text(pid, "numa_maps"), page_bytes)
    except OSError:
        return {}
    return {nodes[0] if nodes else None: held // page_bytes}


def other_sizes_in_use(page_bytes: int, nodes: tuple[int, ...]) -> bool:
    """Tell whether anybody has pages of another size."""
    others = (size for size in pools.page_sizes() if size != page_bytes)
    read = (pools.read_size(size, nodes) for size in others)
    return any(size.nr != size.free for size in read)
