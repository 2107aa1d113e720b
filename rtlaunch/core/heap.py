"""The heap that is asked for: what the C library is told of it.

Pure, and imported only for ``--heap``, ``--heap-pages`` and ``--arenas``. glibc takes settings from
GLIBC_TUNABLES (glibc 2.26 on; huge pages 2.35 on: elf/dl-tunables.list, malloc/malloc.c):

    mmap_max=0        every block comes from the heap, however large
    trim_threshold    the heap is never given back
    arena_max=1       all threads share it
    top_pad           by how much it grows, should SIZE have been too little
    hugetlb           0, 1 (transparent huge pages) or a size

They say nothing of when the heap grows to its size: that is the heap guest's work (native/heap.c).
What stands against it is found by :mod:`rtlaunch.core.heapfindings`; what came of it is judged by
:mod:`rtlaunch.core.heapproof`.
"""

from __future__ import annotations

from rtlaunch.core.asked_steps import ReserveHeap
from rtlaunch.core.protocol import HEAP_POPULATE, HEAP_VARIABLE, heap_variable
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options

VARIABLE = "GLIBC_TUNABLES"
GLIBC, MUSL = "glibc", "musl"
BASE, THP, INHERIT = "base", "thp", "inherit"

MMAP_MAX = "glibc.malloc.mmap_max"
TRIM_THRESHOLD = "glibc.malloc.trim_threshold"
TOP_PAD = "glibc.malloc.top_pad"
ARENA_MAX = "glibc.malloc.arena_max"
HUGETLB = "glibc.malloc.hugetlb"

# The older variables for the same settings; where both are set GLIBC_TUNABLES wins.
ALIASES = {
    "MALLOC_MMAP_MAX_": MMAP_MAX,
    "MALLOC_TRIM_THRESHOLD_": TRIM_THRESHOLD,
    "MALLOC_TOP_PAD_": TOP_PAD,
    "MALLOC_ARENA_MAX": ARENA_MAX,
}

# What a heap that was too small grows by: 8 times glibc's own, so that growth is rare; each program
# that inherits the variable reserves this much and touches none of it.
GROWTH_BYTES = 1 << 20

NEVER_TRIMMED = (1 << 63) - 1  # a size_t on every machine that a preload of ours reaches

# malloc's own of a block, and a little: what is asked for must not need one huge page more.
OVERHEAD_BYTES = 64


class HeapFacts(Record):
    """What a heap is decided on.

    ``libc`` is ``glibc``, ``musl`` or "" where it is neither, ``loader`` the file it was told by;
    ``tunables`` and ``hugetlb`` say whether it knows settings for malloc, and for huge pages.
    ``allocator`` is another malloc, seen in ``evidence``; both are "" for none. ``guest`` is the
    heap guest as LD_PRELOAD can carry it, "" for none. ``thp`` is the system's policy for
    transparent huge pages; ``pool`` how many huge pages of the size asked for are usable, None
    where the kernel has none of that size. ``total_bytes`` is the machine's memory, 0 if unknown.
    """

    libc: str
    loader: str
    tunables: bool
    hugetlb: bool
    allocator: str = ""
    evidence: str = ""
    guest: str = ""
    thp: str = ""
    pool: int | None = None
    total_bytes: int = 0


# --- what is set -----------------------------------------------------------------------------


def is_dynamic(facts: Facts) -> bool:
    """Tell whether a loader runs before the program, and so the heap guest."""
    program = facts.target.program
    return bool(program and program.elf and program.elf.dynamic)


def settings(options: Options, facts: Facts) -> dict[str, str]:
    """Return what glibc is to be told, by the tunables' names.

    A static program has no guest: its heap takes its size at once, when it first grows.
    """
    if options.heap is None:
        return {ARENA_MAX: str(options.arenas)}
    pages = options.heap_pages
    huge = isinstance(pages, int)
    growth = 0 if huge else GROWTH_BYTES
    told = {
        MMAP_MAX: "0",
        TRIM_THRESHOLD: str(NEVER_TRIMMED),
        TOP_PAD: str(growth if is_dynamic(facts) else options.heap),
        ARENA_MAX: str(options.arenas or 1),
    }
    if pages != INHERIT and (facts.heap is None or facts.heap.hugetlb):
        told[HUGETLB] = {BASE: "0", THP: "1"}.get(str(pages), str(pages))
    return told


