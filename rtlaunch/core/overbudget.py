"""What does not fit a launch's budget, in words and with the numbers that say so.

Whether there is anything is :mod:`rtlaunch.core.budget`'s to tell; this is
imported only once there is.
"""

from __future__ import annotations

from rtlaunch.core.budget import FIT, fits, program_bytes, with_margin
from rtlaunch.core.findings import Finding
from rtlaunch.core.units import format_limit, format_size, spell_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtlaunch.core.budget import Budget, Need
    from rtlaunch.core.facts import Facts

MIB = 1 << 20

# What is advised is this much more than what is needed: a quarter.
SPARE_SHARE = 4


def findings(budget: Budget, facts: Facts) -> Iterator[Finding]:
    """Yield a finding for each room that is too small, else the first that is nearly so."""
    checks = (over_memlock, over_cgroup, over_memory, over_commit)
    refused = False
    for check, (size, room) in zip(checks, budget.pairs, strict=True):
        if not fits(size, room):
            refused = True
            yield from check(budget, facts)
    if not refused:
        yield from near(budget, facts)


def over_memlock(budget: Budget, facts: Facts) -> Iterator[Finding]:
    """Find more to lock than the limit allows; of the program alone memlock-limit says it."""
    need, soft = budget.need, budget.room.memlock
    if soft < max(program_bytes(facts), 1):
        return
    hard = facts.limits["memlock"].hard
    yield Finding(
        "memlock-budget",
        f"{facts.target.command} needs {told(need, need.charged)} locked{because(need, True)}; "
        f"RLIMIT_MEMLOCK is {format_size(soft)} (hard {format_limit('memlock', hard)}), "
        "no CAP_IPC_LOCK",
        why="past the limit the lock fails, or under MCL_FUTURE the program's own next mmap, "
        "malloc or thread",
        values={
            "needed_bytes": need.charged,
            "soft": soft,
            "hard": hard,
            "from": need.source,
            **smaller_heap(need, need.charged - soft),
        },
    )


def over_cgroup(budget: Budget, facts: Facts) -> Iterator[Finding]:
    """Find more than a memory cgroup, ours or one above it, has left once all cache is dropped."""
    need, group, left = budget.need, budget.room.cgroup, budget.room.cgroup_bytes
    if group is None:
        return
    yield Finding(
        "cgroup-budget",
        f"{facts.target.command} needs {told(need, need.fresh)} of memory{because(need)}; the "
        f"memory cgroup {group.folder} has {format_size(left)} left of {format_size(group.limit)}",
        why="locked pages cannot be reclaimed; over the limit the kernel kills the program "
        "(SIGKILL, exit 137)",
        values={
            "needed_bytes": need.fresh,
            "room_bytes": left,
            "limit_bytes": group.limit,
            "cgroup": group.folder,
            "from": need.source,
            "enough": enough(need.fresh + group.limit - left),
            **smaller_heap(need, need.fresh - left),
        },
    )


def over_memory(budget: Budget, facts: Facts) -> Iterator[Finding]:
    """Find more than the machine has left; of more than it ever has heap-too-large says it."""
    need, available = budget.need, budget.room.available or 0
    if facts.heap and 0 < facts.heap.total_bytes < need.heap:
        return
    swap = facts.memory.swap_free if facts.memory else 0
    yield Finding(
        "memory-budget",
        f"{facts.target.command} needs {told(need, need.fresh)} of memory{because(need)}; "
        f"{format_size(available)} {'is' if not swap else 'with swap is'} available",
        why="locked pages cannot be reclaimed; when memory is out, the kernel kills some program",
        values={
            "needed_bytes": need.fresh,
            "available_bytes": available,
            "from": need.source,
            **smaller_heap(need, need.fresh - available),
        },
    )


def over_commit(budget: Budget, facts: Facts) -> Iterator[Finding]:
    """Find more than strict overcommit lets anybody map."""
    need, left = budget.need, budget.room.commit or 0
    yield Finding(
        "overcommit-limit",
        f"{facts.target.command} maps {told(need, need.mapped)}{because(need)}; "
        f"vm.overcommit_memory is 2 and leaves {format_size(left)}",
        why="beyond CommitLimit mmap and brk fail (ENOMEM), whether the memory is used or not",
        values={
            "needed_bytes": need.mapped,
            "room_bytes": left,
            "from": need.source,
            **smaller_heap(need, need.mapped - left),
        },
    )


def near(budget: Budget, facts: Facts) -> Iterator[Finding]:
    """Warn of what was measured, fits, and leaves less than the margin: the tightest of them."""
    need, room = budget.need, budget.room
    group = f"the memory cgroup {room.cgroup.folder} leaves" if room.cgroup else ""
    names = ("RLIMIT_MEMLOCK is", group, "available memory is", "strict overcommit leaves")
    tight = [
        (left - size, size, left, name)
        for (size, left), name in zip(budget.pairs, names, strict=True)
        if left is not None and not fits(with_margin(need, size), left)
    ]
    if tight:
        _, size, left, name = min(tight)
        yield Finding(
            "budget-margin",
            f"{facts.target.command} needs {told(need, size)}{because(need)}; "
            f"{name} {format_size(left)}",
            why="the next run may take some pages more than the one that was measured",
            values={
                "needed_bytes": size,
                "room_bytes": left,
                "from": need.source,
                "enough": enough(size),
            },
        )


def told(need: Need, size: int) -> str:
    """Return a need's size, which is a lower bound or was measured."""
    return format_size(size) if need.source == FIT else f"at least {format_size(size)}"


def because(need: Need, with_program: bool = False) -> str:
    """Say in brackets where a need comes from."""
    if need.source == FIT:
        return " (measured by fit)"
    own = ("program", need.program) if with_program else ("zeroed data", need.bss)
    parts = (own, ("stack", need.stack), ("heap", need.heap))
    shown = [f"{name} {format_size(size)}" for name, size in parts if size]
    return f" ({', '.join(shown)})"


def smaller_heap(need: Need, over: int) -> dict[str, object]:
    """Return a heap that would fit and leave some room beside it, in whole MiB, if there is one."""
    fitting = (need.heap - over) * (SPARE_SHARE - 1) // SPARE_SHARE // MIB * MIB
    return {"fitting_heap": spell_size(fitting)} if fitting > 0 else {}


def enough(size: int) -> str:
    """Return a limit that suffices for ``size``, in whole MiB, as docker and systemd take it."""
    return spell_size(-(-(size + size // SPARE_SHARE) // MIB) * MIB)
