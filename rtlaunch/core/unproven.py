"""What the proof has against an image, in words and with the numbers that say so.

Whether there is anything is :mod:`rtlaunch.core.proof`'s to judge; this is
imported only once there is.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.proof import limited
from rtlaunch.core.units import format_limit, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.outcome import UnlockedMapping
    from rtlaunch.core.proof import Books

EXEC_UNSEEN = Finding(
    "watch-degraded",
    "an exec of the program would go unseen: perf does not watch it, and it has no free "
    "descriptor for a socket of ours that an exec would close",
    why="what it exec()ed would run unlocked, and lock.ok would still be true",
    values={"why": "no perf, no free descriptor"},
)

EPERM, EAGAIN, ENOMEM, EINVAL, ENFILE, EMFILE, ENOSYS = 1, 11, 12, 22, 23, 24, 38


def still_unlocked(name: str, missing: tuple[UnlockedMapping, ...]) -> Finding:
    """Return the finding for mappings that the books show unlocked or not resident."""
    first = missing[0]
    count = len(missing)
    return Finding(
        "unlocked-mappings",
        f"{name}: {count} mapping{'s' if count != 1 else ''} not locked and resident, the first "
        f"{first.name} at {first.start:#x} ({format_size(first.end - first.start)}, {first.why})",
        why="mlockall returned success, and /proc/PID/smaps says otherwise",
        values={"count": count, "mapping": first.name, "bytes": first.end - first.start},
    )


def lock_failed(name: str, errno: int, books: Books) -> Finding:
    """Say which documented rule was broken (mlockall(2)), in the order the kernel checks them."""
    soft, hard = books.limits["memlock"]
    values = {
        "errno": errno,
        "needed_bytes": books.status.vm_size,
        "soft": soft,
        "hard": hard,
        "seccomp": books.status.seccomp,
    }
    if limited(books) and errno in (EPERM, ENOMEM, EAGAIN):
        return Finding(
            "memlock-limit",
            f"{name} needs at least {format_size(books.status.vm_size)} locked; RLIMIT_MEMLOCK is "
            f"{format_limit('memlock', soft)} ({format_limit('memlock', hard)} hard), "
            + ("no CAP_IPC_LOCK" if books.initial_userns else "no CAP_IPC_LOCK that counts: "
               "this is not the initial user namespace"),
            why="without CAP_IPC_LOCK the kernel locks no more than RLIMIT_MEMLOCK",
            values=values,
        )  # fmt: skip
    if errno in (EPERM, ENOSYS) and books.status.seccomp:
        return Finding(
            "lock-denied",
            f"{name}: mlockall failed with {errno_name(errno)} though limit and capabilities "
            "permit it: a seccomp filter is in force",
            why="a service manager or container runtime forbids the system call",
            values=values,
        )
    if errno in (EMFILE, ENFILE):  # not mlockall's: what it would have been told by was not there
        return Finding(
            "lock-failed",
            f"{name} has no descriptor left to ask rtlaunch what to lock ({errno_name(errno)}); "
            f"RLIMIT_NOFILE is {format_limit('nofile', books.limits['nofile'][0])}",
            why="until main() the shim takes two, besides the one that it inherits",
            values=values,
            set_by="RLIMIT_NOFILE (ulimit -n, LimitNOFILE=, --limit nofile)",
            try_now="grep 'open files' /proc/$$/limits; ls -l /proc/$$/fd",
            for_good="a higher limit, or fewer descriptors that are inherited",
        )
    return Finding(
        "lock-failed",
        f"{name}: locking failed with {errno_name(errno)} (needs "
        f"{format_size(books.status.vm_size)}, RLIMIT_MEMLOCK {format_limit('memlock', soft)})",
        why="neither limit nor capability explains it: memory may be short, or a security module "
        "is in the way",
        values=values,
    )


def no_onfault(name: str, flags: tuple[str, ...], books: Books) -> Finding:
    """Say that MCL_ONFAULT was refused, and that all is locked and in memory instead."""
    shown = ",".join(flags)
    return Finding(
        "lock-onfault",
        f"{name} is locked with {shown}, without onfault: {format_size(books.status.vm_rss)} are "
        f"in memory, of {format_size(books.status.vm_size)} mapped",
        why="mlockall answered MCL_ONFAULT with EINVAL: a kernel before Linux 4.4, or a sandbox "
        "that does as one",
        values={
            "flags": shown,
            "resident_bytes": books.status.vm_rss,
            "mapped_bytes": books.status.vm_size,
        },
    )


ERRNO_NAMES = {
    EPERM: "EPERM",
    EAGAIN: "EAGAIN",
    ENOMEM: "ENOMEM",
    EINVAL: "EINVAL",
    ENOSYS: "ENOSYS",
    ENFILE: "ENFILE",
    EMFILE: "EMFILE",
}


def errno_name(errno: int) -> str:
    """Return the errno's name, or its number."""
    return ERRNO_NAMES.get(errno, f"errno {errno}")


def no_headroom(name: str, room: int, stack: int, books: Books) -> Finding:
    """Warn that ``room`` bytes are left to lock, and a thread's stack takes ``stack``."""
    soft = books.limits["memlock"][0]
    return Finding(
        "memlock-headroom",
        f"{name} is locked, with {format_size(room)} left of RLIMIT_MEMLOCK "
        f"{format_limit('memlock', soft)}; a thread's stack takes {format_size(stack)}",
        why="with MCL_FUTURE a new thread, or a large malloc, is charged whole and fails",
        values={
            "headroom_bytes": room,
            "thread_stack_bytes": stack,
            "soft": soft,
            "hard": books.limits["memlock"][1],
            "needed_bytes": books.status.vm_lck + stack,
        },
    )


def unreadable(name: str, pid: int, error: OSError) -> Finding:
    """Return the finding for a target whose books are closed to us."""
    return Finding(
        "proof-unreadable",
        f"the books of {name}[{pid}] cannot be read: {error.strerror} "
        f"({error.filename or '/proc'})",
        why="without /proc/PID/smaps there is no proof that it is locked",
        values={"pid": pid},
    )


def child_unlocked(name: str, pid: int, how: str, values: Mapping[str, object]) -> Finding:
    """Return the finding for a child that was to be locked, and could not be."""
    return Finding(
        "child-unlocked",
        f"the child {name}[{pid}] runs unlocked: {how}",
        values={"pid": pid, **values},
    )
