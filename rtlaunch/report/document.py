"""The report: an outcome as the dictionary that ``--report`` writes as JSON.

The keys are contract (``rtlaunch.report/1``, schema.json beside this file) and
only grow. Units are in names; an instant is ns since ``time.started_at``;
addresses and absolute counters are strings, since JSON's readers keep 53 bits;
no limit is "unlimited"; what was not measured is null, never 0.

Pure: json is the caller's, late. It must not decide: the verdict is
:mod:`rtlaunch.report.verdict`'s.
"""

from __future__ import annotations

from errno import errorcode
from time import gmtime

from rtlaunch.core import numbers, units
from rtlaunch.core.outcome import ENDED, REFUSED, Part
from rtlaunch.core.record import Record
from rtlaunch.report import budget
from rtlaunch.report.verdict import lock_ok, verdict, why_unlocked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rtlaunch.core.findings import Finding
    from rtlaunch.core.outcome import Faults, Image, Limit, Outcome, Thread, UnlockedMapping

SCHEMA = "rtlaunch.report/1"
UNLIMITED = "unlimited"

# Fields that hold an address, wherever they stand; written as hexadecimal strings.
ADDRESSES = frozenset({"address", "ip", "start", "end"})

# Fields that hold a limit, where -1 is none.
LIMITS = frozenset({"soft", "hard", "rtprio"})

CAP_SETS = ("inheritable", "permitted", "effective", "bounding", "ambient")


def document(outcome: Outcome) -> dict[str, Any]:
    """Return the whole report of an outcome, in the contract's order of keys."""
    return {
        "schema": SCHEMA,
        "rtlaunch": fields(outcome.rtlaunch),
        "state": outcome.state,
        "complete": outcome.state in (REFUSED, ENDED),
        "verdict": verdict(outcome),
        "host": fields(outcome.host),
        "time": times(outcome),
        "target": target(outcome),
        "mode": fields(outcome.mode),
        "options": options(outcome.options),
        "limits": {name: limit(row) for name, row in outcome.limits.items()},
        "caps": caps(outcome),
        "sched": fields(outcome.sched),
        "threads": [thread(each) for each in outcome.threads],
        "budget": budget.as_dict(outcome.budget),
        "lock": lock(outcome),
        "thp": fields(outcome.thp),
        "heap": heap(outcome),
        "hugepages": [fields(lease) for lease in outcome.hugepages],
        "watch": watch(outcome),
        "exit": ending(outcome),
        "rusage": fields(outcome.rusage),
        "findings": [finding(found) for found in outcome.findings],
    }


# --- values ----------------------------------------------------------------------------------


def fields(part: Part) -> dict[str, Any]:
    """Return the fields of a part, in the order of its class body."""
    return {name: getattr(part, name) for name in type(part).__annotations__}


def plain(value: object, name: str = "") -> Any:
    """Return ``value`` as JSON has it; a record is an object, bytes and addresses are strings."""
    if name in ADDRESSES and isinstance(value, int):
        return hex(value)
    if name in LIMITS and value == numbers.UNLIMITED:
        return UNLIMITED
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Record):
        return {field: plain(getattr(value, field), field) for field in type(value)._fields}
    if isinstance(value, dict):
        return {str(key): plain(item, str(key)) for key, item in value.items()}
    if isinstance(value, (tuple, list, frozenset, set)):
        return [plain(item, name) for item in value]
    return str(value)


def text(value: str) -> str:
    """Return ``value`` as text that UTF-8 can carry: undecodable bytes become U+FFFD."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def amount(value: int | None) -> int | str | None:
    """Return an amount, "unlimited" where there is no limit, None where it was not measured."""
    return UNLIMITED if value == numbers.UNLIMITED else value


def instant(unix_ns: int | None) -> str | None:
    """Write a CLOCK_REALTIME instant as ISO 8601 in UTC, to the microsecond."""
    if unix_ns is None:
        return None
    year, month, day, hour, minute, second, *_ = gmtime(unix_ns // 10**9)
    micro = unix_ns % 10**9 // 1000
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z"


# --- parts -----------------------------------------------------------------------------------


def since(outcome: Outcome, monotonic_ns: int | None) -> int | None:
    """Return a CLOCK_MONOTONIC instant as ns since the start; None if either is not known."""
    start = outcome.time.monotonic_ns
    return None if monotonic_ns is None or start is None else monotonic_ns - start


def times(outcome: Outcome) -> dict[str, Any]:
    """Return when each step was reached; the absolute start stands beside, as a string."""
    whole = fields(outcome.time)
    start = whole.pop("monotonic_ns")
    steps = {name: since(outcome, at) for name, at in whole.items() if name.endswith("_ns")}
    return {
        "started_at": instant(outcome.time.started_at),
        "ended_at": instant(outcome.time.ended_at),
        "started_monotonic_ns": None if start is None else str(start),
        **steps,
    }


def target(outcome: Outcome) -> dict[str, Any]:
    """Return the process that was started, and its images."""
    whole = outcome.target
    return {
        "argv": plain(whole.argv),
        "pid": whole.pid,
        "uid": whole.uid,
        "gid": whole.gid,
        "images": [image(outcome, each) for each in whole.images],
    }


def image(outcome: Outcome, whole: Image) -> dict[str, Any]:
    """Return one image that the target exec()ed."""
    return {
        "path": plain(whole.path),
        "at_ns": since(outcome, whole.at_ns),
        "elf": plain(whole.elf),
        "locked": whole.locked,
        "why": plain(whole.why),
        "via": whole.via,
    }


def options(chosen: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Return each option as the command line writes it, with its origin."""
    return {
        name: {"value": text(value), "from": origin} for name, (value, origin) in chosen.items()
    }


