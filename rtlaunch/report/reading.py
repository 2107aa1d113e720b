"""What people read of a process that already runs: an outcome in, lines out.

Pure, as :mod:`rtlaunch.report.text` is; it decides nothing.
"""

from __future__ import annotations

from rtlaunch.core import units
from rtlaunch.core.printable import one_line
from rtlaunch.report.text import INDENT, locked_size, milliseconds, plural, program
from rtlaunch.report.verdict import lock_ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtlaunch.core.outcome import Outcome, Thread, UnlockedMapping

SHOWN_MAPPINGS = 8
SHOWN_LIMITS = ("memlock", "stack", "rtprio", "nice")
COLUMNS = ("tid", "name", "state", "policy", "prio", "nice", "cpus", "on", "major", "minor")
WORDS = frozenset(("name", "state", "policy", "cpus"))  # columns that are no numbers


def status(outcome: Outcome) -> str:
    """Return what ``rtlaunch status`` prints."""
    lock = outcome.lock
    word = "locked" if lock_ok(outcome) else "not locked"
    assert lock.locked_bytes is not None
    size = locked_size(lock.locked_bytes, lock.resident_bytes)
    lines = [f"{word}: {program(outcome)}: {size}, {plural(len(outcome.threads), 'thread')}"]
    lines += mapping_lines(lock.unlocked_mappings)
    lines += [f"{INDENT}{name:13} {one_line(value)}" for name, value in rows(outcome)]
    return "\n".join([*lines, *thread_lines(outcome.threads)])


def rows(outcome: Outcome) -> list[tuple[str, str]]:
    """Return limits, headroom and capabilities, each with its name."""
    found = []
    for name in SHOWN_LIMITS:
        pair = outcome.limits[name].after if name in outcome.limits else None
        if pair:
            soft, hard = (units.format_limit(name, value) for value in pair)
            found.append((f"limit {name}", f"{soft} ({hard} hard)"))
    room = outcome.lock.headroom_bytes
    if room is not None:
        found.append(("headroom", units.format_limit("memlock", room)))
    effective = (outcome.caps.target or {}).get("effective", 0)
    names = units.capability_names(effective)
    found.append(("capabilities", capabilities(names)))
    return found


def capabilities(names: Sequence[str]) -> str:
    """Return capabilities by name, or how many where they are most of all."""
    few = 8
    if len(names) <= few:
        return ", ".join(names) or "none"
    told = "with" if any(name.lower().endswith("ipc_lock") for name in names) else "without"
    return f"{len(names)}, {told} ipc_lock"


def mapping_lines(mappings: Sequence[UnlockedMapping]) -> list[str]:
    """Return the first mappings that are not locked and resident, and how many more there are."""
    if not mappings:
        return []
    size = units.format_size(sum(each.end - each.start for each in mappings))
    lines = [f"{INDENT}{plural(len(mappings), 'mapping')} not locked and resident, {size}:"]
    for each in mappings[:SHOWN_MAPPINGS]:
        bytes_of = units.format_size(each.end - each.start)
        name = one_line(each.name)
        lines.append(f"{INDENT * 2}{each.start:#014x}  {bytes_of:>9}  {each.why:12}  {name}")
    if len(mappings) > SHOWN_MAPPINGS:
        lines.append(f"{INDENT * 2}and {len(mappings) - SHOWN_MAPPINGS} more: --json has all")
    return lines


def thread_lines(threads: Sequence[Thread]) -> list[str]:
    """Return the table of threads, with the faults of each since it began."""
    table = [COLUMNS, *(cells(each) for each in threads)]
    widths = [max(len(line[at]) for line in table) for at in range(len(COLUMNS))]
    return [INDENT + _aligned(line, widths) for line in table]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells_of = zip(COLUMNS, line, widths, strict=True)
    return "  ".join(
        text.ljust(width) if name in WORDS else text.rjust(width) for name, text, width in cells_of
    )


def cells(thread: Thread) -> tuple[str, ...]:
    """Return one line of the table of threads."""
    values = (
        thread.tid, thread.name, thread.state, thread.policy, thread.priority, thread.nice,
        thread.cpu_list, thread.cpu, thread.major_faults, thread.minor_faults,
    )  # fmt: skip
    return tuple("-" if value is None else one_line(str(value)) for value in values)


def locked(outcome: Outcome) -> str:
    """Return the one line of ``rtlaunch lock``."""
    assert outcome.lock.locked_bytes is not None
    size = locked_size(outcome.lock.locked_bytes, outcome.lock.resident_bytes)
    return f"locked {size} of {whom(outcome)}; {stopped(outcome)}"


def unlocked(outcome: Outcome) -> str:
    """Return the one line of ``rtlaunch unlock``."""
    return f"unlocked {whom(outcome)}; {stopped(outcome)}"


def whom(outcome: Outcome) -> str:
    """Return program, pid and number of threads."""
    return f"{program(outcome)} ({plural(len(outcome.threads), 'thread')})"


def stopped(outcome: Outcome) -> str:
    """Say how long the one thread stood still."""
    ns = outcome.lock.stopped_ns or 0
    tenths = 10e6  # below that, tenths of a ms are told
    took = f"{ns / 1e6:.1f} ms" if ns < tenths else milliseconds(ns)
    return f"stopped one thread for {took}"
