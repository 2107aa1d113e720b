"""A process that already runs: whether it may be touched at all, and what its books come down to.

Pure: records of :mod:`rtlaunch.core.proc` in, findings and judgements out. It knows no launch, so
that the remedies for what is found of one are here, not in the launch's table.
"""

from __future__ import annotations

from rtlaunch.core import proof
from rtlaunch.core.findings import Finding
from rtlaunch.core.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rtlaunch.core.outcome import UnlockedMapping
    from rtlaunch.core.proc import Mapping, Stat, Status
    from rtlaunch.core.proof import Books

PF_KTHREAD = 0x200000  # include/linux/sched.h
INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # include/uapi/linux/nsfs.h: its inode number
FLAG_NUMBERS = {"current": 1, "future": 2, "onfault": 4}  # mlockall(2)

# VM_LOCKONFAULT in smaps: its own letters since Linux 6.9, no letters before (fs/proc/task_mmu.c).
_LAZY = frozenset(("lf", "??"))


class Caller(Record):
    """Who asks: our pid, and the inode number of our pid namespace."""

    pid: int
    pid_namespace: int


def unsuitable(status: Status, stat: Stat) -> Finding | None:
    """Return why a process is none that can be locked; None if it is."""
    pid = status.pid
    if status.tgid not in (0, pid):
        return _unfit(pid, f"{pid} is a thread of process {status.tgid}", instead=status.tgid)
    if stat.state in "ZX":
        return Finding(
            "process-missing",
            f"process {pid} ({status.name}) has ended, and waits for process {status.ppid} to "
            "collect it",
            why="a zombie has no memory",
            values={"pid": pid, "parent": status.ppid},
        )
    if stat.flags & PF_KTHREAD:
        return _unfit(pid, f"{pid} ({status.name}) is a thread of the kernel, whose memory is "
                           "never swapped")  # fmt: skip
    return None


def untouchable(status: Status, caller: Caller) -> Finding | None:
    """Return why a process must not be stopped; None if it may."""
    if status.pid == caller.pid:
        return _unfit(status.pid, f"{status.pid} is this very rtlaunch")
    if status.pid == 1 and caller.pid_namespace == INITIAL_PID_NAMESPACE:
        return _unfit(1, "1 is the machine's init, whose end is the machine's")
    return None


def _unfit(pid: int, what: str, **more: object) -> Finding:
    return Finding(
        "process-unsuitable",
        what,
        why="only a process of its own memory can be locked",
        values={"pid": pid, **more},
    )


# --- its books -------------------------------------------------------------------------------


def unlocked_mappings(
    books: Books, file_bytes: Callable[[Mapping], int | None]
) -> tuple[UnlockedMapping, ...]:
    """Return what is not locked, or locked and not in memory, unless it was locked on fault."""
    lazy = tuple(each for each in books.mappings if each.flags & _LAZY)
    eager = tuple(each for each in books.mappings if not each.flags & _LAZY)
    found = (
        *_unlocked(("current",), replace(books, mappings=eager), file_bytes),
        *_unlocked(("current", "onfault"), replace(books, mappings=lazy), file_bytes),
    )
    return tuple(sorted(found, key=lambda each: each.start))


_unlocked = proof.unlocked_mappings


def still_missing(
    one: tuple[UnlockedMapping, ...], other: tuple[UnlockedMapping, ...]
) -> tuple[UnlockedMapping, ...]:
    """Return what two readings have in common.

    A new mapping carries its lock from the start and its pages a moment later (mm/util.c,
    vm_mmap_pgoff): read in between, it only looks as if it were missing.
    """
    before = {(each.start, each.end, each.why) for each in one}
    return tuple(each for each in other if (each.start, each.end, each.why) in before)


def flag_bits(flags: tuple[str, ...]) -> int:
    """Return mlockall's flags as a number."""
    return sum(FLAG_NUMBERS[flag] for flag in flags)


# --- remedies --------------------------------------------------------------------------------

# code: (set by, try now, for good), for a process that rtlaunch did not start.
_REMEDIES = {
    "memlock-limit": (
        "RLIMIT_MEMLOCK of process %(pid)s, inherited from what started it",
        "sudo prlimit --pid %(pid)s --memlock=unlimited && %(line)s",
        "LimitMEMLOCK=infinity, or memlock in limits.d, where it is started; or rtlaunch -- ...",
    ),
    "memlock-headroom": (
        "RLIMIT_MEMLOCK of process %(pid)s",
        "sudo prlimit --pid %(pid)s --memlock=unlimited",
        "LimitMEMLOCK=infinity, or memlock in limits.d, where it is started",
    ),
    "lock-denied": (
        "a seccomp filter on process %(pid)s, most likely",
        "sudo %(line)s   # from outside of the filter, which is then suspended",
        "let mlockall and munlockall through that filter",
    ),
    "lock-failed": (
        "the kernel, for a reason that neither limit nor capability explains",
        "grep -E 'MemAvailable|Mlocked' /proc/meminfo",
        "free memory, or lock less: --lock future",
    ),
    "unlocked-mappings": (
        "what process %(pid)s maps, unlocks or gives back by itself",
        "rtlaunch status %(pid)s",
        "lock it from its start: rtlaunch -- COMMAND",
    ),
    "proof-unreadable": (
        "/proc/%(pid)s: another user's, undumpable, hidepid, or a security module",
        "sudo %(line)s",
        "run it as the user of that process, or with CAP_SYS_PTRACE",
    ),
}


def with_remedy(finding: Finding, pid: int, line: str) -> Finding:
    """Return ``finding`` with what to do about it; ``line`` is the command line that was typed."""
    row = _REMEDIES.get(finding.code)
    if row is None:
        return finding
    names = {"pid": pid, "line": line}
    set_by, try_now, for_good = (template % names for template in row)
    return replace(finding, set_by=set_by, try_now=try_now, for_good=for_good)
