"""What ``rtlaunch fit`` found, for people and as JSON.

Pure; what is recommended was decided by :mod:`rtlaunch.core.fitting`.
"""

from __future__ import annotations

from rtlaunch.core import fitting
from rtlaunch.core.argv import quoted
from rtlaunch.core.printable import one_line
from rtlaunch.core.units import format_size, format_time, spell_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rtlaunch.core.fitting import Found

SCHEMA = "rtlaunch.fit/1"
COLUMN = 16
NUMBERS = "  {:<26}{:>12}{:>14}"
MOST_CANDIDATES = 8
STACK_OVERFLOW = 128 + 11  # SIGSEGV


def lines(found: Found) -> list[str]:
    """Return what people read: what was seen, what each lock takes, what is recommended."""
    return [
        *_measured(found),
        "",
        NUMBERS.format("at its peak, with --lock", "locked", "in memory"),
        *_needs(found),
        "",
        *_recommended(found),
    ]


def _row(name: str, text: str) -> str:
    return f"  {name:<{COLUMN}}{one_line(text)}"


def _measured(found: Found) -> Iterator[str]:
    course = found.course
    name, ran = quoted(found.command[:1]), format_time(_tenths(found))
    yield f"rtlaunch: measured {name}, unlocked, for {ran}; {_end(found)}"
    yield _row("main stack", f"{format_size(course.main_depth)} deep")
    yield _row("threads", _threads(found))
    rest = format_size(course.anonymous)
    yield _row("heap", f"{format_size(course.heap)} at most, and {rest} of other anonymous memory")
    runtime = f", in a program of {found.runtime}" if found.runtime else ""
    yield _row("allocator", f"{found.allocator}{runtime}")
    for candidate in course.candidates[:MOST_CANDIDATES]:
        used = f"{format_size(candidate.resident)} in use of {format_size(candidate.size)}"
        yield _row("huge pages for", f"{candidate.name} at {candidate.start:x}: {used}")
    if course.others:
        yield _row("children", f"{format_size(course.others)} of their own")
    if course.unseen:
        yield _row("between looks", f"{format_size(course.unseen)} more were mapped for a moment "
                   "(VmPeak); counted as locked and filled")  # fmt: skip
    if not found.traced:
        yield _row("its end", "could not be looked at (ptrace is denied)")


def _tenths(found: Found) -> int:
    """Return the time that it ran, in ns, to a tenth of a second where it is longer."""
    unit = 100_000_000 if found.run_ns > 1_000_000_000 else 1_000_000
    return found.run_ns // unit * unit


def _end(found: Found) -> str:
    if found.stopped:
        return f"ended by SIGTERM after that, exit code {found.ended}"
    if found.ended == STACK_OVERFLOW and found.default_stack == fitting.MEASURED_STACK:
        again = "rtlaunch fit --thread-stack inherit"
        bad = f"; stacks of threads were {format_size(found.default_stack)}: {again} leaves them"
    else:
        bad = " (a run that failed may need less than one that does not)" if found.ended else ""
    return f"exit code {found.ended}{bad}"


def _threads(found: Found) -> str:
    course = found.course
    told = f"{course.threads} at most"
    if course.default_stacks:
        told += f"; {course.default_stacks} with a stack of {format_size(found.default_stack)}, "
        told += f"{format_size(course.default_depth)} deep"
    if course.own_depth:
        own = "stacks of a size of their own"
        told += f"; {own} {format_size(course.own_depth)} deep"
    return told


def _needs(found: Found) -> Iterator[str]:
    for name, need in found.advice.needs.items():
        yield NUMBERS.format(name, format_size(need.locked), format_size(need.resident))


def _recommended(found: Found) -> Iterator[str]:
    advice = found.advice
    yield f"recommended, for --lock {','.join(advice.form)}"
    yield f"  {quoted(found.line)}"
    if advice.memlock:
        kib = advice.memlock >> 10
        yield _row("memlock", f"{_limit(advice.memlock, advice.need.locked)}: LimitMEMLOCK={kib}K, "
                   f"docker --ulimit memlock={advice.memlock}, ulimit -l {kib}")  # fmt: skip
    own, ours = format_size(advice.need.resident), format_size(fitting.LAUNCHER_BYTES)
    share = f"{own} the program, {ours} rtlaunch, the rest the kernel's"
    yield _row("container", f"{_limit(advice.container, advice.container_need)}: {share}")
    if advice.thread_stack not in (None, found.default_stack):
        size = spell_size(advice.thread_stack or 0)
        again = f"rtlaunch fit --thread-stack {size}"
        yield _row("not tried", f"stacks of that size; {again} measures with them")
    if found.path:
        yield _row("profile", f"written to {found.path}")


def _limit(limit: int, need: int) -> str:
    return f"{format_size(limit)}, which is {format_size(need)} and {_margin(limit, need)} %"


def _margin(limit: int, need: int) -> int:
    """Return by how much a limit is larger than the need, in percent."""
    return (limit - need) * 100 // need if need else 0


def _thread_values(found: Found) -> dict[str, Any]:
    course = found.course
    return {
        "most": course.threads,
        "stacks": course.stacks,
        "default_stacks": course.default_stacks,
        "default_stack_bytes": found.default_stack,
        "default_depth_bytes": course.default_depth or None,
        "own_depth_bytes": course.own_depth or None,
    }


def _advised_values(found: Found) -> dict[str, Any]:
    advice = found.advice
    return {
        "line": quoted(found.line),
        "profile": found.path or None,
        "memlock_bytes": advice.memlock or None,
        "memlock_margin_percent": _margin(advice.memlock, advice.need.locked),
        "locked_bytes": advice.need.locked,
        "resident_bytes": advice.need.resident,
        "container_bytes": advice.container,
        "container_need_bytes": advice.container_need,
        "container_margin_percent": _margin(advice.container, advice.container_need),
        "thread_stack_bytes": advice.thread_stack,
        "prefault_stack_bytes": advice.prefault,
        "arenas": advice.arenas,
    }


def as_dict(found: Found) -> dict[str, Any]:
    """Return the object that ``--json`` prints; None is not known."""
    course, advice = found.course, found.advice
    return {
        "schema": SCHEMA,
        "command": list(found.command),
        "exit_code": found.ended,
        "stopped": found.stopped,
        "run_ns": found.run_ns,
        "looks": course.looks,
        "end_seen": found.traced,
        "form": ",".join(advice.form),
        "needs": {
            name: {"locked_bytes": need.locked, "resident_bytes": need.resident}
            for name, need in advice.needs.items()
        },
        "main_stack": {"depth_bytes": course.main_depth},
        "threads": _thread_values(found),
        "heap_bytes": course.heap,
        "anonymous_bytes": course.anonymous,
        "unseen_bytes": course.unseen,
        "children_bytes": course.others,
        "allocator": found.allocator,
        "runtime": found.runtime or None,
        "huge_page_candidates": [
            {
                "address": f"{candidate.start:#x}",
                "name": candidate.name,
                "size_bytes": candidate.size,
                "resident_bytes": candidate.resident,
            }
            for candidate in course.candidates
        ],
        "recommended": _advised_values(found),
    }
