"""What the proof asks of a mapping: whether mlock(2) locks it, and which of its pages may lack."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.proc import Mapping
from rtlaunch.core.proof import lockable, missing_bytes, unlocked


def mapping(  # a locked, resident, private, writable page of nothing unless said otherwise
    flags: str = "rd wr mr mw me lo",
    perms: str = "rw-p",
    size: int = 4096,
    rss: int = 4096,
    path: str = "",
    inode: int = 0,
    offset: int = 0,
) -> Mapping:
    return Mapping(
        0x1000000, 0x1000000 + size, perms, offset, "00:00", inode, path, rss, 0,
        frozenset(flags.split()),
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["io", "de", "pf", "mm", "ht", "dp"])
def test_what_mlock_passes_over_is_not_lockable(flag: str) -> None:
    """VM_SPECIAL, hugetlb and droppable memory, as mlock_fixup has it."""
    assert not lockable(mapping(f"rd wr {flag}"))


@pytest.mark.parametrize("path", ["[vsyscall]", "/secretmem (deleted)", "/dev/dax0.0"])
def test_what_mlock_passes_over_is_known_by_name(path: str) -> None:
    """The gate area, secretmem and DAX devices carry no flag that tells."""
    assert not lockable(mapping("rd", path=path))


def test_ordinary_memory_is_lockable() -> None:
    """Private or shared, anonymous or a file's."""
    assert lockable(mapping())
    assert lockable(mapping("rd sh", "r--s", path="/lib/x", inode=7))


def test_locked_and_resident_memory_is_not_unlocked() -> None:
    """Nothing is found where nothing is wrong."""
    assert unlocked([mapping()]) == ()


def test_memory_without_the_lock_flag_is_unlocked() -> None:
    """Even if all of it is resident."""
    bare = mapping("rd wr mr mw me")
    assert unlocked([mapping(), bare]) == (bare,)


def test_memory_that_is_locked_but_not_there_is_unlocked() -> None:
    """A page of it would fault."""
    half = mapping(size=8192)
    assert unlocked([half]) == (half,)


def test_on_fault_asks_for_the_lock_only() -> None:
    """MCL_ONFAULT: pages come at their first touch and stay."""
    assert unlocked([mapping(size=8192)], onfault=True) == ()
    bare = mapping("rd wr")
    assert unlocked([bare], onfault=True) == (bare,)


def test_memory_that_allows_no_access_has_no_pages_to_lose() -> None:
    """PROT_NONE: locked by flag, never resident."""
    assert unlocked([mapping(perms="---p", rss=0)]) == ()


def test_the_zero_page_is_not_missed() -> None:
    """Anonymous memory that may not be written reads the zero page, which no Rss counts."""
    assert unlocked([mapping(perms="r--p", rss=0)]) == ()


@pytest.mark.parametrize("flag", ["gu", "um", "uw", "ui"])
def test_holes_that_were_asked_for_are_not_missed(flag: str) -> None:
    """Guard regions and userfaultfd."""
    assert unlocked([mapping(f"rd wr lo {flag}", rss=0)]) == ()


def test_pages_beyond_the_end_of_a_file_are_not_missed() -> None:
    """A mapping longer than its file: what is past the last page would be SIGBUS, not a fault."""
    long = mapping(size=65536, rss=8192, path="/data", inode=7)
    assert unlocked([long], file_bytes=lambda _: 5000) == ()
    assert unlocked([long], file_bytes=lambda _: 8193) == (long,)
    assert unlocked([long], file_bytes=lambda _: None) == (long,)


def test_a_file_mapped_from_its_middle_is_measured_from_there() -> None:
    """The offset counts."""
    tail = mapping(size=65536, rss=4096, path="/data", inode=7, offset=8192)
    assert unlocked([tail], file_bytes=lambda _: 8192 + 4096) == ()


def test_the_length_is_asked_only_where_pages_are_missing() -> None:
    """It costs a system call."""

    def never(_: Mapping) -> int:
        raise AssertionError("asked")

    assert unlocked([mapping(path="/data", inode=7)], file_bytes=never) == ()


@given(
    size=st.integers(1, 64),
    rss=st.integers(0, 64),
    offset=st.integers(0, 64),
    length=st.integers(0, 1 << 20),
)
def test_what_is_missing_is_never_more_than_there_is(
    size: int, rss: int, offset: int, length: int
) -> None:
    """Between nothing and the whole, whatever the file's length."""
    page = 4096
    found = mapping(size=size * page, rss=min(rss, size) * page, path="/x", inode=1,
                    offset=offset * page)  # fmt: skip
    assert 0 <= missing_bytes(found, length) <= missing_bytes(found) <= found.size
