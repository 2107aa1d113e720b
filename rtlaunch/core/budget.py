"""What memory a launch will take, at least, and what there is for it: numbers in, numbers out.

Pure, and on the launch path: what the numbers come to in words is
:mod:`rtlaunch.core.overbudget`'s, imported where they do not fit.

Two sources of a need. The lower bound is what certainly is mapped and touched
before main(): the program's own segments, the stack that is prefaulted, the
heap that was asked for. The libraries are not in it. What a profile says that
``rtlaunch fit`` measured takes its place where it is more.
"""

from __future__ import annotations

from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.cgroup import CgroupLimit
    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options

LEAST, FIT = "lower-bound", "fit"

# A need that was measured and leaves less than this share of itself is warned of: another run
# takes some pages more, and rtlaunch itself is in the same cgroup.
MARGIN_SHARE = 10

MOST = (1 << 63) - 1  # where nothing is known

STRICT_OVERCOMMIT = 2  # vm.overcommit_memory (Documentation/mm/overcommit-accounting.rst)


class Memory(Record):
    """What may still be taken of this machine, in bytes; None is not known.

    ``commit_left`` is what strict overcommit leaves, UNLIMITED where that is not
    in force; ``cgroups`` are the groups above us that have a limit.
    """

    available: int | None = None
    swap_free: int = 0
    commit_left: int | None = UNLIMITED
    cgroups: tuple[CgroupLimit, ...] = ()


class Need(Record):
    """What the program will take, in bytes, once it is locked.

    ``locked`` and ``resident`` are VmLck and VmRSS. ``charged`` is what
    RLIMIT_MEMLOCK must allow: huge pages are not in VmLck, but mmap and mlockall
    hold them against the limit (mlock_future_ok; total_vm). ``fresh`` is what the
    kernel must find new pages for, ``mapped`` what strict overcommit counts; ``bss`` is what of
    both is the program's own.
    """

    source: str
    program: int
    stack: int
    heap: int
    locked: int = 0
    resident: int = 0
    charged: int = 0
    fresh: int = 0
    mapped: int = 0
    bss: int = 0


class Room(Record):
    """What each limit leaves, in bytes: UNLIMITED where it does not bind, None if not known.

    ``cgroup`` is the tightest group, whose ``cgroup_bytes`` these are.
    """

    memlock: int
    cgroup: CgroupLimit | None
    cgroup_bytes: int
    available: int | None
    commit: int | None


class Budget(Record):
    """A need, and the room that there is for it."""

    need: Need
    room: Room

    @property
    def pairs(self) -> tuple[tuple[int, int | None], ...]:
        """Each need with its room: memlock, cgroup, memory, overcommit."""
        need, room = self.need, self.room
        return (
            (need.charged, room.memlock),
            (need.fresh, room.cgroup_bytes),
            (need.fresh, room.available),
            (need.mapped, room.commit),
        )

    @property
    def comfortable(self) -> bool:
        """Whether each need fits, a measured one with its margin."""
        return all(fits(with_margin(self.need, size), room) for size, room in self.pairs)


def fits(size: int, room: int | None) -> bool:
    """Tell whether ``size`` bytes go into ``room``; what is not known does not refuse."""
    return room is None or room == UNLIMITED or size <= room


def fits_empty(values: Mapping[str, object]) -> bool:
    """Tell whether a need that was found too large would go into the group if nobody else were."""
    size, limit = values["needed_bytes"], values["limit_bytes"]
    return isinstance(size, int) and isinstance(limit, int) and size <= limit


def with_margin(need: Need, size: int) -> int:
    """Return ``size`` with the margin of what was measured; a lower bound has none."""
    return size + size // MARGIN_SHARE if need.source == FIT else size


# --- what is needed --------------------------------------------------------------------------


def program_bytes(facts: Facts) -> int:
    """Return what the program's own segments take, 0 where nothing is known of them."""
    program = facts.target.program
    return program.elf.load_bytes if program and program.elf else 0


def bss_bytes(facts: Facts) -> int:
    """Return what of the program's segments is new memory, whatever is in the page cache."""
    program = facts.target.program
    return program.elf.bss_bytes if program and program.elf else 0


def is_reached(facts: Facts) -> bool:
    """Tell whether the shim gets into the program: what is not reached is not locked."""
    program = facts.target.program
    return bool(facts.shim and program and program.elf and program.elf.dynamic)