def limit(row: Limit) -> dict[str, Any]:
    """Return one rlimit: as asked, before and after, in the resource's own unit."""
    return {"asked": row.asked, "before": soft_hard(row.before), "after": soft_hard(row.after)}


def soft_hard(pair: tuple[int, int] | None) -> dict[str, Any] | None:
    """Return a soft and a hard limit."""
    return None if pair is None else {"soft": amount(pair[0]), "hard": amount(pair[1])}


def caps(outcome: Outcome) -> dict[str, Any]:
    """Return the capability sets by name, ours and the target's."""
    whole = outcome.caps
    return {
        "launcher": cap_sets(whole.launcher),
        "target": cap_sets(whole.target),
        "no_new_privs": whole.no_new_privs,
    }


def cap_sets(masks: Mapping[str, int] | None) -> dict[str, list[str]] | None:
    """Return the names in each of the five sets."""
    if masks is None:
        return None
    return {name: list(units.capability_names(masks[name])) for name in CAP_SETS}


def thread(whole: Thread) -> dict[str, Any]:
    """Return one thread, its name as text."""
    return {name: plain(value) for name, value in fields(whole).items()}


def lock(outcome: Outcome) -> dict[str, Any]:
    """Return the lock: ``ok`` for all images, the figures of the last one."""
    whole = outcome.lock
    return {
        "ok": lock_ok(outcome),
        "via": whole.via,
        "why": plain(why_unlocked(outcome) or whole.why),
        "flags": None if whole.flags is None else list(whole.flags),
        "errno": None if whole.errno is None else errno_name(whole.errno),
        "locked_bytes": whole.locked_bytes,
        "resident_bytes": whole.resident_bytes,
        "headroom_bytes": amount(whole.headroom_bytes),
        "stack_bytes": whole.stack_bytes,
        "thread_stack_bytes": whole.thread_stack_bytes,
        "lock_ns": whole.lock_ns,
        "stopped_ns": whole.stopped_ns,
        "unlocked_mappings": [unlocked_mapping(each) for each in whole.unlocked_mappings],
        "children_locked": whole.children_locked,
    }


def heap(outcome: Outcome) -> dict[str, Any]:
    """Return the heap as it was asked for and found; no variables where none was."""
    whole = fields(outcome.heap)
    return {**whole, "variables": plain(dict(whole["variables"] or {}))}


def errno_name(number: int) -> str:
    """Return an errno's name, or its number as a string where it has none."""
    return errorcode.get(number, str(number))


def unlocked_mapping(whole: UnlockedMapping) -> dict[str, Any]:
    """Return a mapping that the proof found not locked or not resident."""
    return {
        "address": hex(whole.start),
        "bytes": whole.end - whole.start,
        "name": text(whole.name),
        "resident_bytes": whole.resident_bytes,
        "why": whole.why,
    }


def watch(outcome: Outcome) -> dict[str, Any]:
    """Return what was seen of faults, and what was not."""
    whole = outcome.watch
    return {
        "source": whole.source,
        "why": plain(whole.why),
        "lost": whole.lost,
        "unseen": whole.unseen,
        "before_arm": faults(whole.before_arm),
        "after_arm": faults(whole.after_arm),
        "sites": [plain(site) for site in whole.sites],
        "faults": [fault(outcome, each) for each in whole.faults],
        "faults_omitted": whole.faults_omitted,
    }


def faults(count: Faults | None) -> dict[str, Any]:
    """Return a count of faults; both null when nothing was counted."""
    return {"major": count.major if count else None, "minor": count.minor if count else None}


def fault(outcome: Outcome, whole: Mapping[str, object] | Record) -> dict[str, Any]:
    """Return one fault; its ``at_ns`` becomes relative as every instant."""
    shown: dict[str, Any] = plain(whole)
    if shown.get("at_ns") is not None:
        shown["at_ns"] = since(outcome, shown["at_ns"])
    return shown


def ending(outcome: Outcome) -> dict[str, Any]:
    """Return who ended the run, and how; the signal by name."""
    whole = fields(outcome.exit)
    if whole["signal"] is not None:
        whole["signal"] = "SIG" + units.signal_name(whole["signal"])
    return whole


def finding(found: Finding) -> dict[str, Any]:
    """Return a finding with its remedy and values."""
    return {
        "code": found.code,
        "severity": found.severity,
        "waived": found.waived,
        "what": text(found.what),
        "why": text(found.why),
        "remedy": {
            "set_by": text(found.set_by),
            "try_now": text(found.try_now),
            "for_good": text(found.for_good),
        },
        "values": plain(dict(found.values)),
    }
