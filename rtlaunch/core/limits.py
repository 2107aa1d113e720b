"""What each resource limit shall become, from what was asked and what the kernel permits.

Pure: the limits in force come in as values and the change goes out as one.
Setting and reading back is :mod:`rtlaunch.linux.rlimit`'s. What puts limits into
words is imported where it is done: most launches say nothing.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.options import Options

# glibc's ARCH_STACK_DEFAULT_SIZE, used where RLIMIT_STACK is unlimited (nptl/nptl-stack.c).
DEFAULT_THREAD_STACK_BYTES = 2 << 20


class Limit(Record):
    """A soft and a hard limit, in the resource's own unit; UNLIMITED is -1."""

    soft: int
    hard: int


class LimitChange(Record):
    """A limit as it was, as it was asked, and as it shall be.

    ``demanded`` tells a value that was typed, which must hold, from ``max``,
    which takes what it can get.
    """

    name: str
    asked: str
    before: Limit
    after: Limit
    demanded: bool

    def describe(self) -> str:
        """Say the change in one line."""
        from rtlaunch.core.units import format_limit

        old, new = (
            f"{format_limit(self.name, limit.soft)}:{format_limit(self.name, limit.hard)}"
            for limit in (self.before, self.after)
        )
        return f"set RLIMIT_{self.name.upper()} {old} -> {new} ({self.asked})"


def at_most(value: int, bound: int) -> bool:
    """Compare two limits, where UNLIMITED is above all numbers."""
    return bound == UNLIMITED or (value != UNLIMITED and value <= bound)


def ask_for(name: str, ask: str | int, before: Limit, may_raise_hard: bool) -> LimitChange | None:
    """Turn a value of ``--memlock`` or ``--core`` into a change; None for ``inherit``.

    ``max`` raises the soft limit to the hard one, and the hard one too where
    the kernel lets us (CAP_SYS_RESOURCE in the initial user namespace,
    kernel/sys.c do_prlimit).
    """
    if ask == "inherit":
        return None
    if ask == "max":
        hard = UNLIMITED if may_raise_hard else before.hard
        return LimitChange(name, "max", before, Limit(hard, hard), False)
    from rtlaunch.core.units import format_limit

    number = int(ask)
    hard = before.hard if at_most(number, before.hard) else number
    asked = format_limit(name, number)
    return LimitChange(name, asked, before, Limit(number, hard), True)


def demand(name: str, soft: int, hard: int | None, before: Limit) -> LimitChange:
    """Turn ``--limit NAME=SOFT[:HARD]`` into a change; without HARD it moves only if it must."""
    from rtlaunch.core.units import format_limit

    if hard is None:
        hard = before.hard if at_most(soft, before.hard) else soft
    asked = f"{format_limit(name, soft)}:{format_limit(name, hard)}"
    return LimitChange(name, asked, before, Limit(soft, hard), True)


def changes(
    options: Options, before: Mapping[str, Limit], may_raise_hard: bool
) -> tuple[LimitChange, ...]:
    """Return every change the options ask for, memlock and core first."""
    first = [
        ask_for("memlock", options.memlock, before["memlock"], may_raise_hard),
        ask_for("core", options.core, before["core"], may_raise_hard),
    ]
    named = (demand(ask.name, ask.soft, ask.hard, before[ask.name]) for ask in options.limit)
    return (*(change for change in first if change), *named)


def impossible(change: LimitChange, may_raise_hard: bool) -> Finding | None:
    """Return why a demanded change cannot be made, or None; ``max`` is never impossible."""
    if not change.demanded:
        return None
    if at_most(change.after.soft, change.after.hard) and (
        may_raise_hard or at_most(change.after.hard, change.before.hard)
    ):
        return None
    return _not_to_be_had(change)


def _not_to_be_had(change: LimitChange) -> Finding:
    """Say why the kernel would refuse the change."""
    from rtlaunch.core.units import format_limit

    values = {
        "limit": change.name,
        "asked": change.asked,
        "hard": change.before.hard,
        "soft": change.after.soft,
    }
    name = f"RLIMIT_{change.name.upper()}"
    if not at_most(change.after.soft, change.after.hard):
        return Finding(
            "limit-raise",
            f"{name}: the soft limit {format_limit(change.name, change.after.soft)} is above the "
            f"hard limit {format_limit(change.name, change.after.hard)}",
            why="setrlimit(2) refuses a soft limit above the hard one (EINVAL)",
            values=values,
        )
    return Finding(
        "limit-raise",
        f"{name} {format_limit(change.name, change.after.hard)} was asked for; the hard limit is "
        f"{format_limit(change.name, change.before.hard)}, no CAP_SYS_RESOURCE",
        why="only CAP_SYS_RESOURCE raises a hard limit",
        values=values,
    )
