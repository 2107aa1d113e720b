"""What became of the heap, by the kernel's books of a target that stands before main().

Pure: the text of smaps goes in; numbers and findings come out. Imported only with ``--heap``.
The heap is ``[heap]`` where malloc grew it by brk, huge pages where they were asked for, and else
nameless memory of that size: what mmap gave in their place.
"""

from __future__ import annotations

from rtlaunch.core import allocators
from rtlaunch.core.findings import Finding
from rtlaunch.core.record import Record
from rtlaunch.core.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rtlaunch.core.options import Options

HUGE_BYTES = 2 << 20  # of a transparent huge page, where the kernel does not say (x86, 4K pages)
KIB = 1024


class Region(Record):
    """One mapping of smaps, with what it says of pages; bytes all."""

    start: int
    end: int
    perms: str
    path: str
    page: int = 0
    resident: int = 0
    locked: int = 0
    transparent: int = 0
    huge: int = 0

    @property
    def size(self) -> int:
        """Bytes of address space."""
        return self.end - self.start


class Found(Record):
    """The heap as it was found, in bytes: ``page`` is the size of the pages that hold it.

    Huge pages count as locked: the kernel neither swaps nor reclaims them, and smaps knows no lock
    of theirs.
    """

    allocator: str
    size: int
    locked: int
    resident: int
    page: int
    transparent: int
    huge: int


FIELDS = {
    "KernelPageSize": "page",
    "Rss": "resident",
    "Locked": "locked",
    "AnonHugePages": "transparent",
    "Private_Hugetlb": "huge",
}


def parse(text: str) -> Iterator[Region]:
    """Yield the mappings of /proc/PID/smaps (proc(5))."""
    head: list[str] = []
    fields: dict[str, int] = {}
    for line in text.split("\n"):
        if line[:1].isupper():
            name, _, value = line.partition(":")
            if name in FIELDS:
                fields[FIELDS[name]] = int(value.split(None, 1)[0]) * KIB
            continue
        if head:
            yield region(head, fields)
        head, fields = line.split(None, 5), {}


def region(head: list[str], fields: dict[str, int]) -> Region:
    """Return one mapping from the words of its first line and its other lines."""
    start, _, end = head[0].partition("-")
    path = head[5] if len(head) > 5 else ""  # the sixth word, where there is one
    return Region(int(start, 16), int(end, 16), head[1], path, **fields)


def heap_among(regions: Iterable[Region], asked: int) -> Iterator[Region]:
    """Yield what the heap consists of; not the memory behind a program's own variables.

    That is nameless too, and begins where a mapping of a file ends.
    """
    before = Region(0, 0, "", "")
    for each in regions:
        nameless = not each.path or each.path.startswith("[anon: glibc: malloc")
        follows_file = before.end == each.start and before.path.startswith("/")
        large = nameless and each.size >= asked // 2 and not follows_file
        own = each.path == "[heap]" or each.path.startswith("/anon_hugepage")
        if each.perms[:2] == "rw" and (own or large):
            yield each
        before = each


def look(text: str, asked: int) -> Found:
    """Return the heap, and whose malloc it is, "" for the C library's own."""
    regions = list(parse(text))
    owner, _ = allocators.first_library(each.path for each in regions)
    if not owner and any("/ld-musl-" in each.path for each in regions):
        owner = "musl"
    parts = list(heap_among(regions, asked))
    huge = sum(each.huge for each in parts)
    transparent = sum(each.transparent for each in parts)
    return Found(
        allocator=owner,
        size=sum(each.size for each in parts),
        locked=sum(each.locked for each in parts) + huge,
        resident=sum(each.resident for each in parts) + huge,
        page=page_of(parts, asked, transparent),
        transparent=transparent,
        huge=huge,
    )


