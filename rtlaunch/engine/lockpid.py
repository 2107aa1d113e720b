"""Locking, and unlocking, a process that already runs: the story of ``rtlaunch lock PID``.

    look    its books, without smaps; refuse what cannot be
    make    room for the lock in its limit, and the stack grown, both from outside
    stop    one thread, for mlockall (:mod:`rtlaunch.engine.attach`)
    prove   by the kernel's books, as after a launch

What was raised is put back if the lock fails. Nothing of ours stays in the process.
"""

from __future__ import annotations

import sys
import time

from rtlaunch.core import blocked, limits, proof, running, tracee, unproven
from rtlaunch.core import outcome as report
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.numbers import RLIMIT_NUMBERS, UNLIMITED
from rtlaunch.core.proc import parse_maps
from rtlaunch.engine import attach, reading
from rtlaunch.linux import proc, rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtlaunch.core.outcome import Outcome
    from rtlaunch.core.proof import Books
    from rtlaunch.engine.steering import Wish

MADV_POPULATE_WRITE = 23  # Linux 5.14


def lock(
    pid: int, flags: tuple[str, ...], stack_bytes: int, outcome: Outcome
) -> tuple[Finding, ...]:
    """Lock ``pid`` and write what came of it into the outcome; return the warnings.

    Refusal where it cannot be locked, or is not afterwards, by the kernel's books.
    """
    books = _begin(pid, outcome)
    outcome.lock.flags = flags
    room = _make_room(pid, books)
    try:
        bottom, top = _grow_stack(pid, books, stack_bytes)
        wishes = [*room, ("mlockall", (running.flag_bits(flags),))]
        if bottom < top and ("current" not in flags or "onfault" in flags):
            wishes.append(("madvise", (bottom, top - bottom, MADV_POPULATE_WRITE)))
        _make(pid, outcome, books, wishes)
    except Refusal:
        _put_back(pid, books)
        raise
    outcome.lock.stack_bytes = top - bottom
    after = reading.read_settled(pid, outcome)
    name = _name(books)
    missing = tuple(outcome.lock.unlocked_mappings)
    if missing and "current" in flags:
        raise Refusal(unproven.still_unlocked(name, missing))
    return tuple(proof.memlock_headroom(name, flags, after))


def unlock(pid: int, outcome: Outcome) -> tuple[Finding, ...]:
    """Unlock ``pid``; Refusal where it cannot be stopped, or still holds locks."""
    books = _begin(pid, outcome)
    _make(pid, outcome, books, [("munlockall", ())])
    after = reading.read(pid, outcome)
    if after.status.vm_lck:
        raise Refusal(
            Finding(
                "attach-failed",
                f"{_name(books)} still has {after.status.vm_lck} bytes locked: it locks by itself",
                why="munlockall returned success, and the kernel's books say otherwise",
                values={"pid": pid, "locked_bytes": after.status.vm_lck},
            )
        )
    return ()


def _begin(pid: int, outcome: Outcome) -> Books:
    """Return the books of a process that may be touched; note its limits as they were."""
    outcome.time.started_at, outcome.time.monotonic_ns = time.time_ns(), time.monotonic_ns()
    outcome.target.pid = pid
    reading.suitable(pid, to_touch=True)
    books = reading.read_books(pid, mapped=False)
    outcome.limits = {name: report.Limit(before=pair) for name, pair in books.limits.items()}
    return books


def _name(books: Books) -> str:
    return f"{books.status.name}[{books.status.pid}]"


# --- room ------------------------------------------------------------------------------------


def _make_room(pid: int, books: Books) -> list[Wish]:
    """Raise RLIMIT_MEMLOCK as ``--memlock max`` does, if it applies; the lock is the judge.

    Where we may not, as root without CAP_SYS_RESOURCE for another user's process, the process
    itself still may raise its soft limit: the call for that is returned.
    """
    soft, hard = books.limits["memlock"]
    if not proof.limited(books):
        return []
    if _put(pid, UNLIMITED, UNLIMITED) or soft == hard or _put(pid, hard, hard):
        return []
    return [_own_limit(hard, hard)]


def _put_back(pid: int, books: Books) -> None:
    """Put the limit back to what it was, if it is not so any more."""
    wanted = books.limits["memlock"]
    try:
        now = reading.read_books(pid, mapped=False).limits["memlock"]
        if now != wanted and not _put(pid, *wanted):
            attach.make_calls(pid, reading.suitable(pid).starttime, [_own_limit(*wanted)])
    except Refusal:  # it ended
        return


def _put(pid: int, soft: int, hard: int) -> bool:
    try:
        rlimit.put_of(pid, "memlock", limits.Limit(soft, hard))
    except OSError:
        return False
    return True


def _own_limit(soft: int, hard: int) -> Wish:
    """Return the call by which a process sets its own limit: struct rlimit64 of prlimit(2)."""
    raw = b"".join((value % (1 << 64)).to_bytes(8, sys.byteorder) for value in (soft, hard))
    return "prlimit64", (0, RLIMIT_NUMBERS["memlock"], raw, 0)


def _grow_stack(pid: int, books: Books, stack_bytes: int) -> tuple[int, int]:
    """Make the main stack reach ``stack_bytes`` below its pointer; return that stretch.

    A read through /proc/PID/mem grows it, and nothing need be stopped for that. The pointer is
    known of a main thread that sleeps; of one that runs, the lowest page so far stands for it.
    """
    if not stack_bytes:
        return 0, 0
    try:
        mappings = parse_maps(proc.read_text(pid, "maps"))
        stack = next((each for each in mappings if each.path == "[stack]"), None)
        if stack is None:
            return 0, 0
        call = blocked.parse_call(proc.read_text(pid, f"task/{pid}/syscall"))
        sp = call.sp if call and stack.start <= call.sp < stack.end else stack.start
        floor = proof.stack_floor(mappings, books.limits["stack"][0], books.page_bytes)
        bottom = max(sp - stack_bytes, floor) & -books.page_bytes
        if bottom < stack.start:
            proc.read_memory(pid, bottom, 1)
    except OSError:  # its limit, or no such right: the lock will tell
        return 0, 0
    return bottom, max(bottom, sp & -books.page_bytes)


# --- the stop --------------------------------------------------------------------------------


def _make(pid: int, outcome: Outcome, books: Books, wishes: Sequence[Wish]) -> None:
    """Make the calls, and note how long they and the stop took; Refusal if the lock fails.

    The lock is the call that comes first but for the room made for it.
    """
    starttime = reading.suitable(pid).starttime
    made = attach.make_calls(pid, starttime, wishes)
    if isinstance(made, Finding):
        raise Refusal(made)
    at = min(sum(name == "prlimit64" for name, _ in wishes), len(made.results) - 1)
    lock_of = outcome.lock
    lock_of.via, lock_of.why = "ptrace", "it runs already"
    lock_of.lock_ns, lock_of.stopped_ns = made.call_ns[at], made.stopped_ns
    errno = tracee.errno_of(made.results[at])
    if errno:
        lock_of.errno = errno
        now = reading.read_books(pid, mapped=False)
        raise Refusal(unproven.lock_failed(_name(books), errno, now))
