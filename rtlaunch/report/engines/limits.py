"""A plan as a file for /etc/security/limits.d: the limits of login sessions, and nothing else.

The items and their units are limits.conf(5)'s.
"""

from __future__ import annotations

from rtlaunch.core import wanted as wanting
from rtlaunch.core.argv import quoted
from rtlaunch.core.numbers import REALTIME_POLICIES, UNLIMITED
from rtlaunch.report.engines import remarks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.options import Options
    from rtlaunch.core.wanted import Wanted

# Divisors of the kernel's units: KiB, and minutes for cpu. No item: rttime.
KIB, MINUTE = 1024, 60
UNITS = {
    "core": KIB, "data": KIB, "fsize": KIB, "memlock": KIB, "rss": KIB, "stack": KIB, "as": KIB,
    "cpu": MINUTE, "nofile": 1, "nproc": 1, "locks": 1, "sigpending": 1, "msgqueue": 1,
    "rtprio": 1, "nice": 1,
}  # fmt: skip
NICE_ZERO = 20  # RLIMIT_NICE is 20 less the lowest nice value (setrlimit(2))


def render(wanted: Wanted) -> str:
    """Return the file."""
    asked = [*wanting.limits(wanted.options), *needed(wanted.options)]
    without = [f"not here: --limit {name}: pam_limits has no item for it"
               for name, *_ in asked if name not in UNITS]  # fmt: skip
    line = quoted(("rtlaunch", *wanting.run_line(wanted.options, ("user",)), "--", *wanted.command))
    return remarks.as_text(
        [
            *remarks.comments(remarks.heading(wanted, "limits.d")),
            *remarks.comments(
                (
                    "limits of login sessions (pam_limits), from the next login on; services do",
                    "not read this. All else of the plan is the command line's, in that session:",
                    f"    {line}",
                    *without,
                )
            ),
            *(row for limit in asked if limit[0] in UNITS for row in rows(domain(wanted), *limit)),
        ]
    )


def domain(wanted: Wanted) -> str:
    """Return whom it is for: a name, or the one user of that number."""
    return f":{wanted.owner}" if wanted.owner.isdigit() else wanted.owner


def needed(options: Options) -> list[tuple[str, int, int]]:
    """Return the limits that scheduling needs of who has no CAP_SYS_NICE."""
    found = []
    if options.sched and options.sched.policy in REALTIME_POLICIES:
        found.append(("rtprio", options.sched.priority, options.sched.priority))
    if options.nice is not None and options.nice < 0:
        found.append(("nice", NICE_ZERO - options.nice, NICE_ZERO - options.nice))
    return found


def rows(whom: str, name: str, soft: int, hard: int) -> list[str]:
    """Return the rows of one limit."""
    if soft == hard:
        return [f"{whom} - {name} {value(name, soft)}"]
    return [f"{whom} soft {name} {value(name, soft)}", f"{whom} hard {name} {value(name, hard)}"]


def value(name: str, number: int) -> str:
    """Write a limit in its item's unit, rounded up; nice is the lowest nice value itself."""
    if number == UNLIMITED:
        return "unlimited"
    if name == "nice":
        return str(NICE_ZERO - number)
    return str(-(-number // UNITS[name]))
