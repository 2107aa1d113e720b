"""The kinds of option: how the text of each is read into a field.

Reading raises ValueError with a message for people, and reads what
:mod:`rtlaunch.core.spelling` wrote. Which option is of which kind is said in
:mod:`rtlaunch.core.options`; where a text came from is :mod:`rtlaunch.core.settings`' business.
"""

from __future__ import annotations

from rtlaunch.core import numbers, units
from rtlaunch.core.findings import CODES
from rtlaunch.core.options import (
    PLACEHOLDERS,
    SWITCH,
    Arm,
    HugePages,
    Identity,
    LimitDemand,
    Reaction,
    ReportTo,
    Row,
    Sched,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PAGES = ("inherit", "base", "thp")
LOCK_FLAGS = ("current", "future", "onfault")
OWN_OPTION = ("memlock", "core")  # rlimits that --limit leaves to options of their own
NICE_RANGE = (-20, 19)
LARGEST_ID = 2**32 - 2  # to the kernel the next one means: as it is (setresuid(2)), so still root
NEVER_PASSED_ON = {  # signal(7), and why there is nothing to rewrite
    9: "cannot be rewritten: the kernel lets nobody take it",
    19: "cannot be rewritten: the kernel lets nobody take it",
    17: "cannot be rewritten: it tells rtlaunch of its own children and is never passed on",
}
BOOLEANS = {"1": True, "true": True, "0": False, "false": False}
NOT_YET = "is not in this version yet"


def read_switch(text: str) -> bool:
    """Read 1, 0, true or false."""
    if text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    raise ValueError(f"{units.shown(text)} is neither on nor off: use 1, 0, true or false")


def read_choice(text: str, row: Row) -> str:
    """Read one of the row's choices."""
    if text in row.choices:
        return text
    allowed = ", ".join(row.choices)
    hint = units.did_you_mean(text, row.choices)
    raise ValueError(f"{units.shown(text)} is not one of {allowed}{hint}")


def read_children(text: str, row: Row) -> str:
    """Read ``none``, ``all``, or patterns of executables; a near miss of those is no pattern."""
    patterns = units.split_list(",".join(part.strip() for part in text.split(",")))
    for pattern in patterns:
        plain = not any(letter in pattern for letter in "*?[/")
        hint = units.did_you_mean(pattern.lower(), row.choices) if plain else ""
        if pattern in row.choices and len(patterns) > 1:
            raise ValueError(f"{pattern} stands alone: it is no pattern among others")
        if hint and pattern not in row.choices:
            raise ValueError(
                f"{units.shown(pattern)} is neither none nor all{hint} A program of that name is "
                f"*/{pattern}"
            )
    return ",".join(patterns)


def read_lock(text: str) -> tuple[str, ...]:
    """Read mlockall's flags; ``onfault`` alone is an error to the kernel (mlockall(2))."""
    if text == "none":
        return ()
    flags = units.split_list(text)
    for flag in flags:
        if flag not in LOCK_FLAGS:
            hint = units.did_you_mean(flag, LOCK_FLAGS)
            raise ValueError(
                f"{units.shown(flag)} is no lock flag: use {', '.join(LOCK_FLAGS)}, or none{hint}"
            )
    if set(flags) == {"onfault"}:
        raise ValueError("'onfault' says how, not what: add current, future or both")
    return tuple(flag for flag in LOCK_FLAGS if flag in flags)


def read_prefault(text: str) -> int:
    """Read a size in bytes; ``none`` is 0."""
    return 0 if text == "none" else units.parse_size(text)


def read_amount(text: str) -> int | None:
    """Read a size in bytes that is not 0; ``inherit`` is None."""
    if text == "inherit":
        return None
    size = units.parse_size(text)
    if size == 0:
        raise ValueError(f"{units.shown(text)} is nothing: use a size, as in 64M, or inherit")
    return size


def read_number(text: str) -> int | None:
    """Read a whole number from 1 on; ``inherit`` is None."""
    return None if text == "inherit" else units.parse_integer(text, 1, 2**31 - 1, "number")


def read_pages(text: str) -> str | int:
    """Read ``inherit``, ``base``, ``thp``, or the size of a huge page in bytes."""
    if text in PAGES:
        return text
    try:
        return read_page_size(text)
    except ValueError as error:
        raise ValueError(f"{error}; or {', '.join(PAGES)}") from None


def read_page_size(text: str) -> int:
    """Read the size of a huge page in bytes: a power of two (Documentation/admin-guide/mm)."""
    size = units.parse_size(text)
    if size == 0 or size & (size - 1):
        raise ValueError(f"{units.shown(text)} is no page size: use a power of two, as in 2M")
    return size


def read_hugepages(text: str) -> tuple[HugePages, ...]:
    """Read ``SIZE:COUNT[@NODE]``; ``none`` is empty."""
    if text == "none":
        return ()
    size, colon, rest = text.partition(":")
    count, at, node = rest.partition("@")
    if not colon:
        raise ValueError(f"{units.shown(text)} is no lease: use SIZE:COUNT, as in 2M:512")
    asked = HugePages(
        read_page_size(size),
        units.parse_integer(count, 1, 2**31 - 1, "count of pages"),
        units.parse_integer(node, 0, 2**15 - 1, "NUMA node") if at else None,
    )
    return (asked,)


def read_limit(text: str) -> str | int:
    """Read ``max``, ``inherit``, or a demand in bytes, -1 being unlimited."""
    if text in ("max", "inherit"):
        return text
    try:
        return units.parse_rlimit_value(text)
    except ValueError as error:
        raise ValueError(f"{error}, max or inherit") from None


def read_rlimit(text: str) -> LimitDemand | None:
    """Read ``NAME=SOFT[:HARD]``; ``none`` is None.

    A soft limit above the hard one is an error (setrlimit(2)).
    """
    if text == "none":
        return None
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"{units.shown(text)} is no limit: use NAME=SOFT or NAME=SOFT:HARD")
    name = units.parse_rlimit_name(name)
    if name in OWN_OPTION:
        raise ValueError(f"{name} has an option of its own: --{name}")
    soft_text, colon, hard_text = values.partition(":")
    soft = units.parse_rlimit_value(soft_text)
    hard = units.parse_rlimit_value(hard_text) if colon else None
    if hard is not None and hard != numbers.UNLIMITED and not 0 <= soft <= hard:
        raise ValueError(f"{units.shown(text)}: the soft limit is above the hard one")
    return LimitDemand(name, soft, hard)