def page_of(parts: list[Region], asked: int, transparent: int) -> int:
    """Return the size of the pages that hold the heap: the smallest of those that hold much of it.

    Its two ends seldom fall on a huge page's border, and may be on small ones.
    """
    if not parts:
        return 0
    if transparent and transparent + 2 * HUGE_BYTES >= asked:
        return HUGE_BYTES
    rows = sorted((each.page, each.size) for each in parts)
    small = sum(size for page, size in rows if page == rows[0][0])
    rest = sum(size for page, size in rows if page != rows[0][0])
    return rows[-1][0] if rest >= asked else rows[0][0] if small else 0


# --- judging ---------------------------------------------------------------------------------


def judge(name: str, options: Options, found: Found, base_bytes: int) -> tuple[Finding, ...]:
    """Return what the heap is short of; ``name`` is the program's, ``base_bytes`` the small page.

    The first thing that is wrong is said, and nothing that follows from it.
    """
    asked = options.heap or 0
    if found.allocator:
        return (_foreign(name, found),)
    least = asked - slack(options, found)
    if found.size < least:
        return (_short(name, asked, found, found.size, "there"),)
    if found.resident < least:
        return (_short(name, asked, found, found.resident, "in memory"),)
    return (*_of_pages(name, options, found, base_bytes), *_of_lock(name, options, found))


def slack(options: Options, found: Found) -> int:
    """Return what a heap may lack that fell back from huge pages: the first of them, at most.

    malloc's first block, which takes the first huge page, takes 1 MiB of small ones.
    """
    pages = options.heap_pages
    return pages if isinstance(pages, int) and found.huge < (options.heap or 0) else 0


def _foreign(name: str, found: Found) -> Finding:
    return Finding(
        "heap-allocator",
        f"{name} allocates by {found.allocator}: it is mapped into it",
        why="--heap and --arenas are settings of glibc's malloc, which then serves nobody",
        values={"allocator": found.allocator, "evidence": "mapped"},
    )


def _short(name: str, asked: int, found: Found, size: int, what: str) -> Finding:
    return Finding(
        "heap-short",
        f"{name}: {format_size(size)} of heap {'are' if size else 'is'} {what}, "
        f"{format_size(asked)} were asked for",
        why="malloc took what the kernel gave, or is not the C library's; the rest would be mapped "
        "and touched while the program runs",
        values=numbers(asked, found),
    )


def _of_pages(name: str, options: Options, found: Found, base: int) -> Iterator[Finding]:
    """Find a heap on other pages than were asked for."""
    pages = options.heap_pages
    wanted = {"base": base, "thp": HUGE_BYTES, "inherit": found.page}.get(str(pages), pages)
    if found.page == wanted:
        return
    asked = options.heap or 0
    large = found.huge or found.transparent
    yield Finding(
        "heap-fallback",
        f"{name}: its heap of {format_size(asked)} is on pages of {format_size(found.page)}, asked "
        f"was {pages if isinstance(pages, str) else format_size(pages)}; on larger pages are "
        f"{format_size(large)}",
        why="memory had no more large blocks, or something changed the policy",
        values=numbers(asked, found),
    )


def _of_lock(name: str, options: Options, found: Found) -> Iterator[Finding]:
    """Find a heap that --lock leaves unlocked; what it leaves unpopulated the guest has touched."""
    asked = options.heap or 0
    if found.locked >= asked - slack(options, found):
        return
    yield Finding(
        "heap-fallback",
        f"{name}: its heap of {format_size(asked)} is in memory and not locked: "
        f"--lock {','.join(options.lock) or 'none'} locks no memory that is there already",
        why="it may be swapped out, and faults when it comes back",
        values=numbers(asked, found),
    )


def numbers(asked: int, found: Found) -> dict[str, object]:
    """Return the values of a finding."""
    return {
        "asked_bytes": asked,
        "found_bytes": found.size,
        "locked_bytes": found.locked,
        "resident_bytes": found.resident,
        "page_bytes": found.page,
    }
