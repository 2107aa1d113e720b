"""What may be done with pools, against a small model of the kernel's own rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import hugepages, ledger
from rtlaunch.core.hugepages import Node, Size, Write, missing, net, shrinking, usable
from rtlaunch.core.ledger import Lease, Ledger, Mark, Process, Stamp

PAGE = 2 << 20
ME = Process(10, 20, 30)


def lease(count: int, node: int | None = None, claimed: int = 0) -> Lease:
    return Lease(PAGE, node, count, ME, 0, claimed)


def size(*nodes: Node, resv: int = 0) -> Size:
    return Size(PAGE, resv, 0, nodes)


def apply(pools: Size, write: Write) -> Size:
    """Do what set_max_huge_pages does, with memory without end; all pages go to the first node."""
    at = 0 if write.node is None else [node.node for node in pools.nodes].index(write.node)
    others = sum(node.persistent for node in pools.nodes) - pools.nodes[at].persistent
    node = pools.nodes[at]
    count = write.value - (others if write.node is None else 0)
    nr, free, surplus = node.nr, node.free, node.surplus
    while surplus and count > nr - surplus:
        surplus -= 1
    grown = max(0, count - (nr - surplus))
    nr, free = nr + grown, free + grown
    least = pools.resv + pools.nr - pools.free - others
    while max(count, least) < nr - surplus and free:
        nr, free = nr - 1, free - 1
    surplus += max(0, nr - surplus - count)
    made = list(pools.nodes)
    made[at] = Node(node.node, nr, free, surplus)
    return Size(PAGE, pools.resv, pools.overcommit, tuple(made))


@st.composite
def one_node(draw) -> Size:
    used, free, surplus = (draw(st.integers(0, 40)) for _ in range(3))
    return size(
        Node(0, used + free, free, min(surplus, used)), resv=min(draw(st.integers(0, 40)), free)
    )


@st.composite
def two_nodes(draw) -> Size:
    made = [draw(one_node()).nodes[0] for _ in range(2)]
    nodes = [Node(at, node.nr, node.free, 0) for at, node in enumerate(made)]
    return size(*nodes, resv=min(draw(st.integers(0, 20)), sum(node.free for node in nodes)))


LEASES = st.lists(
    st.builds(lease, st.integers(1, 30), st.sampled_from([None, 0]), st.integers(0, 30)),
    max_size=6,
).map(tuple)
EITHER = st.one_of(one_node(), two_nodes())


def grown(pools: Size, leases: tuple[Lease, ...]) -> Size:
    while lacking := missing(pools, leases):
        pools = apply(pools, hugepages.growth(pools, lacking))
    return pools


def test_pages_reserved_by_a_stranger_are_not_usable() -> None:
    """Pool 10, a stranger maps 8 untouched: free 10, reserved 8, and 2 for us."""
    pools = size(Node(0, 10, 10, 0), resv=8)
    assert usable(pools, ()) == 2
    assert missing(pools, (lease(10),)) == ((None, 8),)


def test_growth_counts_surplus_pages_that_become_persistent() -> None:
    """3 in use above a pool of 5: a write of 5 + 4 would bring 1 free page, not 4."""
    pools = size(Node(0, 8, 0, 3))
    assert hugepages.growth(pools, ((None, 4),)) == Write(None, 12)
    assert apply(pools, Write(None, 12)).free == 4
    assert apply(pools, Write(None, 9)).free == 1


@given(EITHER, LEASES)
def test_growing_keeps_every_promise(pools: Size, leases: tuple[Lease, ...]) -> None:
    """It ends, and then nothing is missing, anywhere or on a node."""
    after = grown(pools, leases)
    assert usable(after, leases) >= 0 or not leases
    for node in {one.node for one in leases if one.unclaimed}:
        assert usable(after, leases, node) >= 0


@given(one_node(), LEASES)
def test_growing_takes_no_page_too_many(pools: Size, leases: tuple[Lease, ...]) -> None:
    """On one node exactly what lacks becomes free."""
    lacking = sum(pages for _, pages in missing(pools, leases))
    assert grown(pools, leases).free == pools.free + lacking


@given(EITHER, LEASES, st.integers(0, 60))
def test_shrinking_breaks_no_promise(pools: Size, leases: tuple[Lease, ...], base: int) -> None:
    """Every promise that was kept before is kept after, and no pool is below its base."""
    pools = grown(pools, leases)
    bases = {node.node: base for node in pools.nodes}
    before = pools
    for write in shrinking(pools, leases, bases):
        assert write.value >= base
        pools = apply(pools, write)
    assert sum(pages for _, pages in missing(pools, leases)) <= sum(
        pages for _, pages in missing(before, leases)
    )
    if leases:
        assert pools.persistent >= min(before.persistent, sum(one.count for one in leases))


@given(EITHER, st.integers(0, 60))
def test_without_leases_the_pool_is_the_administrators(pools: Size, base: int) -> None:
    """Whatever is in use; pools below their base are left alone."""
    bases = {node.node: base for node in pools.nodes}
    expected = [min(node.persistent, base) for node in pools.nodes]
    for write in shrinking(pools, (), bases):
        pools = apply(pools, write)
    assert [node.persistent for node in pools.nodes] == expected


@given(one_node(), LEASES, st.integers(0, 60), st.integers(0, 9))
def test_the_net_holds_a_pool_that_is_lowered_before_the_mmap(
    pools: Size, leases: tuple[Lease, ...], low: int, base: int
) -> None:
    """Surplus pages in use and those of every promise fit below nr_overcommit_hugepages."""
    pools = grown(pools, leases)
    lowered = apply(pools, Write(0, low))
    wanted = sum(one.unclaimed for one in leases)
    new_surplus = max(0, lowered.resv + wanted - lowered.free)
    most = net(pools, leases, base)
    assert leases or most == base
    if leases and new_surplus:
        assert lowered.surplus + new_surplus <= most


# --- whose doing it was --------------------------------------------------------------------------

MARK = Mark(PAGE, 0, base=5, written=9, intent=9)


def settled(mark: Mark, now: int, *scopes: str) -> Mark:
    (found,) = hugepages.settled((mark,), size(Node(0, now, now, 0)), scopes)
    return found


def test_what_we_left_is_ours() -> None:
    """The base stays."""
    assert settled(MARK, 9) == MARK


def test_another_number_is_the_administrators() -> None:
    """It is the base from then on, and what was reserved is part of it no more."""
    mark = Mark(PAGE, 0, base=5, written=9, intent=9, reserved=2)
    assert settled(mark, 3) == Mark(PAGE, 0, base=3, written=3, intent=3)


def test_a_write_of_ours_that_was_cut_short_is_ours() -> None:
    """A writer killed while the pool grew from 9 to 20."""
    mark = Mark(PAGE, 0, base=5, written=9, intent=20)
    assert settled(mark, 14) == Mark(PAGE, 0, base=5, written=14, intent=14)
    assert settled(mark, 21).base == 21


def test_the_same_number_written_again_is_the_administrators() -> None:
    """By the time of the file, of all nodes or of this one."""
    assert settled(MARK, 9, hugepages.ALL).base == 9
    assert settled(MARK, 9, "0").base == 9
    assert settled(MARK, 9, "1").base == 5


def test_only_the_time_of_the_same_file_tells() -> None:
    """Another inode is a file that was made anew: nothing is known."""
    before = Stamp(PAGE, "all", "/f", 7, 100)
    assert hugepages.overwritten([before], [Stamp(PAGE, "all", "/f", 7, 200)]) == {"all"}
    assert hugepages.overwritten([before], [Stamp(PAGE, "all", "/f", 8, 200)]) == set()
    assert hugepages.overwritten([], [before]) == set()


# --- claims --------------------------------------------------------------------------------------


@given(LEASES, st.dictionaries(st.sampled_from([0, 1]), st.integers(0, 60)))
def test_a_page_counts_for_one_lease_only(
    leases: tuple[Lease, ...], pages: dict[int | None, int]
) -> None:
    """What is newly claimed is never more than what is there; claims never shrink."""
    fresh = tuple(lease(one.count, one.node) for one in leases)
    claimed = hugepages.claim(fresh, pages)
    assert sum(one.claimed for one in claimed) <= sum(pages.values())
    assert all(one.claimed <= one.count for one in claimed)
    again = hugepages.claim(claimed, {})
    assert again == claimed


def test_numa_maps_are_read_by_size_and_node() -> None:
    """Lines of other sizes do not count."""
    text = (
        "7f00 default file=/anon_hugepage\\040(deleted) huge anon=5 dirty=5 N0=3 N1=2 "
        "kernelpagesize_kB=2048\n"
        "7e00 default file=/anon_hugepage\\040(deleted) huge anon=1 N0=1 "
        "kernelpagesize_kB=1048576\n"
        "7d00 default anon=9 N0=9 kernelpagesize_kB=4\n"
    )
    assert hugepages.huge_by_node(text, PAGE) == {0: 3, 1: 2}


def test_touched_bytes_are_read_from_status() -> None:
    """In bytes; none where the kernel has no such line."""
    assert hugepages.hugetlb_bytes("Name:\ta\nHugetlbPages:\t   16384 kB\nX:\t1\n") == 16 << 20
    assert hugepages.hugetlb_bytes("Name:\ta\n") == 0


# --- the ledger ----------------------------------------------------------------------------------

NUMBERS = st.integers(0, 2**40)
PROCESSES = st.builds(Process, NUMBERS, NUMBERS, NUMBERS)
PLACES = st.one_of(st.none(), st.integers(0, 9))
MARKS = st.lists(st.builds(Mark, NUMBERS, PLACES, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=3)
LEDGERS = st.builds(
    Ledger,
    st.just("boot"),
    MARKS.map(tuple),
    MARKS.map(tuple),
    st.lists(
        st.builds(
            Stamp, NUMBERS, st.sampled_from(["all", "0"]), st.just("/sys/f"), NUMBERS, NUMBERS
        ),
        max_size=3,
    ).map(tuple),
    st.lists(
        st.builds(
            Lease, NUMBERS, PLACES, NUMBERS, PROCESSES, NUMBERS, NUMBERS,
            st.one_of(st.none(), PROCESSES),
        ),
        max_size=3,
    ).map(tuple),
)  # fmt: skip


@given(LEDGERS)
def test_a_ledger_is_read_as_it_was_written(whole: Ledger) -> None:
    """All of it."""
    assert ledger.read(ledger.write(whole), "boot") == (whole, True)


@given(LEDGERS, st.data())
def test_a_ledger_that_was_cut_short_is_known_to_be(whole: Ledger, data: st.DataObject) -> None:
    """At any byte; every line before the cut counts."""
    text = ledger.write(whole)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    found, complete = ledger.read(cut, "boot")
    assert not complete
    if cut.count("\n") > len(whole.pools):
        assert found.pools == whole.pools


@given(st.text())
def test_no_text_is_taken_for_a_whole_ledger(text: str) -> None:
    """Nor does any raise; an empty file is an empty ledger."""
    _, whole = ledger.read(text, "boot")
    assert whole == (text == "")


def test_a_ledger_of_another_boot_is_empty() -> None:
    """And not damaged."""
    text = ledger.write(Ledger("old", leases=(lease(3),)))
    assert ledger.read(text, "boot") == (Ledger("boot"), True)
