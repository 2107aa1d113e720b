"""The default size of a thread's stack, set from outside: when it can be had, and when it was lost.

glibc takes the soft RLIMIT_STACK that it finds at its start for the size of a thread's stack
(nptl/pthread_early_init.h), and the kernel takes the one in force for how far the main stack
may grow. So the limit is small during exec only: the shim restores it before main()
(docs/decisions/0022).

Pure, and imported only for ``--thread-stack``. Who sets and who restores is elsewhere:
:mod:`rtlaunch.engine.apply`, native/shim.c.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.units import format_limit, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.limits import Limit
    from rtlaunch.core.options import Options

# PTHREAD_STACK_MIN, which glibc takes in place of a smaller limit (bits/pthread_stack_min.h).
LEAST_BYTES = {"aarch64": 128 << 10}
LEAST_ELSEWHERE = 16 << 10

# fs/exec.c, bprm_stack_limits: strings and pointers may take a quarter of the limit, but 128 KiB
# in any case and 6 MiB at most.
STRINGS_LEAST, STRINGS_MOST = 128 << 10, 6 << 20
POINTER_BYTES = 8

INFINITE = 2**64 - 1  # RLIM64_INFINITY

# What we add to the environment: LD_PRELOAD, _RTL_CHANNEL and the account's variables.
OURS_BYTES = 1 << 10

# What the kernel, ld.so and the libraries' constructors need before the shim restores the limit.
# 12 KiB do for most programs, 40 for a Java one.
LOADER_BYTES = 32 << 10

# Programs that do nothing but exec another one: they start no thread, and if the small limit is
# left to them, the next image begins with it. Shells are none: what they fork would inherit it.
WRAPPERS = frozenset(
    (
        "chrt", "choom", "env", "i386", "ionice", "linux32", "linux64", "nice", "nohup", "numactl",
        "setarch", "setpriv", "stdbuf", "taskset", "x86_64",
    )
)  # fmt: skip


def rounded(size: int, page_bytes: int) -> int:
    """Return the stack that ``size`` comes to: whole pages, as glibc rounds its limit."""
    return -(-size // page_bytes) * page_bytes


def asked_bytes(options: Options, facts: Facts) -> int:
    """Return ``--thread-stack`` in whole pages, 0 where it was not given."""
    return rounded(options.thread_stack or 0, facts.host.page_bytes)


def limit_after(options: Options, facts: Facts) -> Limit:
    """Return the stack limit that main() will see: that of ``--limit stack``, or ours."""
    from rtlaunch.core.limits import Limit, demand

    limit = facts.limits["stack"]
    for ask in options.limit:
        if ask.name == "stack":
            limit = demand(ask.name, ask.soft, ask.hard, limit).after
    return Limit(limit.soft, limit.hard)


def restored(options: Options, facts: Facts) -> int:
    """Return the soft limit that the shim restores, as struct rlimit64 has it."""
    soft = limit_after(options, facts).soft
    return INFINITE if soft == UNLIMITED else soft


def as_limit(value: int) -> int:
    """Return a limit of struct rlimit64 as everything of ours has it."""
    return UNLIMITED if value == INFINITE else value


# ---------------------------------------------------------------- before the launch


def findings(options: Options, facts: Facts, unreached: bool) -> Iterator[Finding]:
    """Find what keeps threads from getting stacks of that size.

    ``unreached`` tells that no shim gets into the program, which would restore the limit.
    """
    asked = asked_bytes(options, facts)
    yield from _unsupported(facts, asked, unreached)
    yield from _wrong_size(facts, asked, limit_after(options, facts).hard)
    yield from _no_room(facts, asked)


def _unsupported(facts: Facts, asked: int, unreached: bool) -> Iterator[Finding]:
    program = facts.target.program
    elf = program.elf if program else None
    name = facts.target.command
    size = format_size(asked)
    if elf and elf.interp and b"ld-musl" in elf.interp:
        what = f"{name} is linked against musl, whose threads would not get stacks of {size}"
        why = "musl ignores RLIMIT_STACK: its default is 128 KiB, or what PT_GNU_STACK of the "
        why += "program says (ld -z stack-size=N)"
        libc = "musl"
    elif unreached:
        what = f"{name} would keep a main stack of {size}: the shim does not get into it"
        why = "the limit that sizes thread stacks at the start also ends the main stack, and the "
        why += "shim is what restores it"
        libc = ""
    else:
        return
    yield Finding("thread-stack-unsupported", what, why, {"asked_bytes": asked, "libc": libc})


def least_bytes(facts: Facts) -> int:
    """Return the smallest stack that glibc gives a thread of the target."""
    machine = facts.target.machine or facts.host.arch
    known = LEAST_BYTES.get(machine, LEAST_ELSEWHERE)
    return max(known, facts.shape.thread_stack_least if facts.shape else 0)


def _wrong_size(facts: Facts, asked: int, hard: int) -> Iterator[Finding]:
    least = least_bytes(facts)
    if asked < least:
        what = f"--thread-stack {format_size(asked)} is below the least that the C library gives "
        what += f"a thread here, {format_size(least)}"
        why = "glibc would take its minimum without a word (PTHREAD_STACK_MIN)"
    elif hard not in (UNLIMITED, asked) and asked > hard:
        what = f"--thread-stack {format_size(asked)} is above the hard RLIMIT_STACK, "
        what += format_limit("stack", hard)
        why = "the size is set as the soft limit, which the hard one bounds (setrlimit(2))"
    else:
        return
    values = {"asked_bytes": asked, "least_bytes": least, "hard": hard}
    yield Finding("thread-stack-size", what, why, values)


def strings_bytes(facts: Facts) -> int:
    """Return how much stack arguments and environment take, with their pointers."""
    texts = [facts.target.path, *facts.target.argv]
    texts += [f"{name}={value}" for name, value in facts.environ.items()]
    lengths = (len(text.encode("utf-8", "surrogateescape")) for text in texts)
    return sum(lengths) + len(texts) * (1 + POINTER_BYTES) + OURS_BYTES


def _no_room(facts: Facts, asked: int) -> Iterator[Finding]:
    needed = strings_bytes(facts)
    allowed = max(STRINGS_LEAST, min(asked // 4, STRINGS_MOST))
    room = max(0, min(allowed, asked - LOADER_BYTES))
    if needed <= room:
        return
    yield Finding(
        "thread-stack-arguments",
        f"arguments and environment take {format_size(needed)}; with --thread-stack "
        f"{format_size(asked)} there is room for {format_size(room)}",
        why="until the shim restores it, that limit is the main stack's: the kernel lets them "
        "take a quarter of it, or 128 KiB, and the loader needs some more",
        values={"asked_bytes": asked, "needed_bytes": needed, "room_bytes": room},
    )


# ---------------------------------------------------------------- as the image stands


def is_kept(asked: int, soft: int, program: str) -> bool:
    """Tell whether an image keeps the small limit: one that only execs the next, and has it."""
    return soft == asked and program in WRAPPERS


def lost(name: str, asked: int, got: int) -> Finding:
    """Say that an image's threads have another default stack, by the limit that it began with."""
    return Finding(
        "thread-stack-lost",
        f"threads of {name} get stacks of {format_size(got)} by default, not {format_size(asked)}",
        why="a program before it in the chain was given its stack limit back, and exec()ed it",
        values={"asked_bytes": asked, "thread_stack_bytes": got, "program": name},
    )


def unrestored(name: str, soft: int, meant: int) -> Finding:
    """Say that the main stack is still as small as a thread's."""
    was = format_limit("stack", as_limit(meant))
    return Finding(
        "stack-unrestored",
        f"the soft RLIMIT_STACK of {name} is still {format_limit('stack', soft)}, not {was}",
        why="the shim could not restore it (prlimit(2)), and the main stack ends there",
        values={"soft": soft, "limit": "stack"},
    )
