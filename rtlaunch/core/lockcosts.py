"""What each form of ``--lock`` costs, in sentences that ``plan`` prints below the lock.

Pure. The figures that are not the launch's own were measured; the tests that measure them
are tests/kernel/test_lock_forms.py, test_thread_stack.py and test_thp.py.
"""

from __future__ import annotations

from rtlaunch.core.units import format_size

NOTHING = "nothing is locked: any page may be taken away and fault when it is used again"

BEFORE = {
    "populated": "what is mapped at main() is read in whole before it: the start takes as long, "
    "and VmRSS nears VmSize",
    "onfault": "what is mapped at main() is locked as it is touched: the first touch of each page "
    "faults, from disk if it has to",
    "unlocked": "what is mapped at main(), code and libraries too, is not locked and may fault; "
    "there is nothing to prove before main()",
}
AFTER = {
    "populated": "what is mapped later is populated when it is mapped, in the time of whoever "
    "maps it, and with small pages: a later madvise(MADV_HUGEPAGE) gets 0 of 64 MiB",
    "onfault": "what is mapped later faults once for each page, when it is touched; huge pages "
    "can still be had",
    "unlocked": "what is mapped later is not locked: new heap, stacks of threads and files fault "
    "and may be taken away",
}
CHARGE = (
    "without CAP_IPC_LOCK each later mapping is charged whole against RLIMIT_MEMLOCK when it is "
    "made, touched or not: a thread costs its stack of %s, and under glibc up to 64 MiB of arena "
    "(8 idle threads by default: VmLck 592 MB, VmRSS 69 MB)"
)


def costs(flags: tuple[str, ...], thread_stack_bytes: int) -> tuple[str, ...]:
    """Return what these mlockall flags cost; a thread's stack is of that many bytes."""
    if not flags:
        return (NOTHING,)
    how = "onfault" if "onfault" in flags else "populated"
    before = BEFORE[how if "current" in flags else "unlocked"]
    after = AFTER[how if "future" in flags else "unlocked"]
    charge = (CHARGE % format_size(thread_stack_bytes),) if "future" in flags else ()
    return (before, after, *charge)
