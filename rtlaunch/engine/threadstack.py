"""Giving back the stack limit that sized the threads' stacks, image by image.

What to restore is decided when an image stands before main(), by the limit that the kernel has
in its books: an image of the target that began with the small one gets the large one back,
unless all it does is to exec the next. Imported only for ``--thread-stack``; what the rules are
is :mod:`rtlaunch.core.threadstack`'s.
"""

from __future__ import annotations

import os

from rtlaunch.core import threadstack
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.proc import parse_limits
from rtlaunch.core.proof import thread_stack_bytes
from rtlaunch.linux import proc, rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Facts
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options
    from rtlaunch.core.proof import Books
    from rtlaunch.engine.handshake import Conversation
    from rtlaunch.engine.inject import Injection


def look(conversation: Conversation | Injection, options: Options, facts: Facts) -> None:
    """Note the limit that an image began with, and the one that its shim shall restore."""
    pid = conversation.pid
    try:
        soft, hard = parse_limits(proc.read_text(pid, "limits"))["stack"]
    except OSError:
        return  # it ended
    asked = threadstack.asked_bytes(options, facts)
    conversation.stack_at_exec = soft
    if soft != asked or threadstack.is_kept(asked, soft, program(pid)):
        return
    conversation.stack_restored = restorable(options, facts, hard)


def restorable(options: Options, facts: Facts, hard: int) -> int:
    """Return the soft limit to restore as struct rlimit64 has it; no more than the hard one."""
    meant = threadstack.restored(options, facts)
    return meant if hard == UNLIMITED else min(meant, hard)


def findings(
    conversation: Conversation | Injection,
    options: Options,
    facts: Facts,
    name: str,
    books: Books,
) -> list[Finding]:
    """Find an image whose threads get other stacks, and one whose main stack stayed small."""
    asked, began = threadstack.asked_bytes(options, facts), conversation.stack_at_exec
    wraps = program(conversation.pid) in threadstack.WRAPPERS
    restored, soft = conversation.stack_restored, books.limits["stack"][0]
    if restored and soft != threadstack.as_limit(restored):
        return [threadstack.unrestored(name, soft, restored)]
    if began is not None and began != asked and not wraps:
        return [threadstack.lost(name, asked, thread_stack_bytes(books, began))]
    return []


def give_back(pid: int, options: Options, facts: Facts) -> None:
    """Restore the limit from outside, where an image has no shim that would.

    The kernel lets us do that to a process of our own user's; elsewhere it stays small, and
    that the image runs without the shim is said anyway.
    """
    try:
        soft, hard = parse_limits(proc.read_text(pid, "limits"))["stack"]
        if soft == threadstack.asked_bytes(options, facts):
            meant = restorable(options, facts, hard)
            rlimit.put_soft_of(pid, "stack", threadstack.as_limit(meant))
    except OSError:
        return


def program(pid: int) -> str:
    """Return the file name of the image that a process runs; "" where it may not be seen."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""
