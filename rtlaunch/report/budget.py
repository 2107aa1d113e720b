"""The budget of a launch for people and for JSON: what is needed, and the room for it.

Pure; whether it fits is :mod:`rtlaunch.core.budget`'s to tell.
"""

from __future__ import annotations

from rtlaunch.core.budget import FIT
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rtlaunch.core.budget import Budget
    from rtlaunch.core.options import Fitted

NO_LIMIT = "unlimited"


def as_dict(budget: Budget | None) -> dict[str, Any] | None:
    """Return the report's object ``budget``; None where the launch did not come so far."""
    if budget is None:
        return None
    need, room = budget.need, budget.room
    return {
        "locked_bytes": need.locked,
        "resident_bytes": need.resident,
        "from": need.source,
        "room": {
            "memlock_bytes": amount(room.memlock),
            "cgroup_bytes": amount(room.cgroup_bytes),
            "cgroup": room.cgroup.folder if room.cgroup else None,
            "available_bytes": room.available,
            "commit_bytes": amount(room.commit),
        },
    }


def amount(value: int | None) -> int | str | None:
    """Return an amount, "unlimited" where there is no limit, None where it is not known."""
    return NO_LIMIT if value == UNLIMITED else value


def lines(budget: Budget, fitted: Fitted | None) -> list[str]:
    """Return the lines of ``plan``: what fit measured, then each need with its room."""
    need, room = budget.need, budget.room
    least = "" if need.source == FIT else "at least "
    measured = [f"measured by fit: {measure(fitted)}"] if fitted else []
    resident = f"resident {least}{format_size(need.resident)}"
    if room.available is not None:
        resident += f" of {format_size(room.available)} available"
    return [*measured, _locked(budget, least), resident, *_bounds(budget, least)]


def _locked(budget: Budget, least: str) -> str:
    """Say what is locked, and of how much; huge pages count for the limit and are not in VmLck."""
    need, room = budget.need, budget.room
    if not need.charged:
        return "locked: nothing"
    huge = need.charged - need.locked
    size = format_size(need.locked) + (f" and {format_size(huge)} of huge pages" if huge else "")
    if room.memlock == UNLIMITED:
        return f"locked {least}{size}, without a limit (CAP_IPC_LOCK, or RLIMIT_MEMLOCK unlimited)"
    return f"locked {least}{size} of {format_size(room.memlock)} (RLIMIT_MEMLOCK, no CAP_IPC_LOCK)"


def measure(fitted: Fitted) -> str:
    """Say what was measured."""
    threads = f"{fitted.threads} thread{'s' if fitted.threads != 1 else ''}"
    locked, resident = format_size(fitted.locked_bytes), format_size(fitted.resident_bytes)
    return f"{locked} locked, {resident} resident, {threads}"


def _bounds(budget: Budget, least: str) -> list[str]:
    """Return a line for each bound that not every machine has."""
    need, room = budget.need, budget.room
    found = []
    if room.cgroup:
        found.append(
            f"in the memory cgroup {least}{format_size(need.fresh)} of "
            f"{format_size(room.cgroup_bytes)} left ({room.cgroup.folder}, limit "
            f"{format_size(room.cgroup.limit)})"
        )
    if room.commit is not None and room.commit != UNLIMITED:
        found.append(
            f"mapped {least}{format_size(need.mapped)} of {format_size(room.commit)} that "
            "strict overcommit leaves"
        )
    return found
