"""The judgement between record and go: is this image locked, by the kernel's own books?

Pure: the texts of /proc that were read while the target stood still before
main(), and what the shim recorded, go in; numbers and findings come out. No
word of the shim is believed that the books do not show. The words for what is
not proven are :mod:`rtlaunch.core.unproven`'s. What can be locked at all is the
kernel's own rule, so that the proof asks of a mapping what the kernel would give.
"""

from __future__ import annotations

from rtlaunch.core import proc
from rtlaunch.core.caps import CAP_IPC_LOCK, has
from rtlaunch.core.limits import DEFAULT_THREAD_STACK_BYTES
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.outcome import UnlockedMapping
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rtlaunch.core.findings import Finding
    from rtlaunch.core.protocol import Message

NOT_LOCKED, NOT_RESIDENT = "not locked", "not resident"  # what a mapping lacks

PAGE_BYTES = 4096  # the smallest page of any kernel; asked only where the caller gives none

# mm/mlock.c, mlock_fixup(): VM_SPECIAL (VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP), hugetlb and
# VM_DROPPABLE are passed over in silence; so are the gate area, DAX and secretmem, told by name.
_NEVER_LOCKED = frozenset(("io", "de", "pf", "mm", "ht", "dp"))
_NEVER_LOCKED_PATHS = ("[vsyscall]", "/secretmem", "/dev/dax")

# Guard regions (madvise(2), MADV_GUARD_INSTALL) and userfaultfd leave holes that are meant.
_HOLES = frozenset(("gu", "um", "uw", "ui"))

# mm/mmap.c: stack_guard_gap, 256 pages kept free below a stack that grows.
STACK_GUARD_PAGES = 256

MCL = {"current": 1, "future": 2, "onfault": 4}  # include/uapi/asm-generic/mman.h


class Books(Record):
    """What the kernel says of a target that stands still; ``initial_userns`` is the launcher's."""

    status: proc.Status
    limits: dict[str, tuple[int, int]]
    mappings: tuple[proc.Mapping, ...]
    initial_userns: bool
    page_bytes: int


class Judgement(Record):
    """The proof's result: ``locked`` is whether the image is what the options asked for.

    ``flags`` are mlockall's that were used in the end.
    """

    flags: tuple[str, ...]
    locked: bool
    locked_bytes: int
    resident_bytes: int
    headroom_bytes: int
    unlocked: tuple[UnlockedMapping, ...]
    findings: tuple[Finding, ...]


def lockable(mapping: proc.Mapping) -> bool:
    """Tell whether mlock(2) would lock ``mapping`` (mm/mlock.c); needs smaps' flags.

    A file on a DAX file system, which the kernel also passes over, cannot be
    told from any other: it will be called lockable.
    """
    if mapping.flags & _NEVER_LOCKED:
        return False
    return not mapping.path.startswith(_NEVER_LOCKED_PATHS)


