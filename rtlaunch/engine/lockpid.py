"""Locking, and unlocking, a process that already runs: the story of ``rtlaunch lock PID``.

    look    its books, without smaps; refuse what cannot be
    make    room for the lock in its limit, and the stack grown, both from outside
    stop    one thread, for mlockall (:mod:`rtlaunch.engine.attach`)
    prove   by the kernel's books, as after a launch

What was raised is put back if the lock fails. Nothing of ours stays in the process.
"""

from __future__ import annotations

import time

from rtlaunch.core import blocked, limits, proof, running, tracee, unproven
from rtlaunch.core import outcome as report
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.proc import UNLIMITED, parse_maps
from rtlaunch.engine import attach, reading
from rtlaunch.linux import proc, rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtlaunch.core.outcome import Outcome
    from rtlaunch.core.proof import Books

MADV_POPULATE_WRITE = 23  # Linux 5.14


def lock(
    pid: int, flags: tuple[str, ...], stack_bytes: int, outcome: Outcome
) -> tuple[Finding, ...]:
    """Lock ``pid`` and write what came of it into the outcome; return the warnings.

    Refusal where it cannot be locked, or is not afterwards, by the kernel's books.
    """
    books = _begin(pid, outcome)
    outcome.lock.flags = flags
    raised = _make_room(pid, books)
    try:
        bottom, top = _grow_stack(pid, books, stack_bytes)
        wishes: list[attach.Wish] = [("mlockall", (running.flag_bits(flags),))]
        if bottom < top and ("current" not in flags or "onfault" in flags):
            wishes.append(("madvise", (bottom, top - bottom, MADV_POPULATE_WRITE)))
        _make(pid, outcome, books, wishes)
    except Refusal:
        if raised:
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


def _make_room(pid: int, books: Books) -> bool:
    """Raise RLIMIT_MEMLOCK as ``--memlock max`` does, if it applies; tell whether it was changed.

    The lock is the judge: what may not be raised is no error.
    """
    if not proof.limited(books):
        return False
    soft, hard = books.limits["memlock"]
    for wanted in (limits.Limit(UNLIMITED, UNLIMITED), limits.Limit(hard, hard)):
        if wanted == limits.Limit(soft, hard):
            return False
        try:
            rlimit.put_of(pid, "memlock", wanted)
        except OSError:
            continue
        return True
    return False


def _put_back(pid: int, books: Books) -> None:
    try:
        rlimit.put_of(pid, "memlock", limits.Limit(*books.limits["memlock"]))
    except OSError:  # it ended
        return


def _grow_stack(pid: int, books: Books, stack_bytes: int) -> tuple[int, int]:
    """Make the main stack reach ``stack_bytes`` below its pointer; return what is new of it.

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
        if bottom >= stack.start:
            return stack.start, stack.start
        proc.read_memory(pid, bottom, 1)
    except OSError:  # its limit, or no such right: the lock will tell
        return 0, 0
    return bottom, stack.start


# --- the stop --------------------------------------------------------------------------------


def _make(pid: int, outcome: Outcome, books: Books, wishes: Sequence[attach.Wish]) -> None:
    """Make the calls, and note how long they and the stop took; Refusal if the first fails."""
    starttime = reading.suitable(pid).starttime
    made = attach.make_calls(pid, starttime, wishes)
    if isinstance(made, Finding):
        raise Refusal(made)
    lock_of = outcome.lock
    lock_of.via, lock_of.why = "ptrace", "it runs already"
    lock_of.lock_ns, lock_of.stopped_ns = made.call_ns[0], made.stopped_ns
    errno = tracee.errno_of(made.results[0])
    if errno:
        lock_of.errno = errno
        raise Refusal(unproven.lock_failed(_name(books), errno, reading.read_books(pid, False)))