def parse_tunables(text: str) -> list[tuple[str, str]]:
    """Split GLIBC_TUNABLES; ValueError for what has no name, no value or two of them.

    glibc up to 2.38 passes over such an item, 2.39 over the whole variable.
    """
    pairs = []
    for item in filter(None, text.split(":")):
        name, _, value = item.partition("=")
        if not name or not value or "=" in value:
            raise ValueError(f"{item!r} is no NAME=VALUE")
        pairs.append((name, value))
    return pairs


def same(one: str, other: str) -> bool:
    """Compare two values as glibc reads them: decimal, 0x hexadecimal, 0 octal."""
    return one == other or (number(one) is not None and number(one) == number(other))


def number(text: str) -> int | None:
    """Read a number as strtoul does; None for what is none."""
    digits = text.strip().lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    try:
        return int(digits, base)
    except ValueError:
        return None


def merge(told: Mapping[str, str], users_own: str, keep_theirs: bool = False) -> str:
    """Return the variable: ours first, then what the user has set of other things.

    Where both set one, ours stands, or with ``keep_theirs`` the user's.
    """
    try:
        theirs = parse_tunables(users_own)
    except ValueError:
        theirs = []
    taken = {name for name, _ in theirs} if keep_theirs else set()
    ours = [(name, value) for name, value in told.items() if name not in taken]
    rest = [pair for pair in theirs if keep_theirs or pair[0] not in told]
    return ":".join(f"{name}={value}" for name, value in (*ours, *rest))


def contradictions(told: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what the user has set otherwise, as the user wrote it; ValueError as parse_tunables."""
    for name, value in parse_tunables(environ.get(VARIABLE, "")):
        if name in told and not same(value, told[name]):
            yield f"{name}={value} (ours: {told[name]})"
    for alias, name in ALIASES.items():
        value = environ.get(alias, "")
        if value and name in told and not same(value, told[name]):
            yield f"{alias}={value} (ours: {name}={told[name]})"


# --- the step --------------------------------------------------------------------------------


def steps(options: Options, facts: Facts, codes: Collection[str]) -> tuple[ReserveHeap, ...]:
    """Return the step of the plan; none where the findings ``codes``, waived, rule it out."""
    if facts.heap is None or "heap-allocator" in codes:
        return ()
    told = settings(options, facts)
    users_own = facts.environ.get(VARIABLE, "")
    guest = facts.heap.guest if is_dynamic(facts) and options.heap is not None else ""
    return (
        ReserveHeap(
            options.heap or 0,
            options.heap_pages,
            merge(told, users_own, "heap-tunables" in codes),
            guest,
            "current" not in options.lock or "onfault" in options.lock,
        ),
    )


def environment(
    step: ReserveHeap, preload: str, environ: Mapping[str, str], pid: int
) -> dict[str, str]:
    """Return the target's environment with the heap in it; ``preload`` leads its LD_PRELOAD.

    Without a shim there is no guest either: what keeps the one out keeps the other out.
    """
    made = {**environ, VARIABLE: step.tunables}
    if step.guest and preload:
        others = environ["LD_PRELOAD"].removeprefix(preload)
        made["LD_PRELOAD"] = f"{preload}:{step.guest}{others}"
        first, rest = portions(step.heap_bytes, step.pages)
        made[HEAP_VARIABLE] = heap_variable(first, rest, HEAP_POPULATE if step.populate else 0, pid)
    return made


def portions(heap_bytes: int, pages: str | int) -> tuple[int, int]:
    """Return what the guest takes first and then, in bytes.

    On huge pages malloc's first block, however small, maps one page, and so a part of the heap:
    the rest is one page less, less what malloc adds, so that all is SIZE rounded up to pages.
    """
    if not isinstance(pages, int):
        return 0, heap_bytes
    whole = pages_needed(heap_bytes, pages) * pages
    return 1, max(0, whole - pages - OVERHEAD_BYTES)


def pages_needed(heap_bytes: int, page_bytes: int) -> int:
    """Return how many huge pages the heap takes."""
    return -(-heap_bytes // page_bytes)