def read_caps(text: str) -> tuple[str, ...] | None:
    """Read capability names, ascending and each once; ``auto`` is None, ``none`` empty."""
    if text in ("auto", "none"):
        return None if text == "auto" else ()
    names = {units.parse_capability(name) for name in units.split_list(text)}
    return tuple(sorted(names, key=lambda name: numbers.CAPABILITY_NUMBERS[name]))


def read_user(text: str) -> Identity | None:
    """Read ``USER[:GROUP]``; ``none`` is None."""
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise ValueError(f"{units.shown(text)} is no user: use USER or USER:GROUP, or none")
    for name, noun in ((user, "user"), (group, "group")):
        if name.isdecimal():
            units.parse_integer(name, 0, LARGEST_ID, f"number of a {noun}")
    return None if text == "none" else Identity(user, group or None)


def read_sched(text: str) -> Sched | None:
    """Read ``POLICY[:PRIO]``; ``inherit`` is None.

    A real-time policy needs a priority, the others take none but 0 (sched(7)).
    """
    if text == "inherit":
        return None
    name, colon, priority = text.partition(":")
    policy = units.parse_policy(name)
    if policy in numbers.REALTIME_POLICIES:
        if not colon:
            raise ValueError(f"{policy} needs a priority from 1 to 99, as in {policy}:50")
        return Sched(policy, units.parse_integer(priority, *numbers.RT_PRIORITIES, "priority"))
    if colon:
        units.parse_integer(priority, 0, 0, f"priority of {policy}")
    return Sched(policy)


def read_cpus(text: str) -> tuple[int, ...] | None:
    """Read a CPU list; ``inherit`` is None."""
    return None if text == "inherit" else units.parse_cpus(text)


def read_nice(text: str) -> int | None:
    """Read a nice value; ``inherit`` is None."""
    return None if text == "inherit" else units.parse_integer(text, *NICE_RANGE, "nice value")


def read_slack(text: str) -> int | None:
    """Read a time in nanoseconds; ``inherit`` is None; 0 would not be zero (PR_SET_TIMERSLACK)."""
    if text == "inherit":
        return None
    slack = units.parse_time(text)
    if slack == 0:
        raise ValueError(
            f"{units.shown(text)} means the default slack to the kernel: the least is 1ns"
        )
    return slack


def _read_signal_of(text: str) -> int:
    """Read the signal of ``signal:NAME``; 0 if ``text`` does not begin so."""
    return units.parse_signal(text.removeprefix("signal:")) if text[:7] == "signal:" else 0


def read_arm(text: str) -> Arm:
    """Read ``locked``, a time in nanoseconds, or ``signal:NAME`` that can be caught."""
    if text == "locked":
        return Arm("locked")
    if text == "ready":
        raise ValueError(f"'ready' {NOT_YET}: use locked, a time, or signal:NAME")
    number = _read_signal_of(text)
    if number in numbers.UNCATCHABLE:
        raise ValueError(f"{units.shown(text)} cannot be caught: use another, as in signal:USR1")
    if number:
        return Arm("signal", signal=number)
    try:
        return Arm("time", after_ns=units.parse_time(text))
    except ValueError as error:
        raise ValueError(f"{error}; or locked, or signal:NAME") from None


