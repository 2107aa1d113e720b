"""The heap in smaps: what is found of it, and what is said of what is not."""

from __future__ import annotations

import pytest

from rtlaunch.core import heapproof
from tests.unit.deciding import MIB, codes, options

PAGE = 4096
HUGE = 2 * MIB
ASKED = 64 * MIB


def mapping(start: int, size: int, path: str = "", perms: str = "rw-p", **kib: int) -> str:
    """Write one mapping as the kernel does; sizes in bytes, with all else 0."""
    rows = {"Size": size, "KernelPageSize": PAGE, "Rss": size, "AnonHugePages": 0,
            "Private_Hugetlb": 0, "Locked": size, **kib}  # fmt: skip
    head = f"{start:x}-{start + size:x} {perms} 00000000 00:00 0                 {path}\n"
    return (
        head
        + "".join(f"{name}: {value // 1024:8} kB\n" for name, value in rows.items())
        + ("VmFlags: rd wr mr mw me ac lo \n")
    )


def brk(size: int = ASKED, **kib: int) -> str:
    return mapping(0x5000000, size, "[heap]", **kib)


def huge(start: int, size: int) -> str:
    kib = {"KernelPageSize": HUGE, "Rss": 0, "Locked": 0, "Private_Hugetlb": size}
    return mapping(start, size, "/anon_hugepage (deleted)", **kib)


def judged(text: str, **texts: str) -> list[str]:
    asked = options(heap="64M", **texts)
    return codes(heapproof.judge("app", asked, heapproof.look(text, ASKED), PAGE))


def test_a_heap_on_small_pages_is_found():
    """[heap]: its size, all of it in memory and locked, on pages of 4 KiB."""
    found = heapproof.look(brk(), ASKED)
    assert (found.size, found.resident, found.locked, found.page) == (ASKED, ASKED, ASKED, PAGE)
    assert judged(brk()) == []


def test_a_heap_on_huge_pages_is_found():
    """Two mappings of hugetlb, which smaps counts neither as resident nor as locked."""
    text = huge(0x7F0000000000, ASKED - HUGE) + huge(0x7F1000000000, HUGE)
    found = heapproof.look(text, ASKED)
    assert (found.size, found.resident, found.locked, found.page) == (ASKED, ASKED, ASKED, HUGE)
    assert judged(text, heap_pages="2M") == []


def test_a_heap_on_transparent_huge_pages_is_found():
    """All but its two ends."""
    text = brk(ASKED + HUGE, AnonHugePages=ASKED)
    assert heapproof.look(text, ASKED).page == HUGE
    assert judged(text, heap_pages="thp") == []


@pytest.mark.parametrize("text", ["", brk(ASKED - PAGE), mapping(0x7F0000000000, MIB)])
def test_a_heap_that_is_not_there_is_an_error(text):
    """Nothing, or less than asked."""
    assert judged(text) == ["heap-short"]


@pytest.mark.parametrize(
    "text",
    [
        brk(Rss=ASKED - PAGE),
        huge(0x7F0000000000, ASKED // 2)
        + mapping(0x7F1000000000, ASKED // 2, "/anon_hugepage (deleted)", Rss=0, Locked=0),
    ],
)
@pytest.mark.parametrize("pages", ["base", "2M"])
def test_a_heap_that_is_not_all_in_memory_is_an_error(text, pages):
    """One page, or, as a hugetlb cgroup does it, half of the huge ones."""
    short = judged(text, heap_pages=pages)
    assert short == (["heap-short"] if pages == "base" or "anon" in text else ["heap-fallback"])


@pytest.mark.parametrize(
    "text, pages",
    [
        (brk(), "thp"),
        (brk(), "2M"),
        (brk(AnonHugePages=ASKED // 2), "thp"),
        (brk(AnonHugePages=ASKED), "base"),
        (huge(0x7F0000000000, HUGE) + mapping(0x7F1000000000, ASKED), "2M"),
    ],
)
def test_other_pages_than_asked_are_a_warning(text, pages):
    """Small ones for large ones, some small ones, large ones for small ones."""
    assert judged(text, heap_pages=pages) == ["heap-fallback"]


@pytest.mark.parametrize("lock", ["none", "future"])
def test_a_heap_that_is_not_locked_is_a_warning(lock):
    """It is in memory by the guest, and --lock keeps nothing there."""
    assert judged(brk(Locked=0), lock=lock) == ["heap-fallback"]


def test_memory_that_mmap_gave_instead_counts():
    """Where brk is in the way malloc maps its heap, without a name."""
    assert judged(mapping(0x7F0000000000, ASKED)) == []


def test_a_programs_own_variables_are_no_heap():
    """The nameless memory behind a program's file is its .bss, however large."""
    text = mapping(0x400000, MIB, "/usr/bin/app") + mapping(0x400000 + MIB, 4 * ASKED)
    assert judged(text) == ["heap-short"]


@pytest.mark.parametrize(
    "path, owner",
    [
        ("/usr/lib/libjemalloc.so.2", "jemalloc"),
        ("/usr/lib/libtcmalloc_minimal.so.4.5.10", "tcmalloc"),
        ("/usr/lib/libmimalloc.so.2.0 (deleted)", "mimalloc"),
        ("/lib/ld-musl-x86_64.so.1", "musl"),
    ],
)
def test_another_allocator_that_is_mapped_is_an_error(path, owner):
    """Also where it came by a library of a library, and whatever [heap] says."""
    text = mapping(0x7F0000000000, MIB, path, "r-xp") + brk()
    assert heapproof.look(text, ASKED).allocator == owner
    assert judged(text) == ["heap-allocator"]
