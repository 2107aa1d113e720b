"""What stands against the heap that is asked for, found before anything is changed.

Pure, and imported only for ``--heap``, ``--heap-pages`` and ``--arenas``. What malloc is told is
:mod:`rtlaunch.core.heap`'s; what became of it, :mod:`rtlaunch.core.heapproof`'s.
"""

from __future__ import annotations

from rtlaunch.core.allocators import OWN_VARIABLES
from rtlaunch.core.findings import Finding
from rtlaunch.core.heap import (
    BASE,
    GLIBC,
    INHERIT,
    MUSL,
    VARIABLE,
    contradictions,
    is_dynamic,
    pages_needed,
    settings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.heap import HeapFacts
    from rtlaunch.core.options import Options

MIB = 1 << 20


def findings(options: Options, facts: Facts) -> Iterator[Finding]:
    """Find what keeps the heap from being what was asked for."""
    heap = facts.heap
    if heap is None or facts.target.program is None:
        return
    if options.heap is None and options.heap_pages != INHERIT:
        yield _pages_of_nothing(options, facts)
        return
    foreign = _of_allocator(heap, facts)
    if foreign:
        yield foreign
        return
    yield from _of_tunables(settings(options, facts), facts)
    if options.heap is not None:
        yield from _of_size(options.heap, heap)
        yield from _of_pages(options, options.heap, heap)
        yield from _of_guest(options.heap, heap, facts)


def _pages_of_nothing(options: Options, facts: Facts) -> Finding:
    from rtlaunch.core.argv import quoted
    from rtlaunch.core.units import spell_size

    pages = options.heap_pages
    asked = f"--heap-pages {pages if isinstance(pages, str) else spell_size(pages)}"
    return Finding(
        "usage",
        f"{asked} without --heap: there is no heap to put on them",
        why="pages under what is not reserved can neither be promised nor proven",
        try_now=f"rtlaunch --heap 64M {asked} -- {quoted(facts.target.argv)}",
    )


def _of_allocator(heap: HeapFacts, facts: Facts) -> Finding | None:
    """Find a malloc that is not glibc's, or a glibc without settings for it."""
    asked = "--heap and --arenas"
    if heap.allocator:
        own = OWN_VARIABLES.get(heap.allocator)
        what = f"{facts.target.command} allocates by {heap.allocator} ({heap.evidence})"
        why = f"{asked} are settings of glibc's malloc, which then serves nobody"
        why += f"; {heap.allocator} has {own}, of which nothing is proven" if own else ""
    elif heap.libc == MUSL:
        what = f"{facts.target.command} uses musl ({heap.loader})"
        why = "musl's malloc takes no settings, and maps and unmaps as it likes"
    elif heap.libc != GLIBC:
        what = f"{facts.target.command} is not known to use glibc ({heap.loader})"
        why = f"{asked} are settings of glibc's malloc"
    elif not heap.tunables:
        what = f"{heap.loader} knows no settings for malloc: {VARIABLE} came with glibc 2.26"
        why = "nothing else sets them from outside a program"
    else:
        return None
    return Finding(
        "heap-allocator",
        what,
        why=why,
        values={"allocator": heap.allocator or heap.libc, "evidence": heap.evidence},
    )


def _of_tunables(told: Mapping[str, str], facts: Facts) -> Iterator[Finding]:
    """Find settings of the user's own that contradict ours, or that cannot be read."""
    try:
        against = list(contradictions(told, facts.environ))
    except ValueError as error:
        what = f"{VARIABLE} cannot be merged with: {error}"
        against = []
    else:
        what = f"set already, and otherwise: {', '.join(against)}"
        if not against:
            return
    yield Finding(
        "heap-tunables",
        what,
        why="with these the heap would not be what was asked for",
        values={"tunables": facts.environ.get(VARIABLE, ""), "against": against},
    )


def _of_size(heap_bytes: int, heap: HeapFacts) -> Iterator[Finding]:
    """Find a heap that the machine's memory can never hold."""
    if heap.total_bytes and heap_bytes > heap.total_bytes:
        from rtlaunch.core.units import format_size, spell_size

        yield Finding(
            "heap-too-large",
            f"--heap {format_size(heap_bytes)}: this machine has {format_size(heap.total_bytes)} "
            "of memory",
            why="the heap is locked, and so must be in memory all the time",
            values={
                "heap_bytes": heap_bytes,
                "memory_bytes": heap.total_bytes,
                "fitting_heap": spell_size(heap.total_bytes // 2 & -MIB),
            },
        )


def _of_pages(options: Options, heap_bytes: int, heap: HeapFacts) -> Iterator[Finding]:
    """Find pages that cannot be had; the C library would take small ones without a word."""
    pages = options.heap_pages
    if pages in (INHERIT, BASE):
        return
    wanted = None
    if not heap.hugetlb:
        what = f"{heap.loader} knows no huge pages for malloc: they came with glibc 2.35"
    elif isinstance(pages, int):
        what = _too_few(options, heap_bytes, pages, heap.pool)
        wanted = lease(heap_bytes, pages) if heap.pool is not None else None
    elif options.thp == "never":
        what = "--heap-pages thp and --thp never are opposites"
    elif heap.thp == "never":
        what = "transparent huge pages are off: /sys/kernel/mm/transparent_hugepage/enabled"
    else:
        what = ""
    if what:
        yield Finding(
            "heap-pages",
            what,
            why="the C library would fall back to small pages without a word",
            values={
                "heap_bytes": heap_bytes,
                "page_bytes": pages if isinstance(pages, int) else None,
                "pages": pages_needed(heap_bytes, pages) if isinstance(pages, int) else None,
                "lease": wanted,
            },
        )


def _too_few(options: Options, heap_bytes: int, page_bytes: int, pool: int | None) -> str:
    """Say how many huge pages are missing, "" for none: what is free counts, or what is leased."""
    from rtlaunch.core.units import format_size

    size = format_size(page_bytes)
    if pool is None:
        return f"this kernel has no huge pages of {size}"
    leased = sum(each.count for each in options.hugepages if each.page_bytes == page_bytes)
    needed = pages_needed(heap_bytes, page_bytes)
    if needed <= max(pool, leased):
        return ""
    return (
        f"--heap {format_size(heap_bytes)} takes {needed} huge pages of {size}; usable are {pool}, "
        f"leased {leased} (--hugepages {lease(heap_bytes, page_bytes)} leases enough)"
    )


def lease(heap_bytes: int, page_bytes: int) -> str:
    """Return the value of --hugepages that leases what the heap takes."""
    from rtlaunch.core.units import spell_size

    return f"{spell_size(page_bytes)}:{pages_needed(heap_bytes, page_bytes)}"


def _of_guest(heap_bytes: int, heap: HeapFacts, facts: Facts) -> Iterator[Finding]:
    """Find a program that no guest gets into: its heap is there later, and unlocked."""
    if is_dynamic(facts) and heap.guest:
        return
    from rtlaunch.core.units import format_size

    if is_dynamic(facts):
        yield Finding(
            "heap-short",
            "this installation has no heap guest that LD_PRELOAD can carry: rtlaunch-heap-"
            f"{facts.target.machine}.so is not there, or its path has a space or colon and no "
            "alias",
            why="the guest is what reserves the heap before main()",
            values={"asked_bytes": heap_bytes, "machine": facts.target.machine},
        )
        return
    yield Finding(
        "heap-fallback",
        f"{facts.target.command} is static: its heap takes {format_size(heap_bytes)} at its "
        "first malloc, and is then neither locked nor in memory",
        why=f"{VARIABLE} reaches a static program, and no preload does",
        values={"asked_bytes": heap_bytes},
    )