def read_reaction(text: str) -> Reaction:
    """Read ``none``, ``log`` or ``signal:NAME``."""
    if text in ("none", "log"):
        return Reaction(text)
    number = _read_signal_of(text)
    if number:
        return Reaction("signal", number)
    raise ValueError(f"{units.shown(text)} is no action: use none, log or signal:NAME")


def read_count(text: str) -> int | None:
    """Read a whole number; ``none`` is None."""
    if text == "none":
        return None
    try:
        return units.parse_count(text)
    except ValueError as error:
        raise ValueError(f"{error}; or none") from None


def read_signal(text: str) -> int:
    """Read a signal; ``none`` is 0."""
    return 0 if text == "none" else units.parse_signal(text)


def read_rewrite(text: str) -> tuple[tuple[int, int], ...]:
    """Read ``FROM:TO``, two signals, TO none being 0; ``none`` is empty."""
    if text == "none":
        return ()
    taken, colon, sent = text.partition(":")
    if not colon or not taken or not sent:
        raise ValueError(f"{units.shown(text)} is no rewriting: use FROM:TO, as in TERM:QUIT")
    number = units.parse_signal(taken)
    if number in NEVER_PASSED_ON:
        raise ValueError(f"{units.signal_name(number)} {NEVER_PASSED_ON[number]}")
    return ((number, read_signal(sent)),)


def read_map_exit(text: str) -> tuple[tuple[int, int], ...]:
    """Read ``A=B``, two exit codes; ``none`` is empty."""
    if text == "none":
        return ()
    ours, equals, theirs = text.partition("=")
    if not equals:
        raise ValueError(f"{units.shown(text)} maps no exit code: use A=B, as in 143=0")
    return ((read_exit_code(ours), read_exit_code(theirs)),)


def read_exit_code(text: str) -> int:
    """Read 0 to 255, or ``128+`` and a signal."""
    if text[:4] == "128+":
        return numbers.SIGNAL_EXIT_BASE + units.parse_signal(text[4:])
    try:
        return units.parse_integer(text, 0, 255, "exit code")
    except ValueError as error:
        raise ValueError(f"{error}; or 128+ and a signal, as in 128+TERM") from None


def read_codes(text: str) -> tuple[str, ...]:
    """Read codes of findings that can be allowed; ``none`` is empty."""
    if text == "none":
        return ()
    codes = units.split_list(text)
    for code in codes:
        if code not in CODES:
            hint = units.did_you_mean(code, CODES)
            raise ValueError(f"{units.shown(code)} is the code of no finding{hint}")
        if not CODES[code][2]:
            raise ValueError(f"{code} cannot be allowed: nothing could be started with it")
    return codes


def _refuse_option(text: str) -> None:
    """Refuse as a name what is empty, or is the next option of a line that forgot the value."""
    if not text:
        raise ValueError("'' is no name: use a name or a path, or none")
    if text[:2] == "--":
        raise ValueError(f"{units.shown(text)} looks like an option; ./{text} would be a path")


def read_report(text: str) -> ReportTo | None:
    """Read a path or ``fd:N``; ``none`` is None; a placeholder must be known."""
    if text == "none":
        return None
    if text[:3] == "fd:":
        return ReportTo("", units.parse_integer(text[3:], 0, 2**31 - 1, "descriptor"))
    _refuse_option(text)
    for part in text.split("{")[1:]:
        word, closed, _ = part.partition("}")
        if closed and word not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"{units.shown('{' + word + '}')} is no placeholder: use {known}")
    return ReportTo(text)


def read_text(text: str) -> str:
    """Read any text but the empty one; ``none`` is empty."""
    _refuse_option(text)
    return "" if text == "none" else text


# kind: text of one occurrence → value; choices read their row too
READERS: dict[str, Callable[..., Any]] = {
    SWITCH: read_switch,
    "choice": read_choice,
    "children": read_children,
    "lock": read_lock,
    "size": read_prefault,
    "amount": read_amount,
    "number": read_number,
    "pages": read_pages,
    "hugepages": read_hugepages,
    "limit": read_limit,
    "rlimit": read_rlimit,
    "caps": read_caps,
    "user": read_user,
    "sched": read_sched,
    "cpus": read_cpus,
    "nice": read_nice,
    "slack": read_slack,
    "arm": read_arm,
    "reaction": read_reaction,
    "count": read_count,
    "signal": read_signal,
    "rewrite": read_rewrite,
    "mapexit": read_map_exit,
    "codes": read_codes,
    "report": read_report,
    "text": read_text,
}
ROW_KINDS = ("choice", "children")  # their readers need the row


def read(row: Row, text: str) -> Any:
    """Read one text of ``row``'s option; ValueError says what is allowed."""
    reader = READERS[row.kind]
    return reader(text, row) if row.kind in ROW_KINDS else reader(text)