def _expected(mapping: proc.Mapping, file_bytes: int | None, page: int) -> int:
    """Return how many bytes of ``mapping`` can be in memory: none beyond the file's last page."""
    if file_bytes is None:
        return mapping.size
    within = -(-file_bytes // page) * page - mapping.offset
    return max(0, min(mapping.size, within))


def missing_bytes(
    mapping: proc.Mapping, file_bytes: int | None = None, page: int = PAGE_BYTES
) -> int:
    """Return how many bytes of a lockable mapping could fault for not being in memory.

    ``file_bytes`` is the length of the mapped file, None for memory without
    one. Never counted are PROT_NONE memory, declared holes, and anonymous
    memory that may not be written: its pages are the zero page, which is in
    memory but not in Rss (fs/proc/task_mmu.c).
    """
    zero_page = mapping.inode == 0 and mapping.perms[1] != "w"
    if not mapping.accessible or zero_page or mapping.flags & _HOLES:
        return 0
    return max(0, _expected(mapping, file_bytes, page) - mapping.rss)


def unlocked(
    mappings: Iterable[proc.Mapping],
    onfault: bool = False,
    file_bytes: Callable[[proc.Mapping], int | None] | None = None,
    page: int = PAGE_BYTES,
) -> tuple[proc.Mapping, ...]:
    """Return the lockable mappings that are not locked, or not all in memory.

    With ``onfault`` (MCL_ONFAULT) only the lock is asked, as pages come at
    their first touch. ``file_bytes`` tells the length of a mapping's file and
    is asked only where pages are missing.
    """
    return tuple(_unlocked(mappings, onfault, file_bytes, page))


def _unlocked(
    mappings: Iterable[proc.Mapping],
    onfault: bool,
    file_bytes: Callable[[proc.Mapping], int | None] | None,
    page: int,
) -> Iterator[proc.Mapping]:
    for mapping in mappings:
        if not lockable(mapping):
            continue
        if "lo" not in mapping.flags:
            yield mapping
        elif not onfault and missing_bytes(mapping):
            length = file_bytes(mapping) if file_bytes and mapping.inode else None
            if missing_bytes(mapping, length, page):
                yield mapping


def stack_floor(mappings: Iterable[proc.Mapping], soft: int, page_bytes: int) -> int:
    """Return the lowest address the main stack may grow to; 0 where no stack is named.

    That is the limit (acct_stack_growth), and the guard gap above whatever is
    mapped below.
    """
    below = 0
    for mapping in mappings:
        if mapping.path == "[stack]":
            by_limit = mapping.end - soft if soft != UNLIMITED else 0
            by_gap = below + (STACK_GUARD_PAGES + 1) * page_bytes if below else 0
            return max(by_limit, by_gap, 0) + page_bytes
        below = mapping.end
    return 0


def limited(books: Books) -> bool:
    """Tell whether RLIMIT_MEMLOCK applies: not to CAP_IPC_LOCK (can_do_mlock, mm/mlock.c)."""
    capable = books.initial_userns and has(books.status.cap_eff, CAP_IPC_LOCK)
    return not capable and books.limits["memlock"][0] != UNLIMITED


def headroom(books: Books) -> int:
    """Return how many bytes more may be locked, UNLIMITED where no limit applies."""
    return max(0, books.limits["memlock"][0] - books.status.vm_lck) if limited(books) else UNLIMITED


def thread_stack_bytes(books: Books, at_exec: int | None = None) -> int:
    """Return the size of a default thread stack: RLIMIT_STACK, or the C library's own.

    ``at_exec`` is the soft limit that the image began with, where that was another.
    """
    soft = books.limits["stack"][0] if at_exec is None else at_exec
    return DEFAULT_THREAD_STACK_BYTES if soft == UNLIMITED else soft


def judge(
    name: str,
    flags: tuple[str, ...],
    record: Message,
    books: Books,
    file_bytes: Callable[[proc.Mapping], int | None] | None = None,
    stack_at_exec: int | None = None,
) -> Judgement:
    """Judge one image by its record and its books; ``name`` is how messages call it.

    ``flags`` are those asked for; ``stack_at_exec`` is the soft RLIMIT_STACK that
    the image began with, where the shim changed it.
    """
    found: list[Finding] = []
    asked, flags = flags, flags_used(flags, record)
    if record.error:
        from rtlaunch.core.unproven import lock_failed

        found.append(lock_failed(name, record.error, books))
        missing: tuple[UnlockedMapping, ...] = ()
    else:
        missing = unlocked_mappings(flags, books, file_bytes)
        if missing:
            from rtlaunch.core.unproven import still_unlocked

            found.append(still_unlocked(name, missing))
        found += memlock_headroom(name, flags, books, stack_at_exec)
        if flags != asked:
            from rtlaunch.core.unproven import no_onfault

            found.append(no_onfault(name, flags, books))
    return Judgement(
        flags=flags,
        locked=not record.error and not missing,
        locked_bytes=books.status.vm_lck,
        resident_bytes=books.status.vm_rss,
        headroom_bytes=headroom(books),
        unlocked=missing,
        findings=tuple(found),
    )


def flags_used(asked: tuple[str, ...], record: Message) -> tuple[str, ...]:
    """Return the flags that the lock was made with: those asked for, or the same without onfault.

    Nothing else that a record says of flags is believed.
    """
    populating = tuple(flag for flag in asked if flag != "onfault")
    return populating if record.flags == sum(MCL[flag] for flag in populating) else asked


def unlocked_mappings(
    flags: tuple[str, ...],
    books: Books,
    file_bytes: Callable[[proc.Mapping], int | None] | None,
) -> tuple[UnlockedMapping, ...]:
    """Return what should be locked and resident and is not; nothing without MCL_CURRENT.

    MCL_FUTURE alone locks only what is mapped from then on, so there is
    nothing to show before main().
    """
    if "current" not in flags:
        return ()
    onfault = "onfault" in flags
    found = unlocked(books.mappings, onfault, file_bytes, books.page_bytes)
    return tuple(
        UnlockedMapping(
            mapping.start,
            mapping.end,
            mapping.path or "//anon",
            mapping.rss,
            NOT_RESIDENT if "lo" in mapping.flags else NOT_LOCKED,
        )
        for mapping in found
    )


def memlock_headroom(
    name: str, flags: tuple[str, ...], books: Books, stack_at_exec: int | None = None
) -> list[Finding]:
    """Warn of a lock that succeeded and leaves no room for the first thread.

    Under MCL_FUTURE a new mapping is charged whole, MCL_ONFAULT or not, and mmap fails with EAGAIN
    past the limit: the program itself breaks, later.
    """
    room, stack = headroom(books), thread_stack_bytes(books, stack_at_exec)
    if "future" not in flags or room == UNLIMITED or room >= stack:
        return []
    from rtlaunch.core.unproven import no_headroom

    return [no_headroom(name, room, stack, books)]