def predict(
    options: Options, facts: Facts, stack_limit: int, thread_stack: int, injected: bool = False
) -> Need:
    """Return the need, of which ``stack_limit`` bounds the stack; a fitted one where it is more.

    ``injected`` tells that no shim is needed.
    """
    reached = injected or is_reached(facts)
    stack = options.prefault_stack if reached else 0
    if stack_limit != UNLIMITED:
        stack = min(stack, stack_limit)
    bss = bss_bytes(facts)
    least = least_need(options if reached else None, program_bytes(facts), stack, bss)
    fitted = options.fitted
    if fitted is None:
        return least
    huge = least.charged - least.locked
    locked = fitted.locked_bytes if options.lock and reached else 0
    resident = fitted.resident_bytes
    if locked <= least.locked and resident <= least.resident:
        return least
    threads = thread_stack * (fitted.threads - 1) if "future" in options.lock else 0
    return Need(
        FIT,
        least.program,
        least.stack,
        least.heap,
        locked=max(locked, least.locked),
        resident=max(resident, least.resident),
        charged=max(locked, least.locked) + huge,
        fresh=max(resident, least.fresh),
        # the stacks of threads that the program makes itself may be smaller; all are locked
        mapped=max(least.mapped, min(least.mapped + threads, locked)),
    )


def least_need(options: Options | None, program: int, stack: int, bss: int = 0) -> Need:
    """Return the lower bound for a program; options are None where no shim will be in it.

    All of it is mapped before mlockall is called: MCL_FUTURE alone locks none of it.
    """
    if options is None:
        return Need(LEAST, program, stack, 0)
    heap = options.heap or 0
    small = 0 if isinstance(options.heap_pages, int) else heap  # huge pages have books of their own
    current, touched = "current" in options.lock, "onfault" not in options.lock
    locked = program + stack + small if current else 0
    bss = bss if current and touched else 0
    return Need(
        LEAST,
        program,
        stack,
        heap,
        locked,
        (program if current and touched else 0) + stack + small,
        locked + (heap - small if current else 0),
        stack + small + bss,
        stack + small + bss,
        bss,
    )


# --- what there is ---------------------------------------------------------------------------


def room_for(need: Need, memlock: int, memory: Memory | None) -> Room:
    """Return the room: ``memlock`` is UNLIMITED for CAP_IPC_LOCK. Errors are on the large side.

    Others' memory may go to swap, and so may the program's own where it is not locked.
    """
    known = memory or Memory()
    mine = 0 if need.locked else known.swap_free
    rooms = [(group.room(known.swap_free) + mine, group) for group in known.cgroups]
    left, tightest = min(rooms, key=lambda pair: pair[0]) if rooms else (UNLIMITED, None)
    return Room(memlock, tightest, left, _available(known), known.commit_left)


def least_room(memory: Memory | None) -> int:
    """Return how much can be found anew, in bytes, by the tightest of all; MOST if unknown."""
    known = memory or Memory()
    rooms = [group.room(known.swap_free) for group in known.cgroups]
    available = _available(known)
    return min(rooms if available is None else [*rooms, available], default=MOST)


def _available(memory: Memory) -> int | None:
    """Return what the machine has left when others' memory goes to swap; None is not known."""
    return None if memory.available is None else memory.available + memory.swap_free


def parse_meminfo(text: str, overcommit: int | None, cgroups: tuple[CgroupLimit, ...]) -> Memory:
    """Return what /proc/meminfo and vm.overcommit_memory say; None for what they do not."""
    commit_left: int | None = UNLIMITED
    if overcommit == STRICT_OVERCOMMIT:
        limit, taken = _meminfo(text, "CommitLimit"), _meminfo(text, "Committed_AS")
        commit_left = None if limit is None or taken is None else max(0, limit - taken)
    return Memory(
        available=_meminfo(text, "MemAvailable"),
        swap_free=_meminfo(text, "SwapFree") or 0,
        commit_left=commit_left,
        cgroups=cgroups,
    )


def _meminfo(text: str, name: str) -> int | None:
    """Return a line of /proc/meminfo, which counts KiB, in bytes."""
    words = text.partition(f"\n{name}:")[2][:32].split(None, 1)[:1]
    return int(words[0]) << 10 if words and words[0].isdecimal() else None
