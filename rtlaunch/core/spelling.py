"""The kinds of option: how the value of each is written, as :mod:`rtlaunch.core.kinds` reads it.

For reports, plans and profiles; a launch that says nothing has no use for it.
"""

from __future__ import annotations

from rtlaunch.core import numbers, units
from rtlaunch.core.options import (
    SWITCH,
    Arm,
    HugePages,
    Identity,
    LimitDemand,
    ReportTo,
    Row,
    Sched,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _signal_or(number: int, word: str) -> str:
    return f"signal:{units.signal_name(number)}" if number else word


def write_limit_demand(demand: LimitDemand) -> str:
    """Write a demand as ``nofile=1024:4096``."""
    spell = units.spell_size if demand.name in numbers.RLIMITS_IN_BYTES else _spell_number
    hard = "" if demand.hard is None else f":{spell(demand.hard)}"
    return f"{demand.name}={spell(demand.soft)}{hard}"


def write_hugepages(leases: tuple[HugePages, ...]) -> str:
    """Write leases as ``2M:512 1G:4@0``, with spaces as in the twin."""
    nodes = ["" if asked.node is None else f"@{asked.node}" for asked in leases]
    told = (
        f"{units.spell_size(asked.page_bytes)}:{asked.count}{node}"
        for asked, node in zip(leases, nodes, strict=True)
    )
    return " ".join(told) or "none"


def _spell_number(value: int) -> str:
    return "unlimited" if value == numbers.UNLIMITED else str(value)


def _write_rewrite(pairs: tuple[tuple[int, int], ...]) -> str:
    named = (
        (units.signal_name(taken), units.signal_name(sent) if sent else "none")
        for taken, sent in pairs
    )
    return " ".join(map(":".join, named)) or "none"


def _write_map_exit(pairs: tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"{theirs}={ours}" for theirs, ours in pairs) or "none"


def _write_caps(names: tuple[str, ...] | None) -> str:
    return "auto" if names is None else ",".join(names) or "none"


def _write_user(who: Identity | None) -> str:
    return "none" if who is None else f"{who.user}:{who.group}" if who.group else who.user


def _write_sched(sched: Sched | None) -> str:
    if sched is None:
        return "inherit"
    return f"{sched.policy}:{sched.priority}" if sched.priority else sched.policy


def _write_arm(arm: Arm) -> str:
    if arm.when == "time":
        return units.spell_time(arm.after_ns)
    return _signal_or(arm.signal, "locked")


def _write_report(to: ReportTo | None) -> str:
    return "none" if to is None else to.path or f"fd:{to.fd}"


def _unless_none(write: Callable[[Any], str], word: str) -> Callable[[Any], str]:
    return lambda value: word if value is None else write(value)


def _joined(items: tuple[str, ...]) -> str:
    return ",".join(items) or "none"


# kind: value → text
WRITERS: dict[str, Callable[[Any], str]] = {
    SWITCH: lambda value: "true" if value else "false",
    "choice": str,
    "children": str,
    "lock": _joined,
    "size": lambda size: units.spell_size(size) if size else "none",
    "amount": _unless_none(units.spell_size, "inherit"),
    "number": _unless_none(str, "inherit"),
    "pages": lambda v: v if isinstance(v, str) else units.spell_size(v),
    "hugepages": write_hugepages,
    "limit": lambda v: v if isinstance(v, str) else units.spell_size(v),
    "rlimit": write_limit_demand,
    "caps": _write_caps,
    "user": _write_user,
    "sched": _write_sched,
    "cpus": _unless_none(units.format_cpus, "inherit"),
    "nice": _unless_none(str, "inherit"),
    "slack": _unless_none(units.spell_time, "inherit"),
    "arm": _write_arm,
    "reaction": lambda reaction: _signal_or(reaction.signal, reaction.do),
    "count": _unless_none(str, "none"),
    "signal": lambda number: units.signal_name(number) if number else "none",
    "rewrite": _write_rewrite,
    "mapexit": _write_map_exit,
    "codes": _joined,
    "report": _write_report,
    "text": lambda text: text or "none",
}


def write(row: Row, value: Any) -> str:
    """Write the whole value of ``row``'s field as the command line has it, for people and report.

    The items of a repeatable limit are separated by spaces, as in its twin.
    """
    writer = WRITERS[row.kind]
    if row.kind == "rlimit":
        return " ".join(writer(item) for item in value) or "none"
    return writer(value)
