"""What to do about a finding, here: the row of the remedy table that fits, filled with its values.

Why: a refusal that does not say who set the limit and which command changes it
only moves the search elsewhere. Pure, and imported only once there is a finding
to show. It must not decide whether a launch goes on.
"""

from __future__ import annotations

from rtlaunch.core.argv import PROGRAM, quoted
from rtlaunch.core.numbers import CAPABILITIES, UNLIMITED
from rtlaunch.core.options import BY_NAME
from rtlaunch.core.printable import one_line
from rtlaunch.core.record import Record, replace
from rtlaunch.core.remedies import BY_PLACE, RATIONED
from rtlaunch.core.remedies_anywhere import ANYWHERE, ON_HOST
from rtlaunch.core.remedies_budget import SANITIZED, SMALLER_HEAP, UNTOUCHED
from rtlaunch.core.remedies_files import for_file
from rtlaunch.core.remedies_memlock import CLAMPED, HEADROOM, MEMLOCK, OWN_LIMIT, STALE
from rtlaunch.core.unitfile import hard_limit, is_more
from rtlaunch.core.units import format_cpus, format_limit, spell_size
from rtlaunch.core.where import CI, CONTAINERS, KUBERNETES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rtlaunch.core.findings import Finding
    from rtlaunch.core.remedies_parts import Row, Rows
    from rtlaunch.core.where import Where


# MCL_FUTURE charges virtual size, 8 MiB for each default thread stack: what is
# needed at start is never enough for long.
LEAST_MEMLOCK = 64 << 20
GROWTH = 2

LEAST_STACK = 4096  # below a page no stack is touched
SMALL_STACK = 64 << 10

# Below 128K glibc gives none on aarch64; few programs need more than 1M for a thread.
USUAL_THREAD_STACK = "256K"
SMALL_THREAD_STACK, LARGE_THREAD_STACK = 128 << 10, 1 << 20

# An image that has rtlaunch as its entrypoint takes the same words as one that has none.
IN_IMAGE = f"--entrypoint {PROGRAM} IMAGE"

COMMAND_SHOWN = 160  # characters of a command line; a longer one is cut at a word

# limits.conf(5): these items count KiB there, bytes in the kernel; cpu counts minutes.
KIB_ITEMS = frozenset({"as", "core", "data", "fsize", "memlock", "rss", "stack"})


class Context(Record):
    """The line that was typed, which the remedies print changed: options, and quoted command."""

    options: tuple[str, ...] = ()
    command: str = "COMMAND"


def with_remedy(finding: Finding, where: Where, context: Context) -> Finding:
    """Return ``finding`` with those parts of its remedy filled in that it does not bring along."""
    set_by, try_now, for_good = remedy(finding, where, context)
    return replace(
        finding,
        set_by=finding.set_by or set_by,
        try_now=finding.try_now or try_now,
        for_good=finding.for_good or for_good,
    )


def remedy(finding: Finding, where: Where, context: Context) -> Row:
    """Return who set it, what to try now and what to change for good, at this place."""
    own = BY_PLACE.get(finding.code) in (MEMLOCK, HEADROOM) and asked_too_little(finding.values)
    special = OWN_LIMIT if own else special_row(finding, where)
    row = special or row_for(finding.code, where)
    names = names_for(finding, where, context)
    set_by, try_now, for_good = (template % names for template in row)
    if "fitting_heap" in finding.values and "%(small_heap)s" not in row[1]:
        try_now += SMALLER_HEAP % names
    if finding.code in ON_HOST and not special and _inside(where):
        outside = "on the node: " if where.kind == KUBERNETES else "on the host: "
        return set_by, outside + try_now, outside + for_good
    return set_by, try_now, for_good


def special_row(finding: Finding, where: Where) -> Row | None:
    """Return the row that a finding's values lead to rather than its code; None for most."""
    if "rationed" in finding.values:
        return row_at(RATIONED, where)
    if "untouched" in finding.values:
        return UNTOUCHED
    if "sanitizer" in finding.values:
        return SANITIZED
    return clamped_row(finding, where) or for_file(finding.code, finding.values)


def clamped_row(finding: Finding, where: Where) -> Row | None:
    """Return the row for a unit that was given less than its files say; None for any other."""
    asked = hard_limit(where.unit_memlock) if where.unit_memlock else None
    if BY_PLACE.get(finding.code) not in (MEMLOCK, HEADROOM):
        return None
    if not is_more(asked, finding.values.get("hard")):
        return None
    return STALE if where.manager_raises else CLAMPED


def asked_too_little(values: Mapping[str, object]) -> bool:
    """Tell whether the hard limit would suffice, and the soft one was set below it.

    The default, ``max``, makes both the same.
    """
    soft, hard, needed = (values.get(name) for name in ("soft", "hard", "needed_bytes"))
    if not isinstance(soft, int) or not isinstance(hard, int) or not isinstance(needed, int):
        return False
    return soft != hard and (hard == UNLIMITED or hard >= needed)


def _inside(where: Where) -> bool:
    return where.kind in CONTAINERS or where.inside in CONTAINERS


def row_for(code: str, where: Where) -> Row:
    """Return the row of the most exact place that the table knows; KeyError on an unknown code."""
    rows = BY_PLACE.get(code)
    if rows is None:
        return ANYWHERE[code]
    return row_at(rows, where)


def row_at(rows: Rows, where: Where) -> Row:
    """Return the row of the most exact place that these have."""
    return next(rows[place] for place in places(where) if place in rows)


def places(where: Where) -> Iterator[str]:
    """Yield the names of this place in the table, the most exact first."""
    kind = where.kind
    if kind == CI:
        yield f"ci-{where.ci}-{where.inside}"
        yield f"ci-{where.ci}"
        yield CI
        kind = where.inside
    if where.userns:
        yield f"{kind}-userns"
    if where.uid:
        yield f"{kind}-user"
    yield kind
    if not where.uid:
        yield "root"
    yield "*"
    yield "plain"


# What a template shows where the finding does not tell.
UNTOLD = {
    "capability": "CAP_IPC_LOCK",
    "limit": "NAME",
    "directive": "LimitNAME",
    "raw": "VALUE",
    "raw_unit": "VALUE",
    "raw_ulimit": "VALUE",
    "limits_d": "VALUE",
    "cgroup": "of this process",
    "pid": "PID",
    "enough": "SIZE",
    "page_size": "2M",
    "pool": "N",
    "asked": "COUNT",
    "file": "the hugetlb cgroup",
    "enough_bytes": "BYTES",
    "kept": "hugepages.damaged",
}


# For children that no shim gets into.
LOCK_EACH = "rtlaunch lock PID   # each of them, once it is there"


def names_for(finding: Finding, where: Where, context: Context) -> dict[str, str]:
    """Return every name that a template may use: the finding's values, the place, the line."""
    names = dict(UNTOLD)
    names["path"] = shortened(context.command).split(" ")[0]
    names.update({name: str(value) for name, value in finding.values.items()})
    names["path"] = quoted((names.get("profile", names["path"]),))
    names.update(place_names(where))
    names.update(lines(finding, where, context))
    names.update(capability_names(names["capability"]))
    names.update(memlock_names(finding.values))
    names["unit_memlock"] = where.unit_memlock
    names.update(limit_names(finding.values))
    names.update(thread_names(finding.values))
    names["variable"] = variable_of(finding.values)
    names["cpus"] = _cpus(finding.values.get("asked"))
    return {name: one_line(text) for name, text in names.items()}


def place_names(where: Where) -> Mapping[str, str]:
    """Return what the place is called, and who we are there."""
    return {
        "uid": str(where.uid),
        "user": where.user or str(where.uid),
        "as_user": who(where),
        "limits_user": where.user or f":{where.uid}",  # limits.conf(5): that uid alone
        "unit": where.unit or "NAME.service",
        "container": where.container or "CONTAINER",
        "sudo": "sudo " if where.uid else "",
    }


def lines(finding: Finding, where: Where, context: Context) -> Mapping[str, str]:
    """Return the command line as it was typed, and with one option changed or more."""
    typed, cured = context.options, without_low_memlock(finding, context.options)
    reached_all = finding.values.get("children") == "all"
    user = who(where) if where.uid else "USER"

    def run(options: Sequence[str], *changed: str, by: str = PROGRAM) -> str:
        words = instead(options, *changed) if changed else options
        parts = (by, quoted(words), "--", shortened(context.command))
        return " ".join(part for part in parts if part)

    return {
        "command": shortened(context.command),
        "run": run(cured),
        "allow": run(typed, "--allow", finding.code),
        "run_user": run(cured, "--user", user),
        "image_run": run(cured, by=IN_IMAGE),
        "image_run_user": run(cured, "--user", user, by=IN_IMAGE),
        "memlock_max": run(typed, "--memlock", "max"),
        "all_children": LOCK_EACH if reached_all else run(typed, "--children", "all"),
        "via_auto": run(typed, "--via", "auto"),
        "run_ambient": run(
            instead(typed, "--user", user),
            "--ambient-caps",
            ambient_instead(finding.values),
        ),
        "mode_exec": run(typed, "--mode", "exec"),
        "mode_supervise": run(typed, "--mode", "supervise"),
        "small_stacks": run(cured, "--thread-stack", fitting_threads(finding.values)),
        "other_stacks": run(typed, "--thread-stack", USUAL_THREAD_STACK),
        "wide_stacks": run(typed, "--thread-stack", roomy_threads(finding.values)),
        "own_stacks": run(typed, "--thread-stack", "inherit"),
        "onfault": run(typed, "--lock", "current,future,onfault"),
        "small_prefault": run(typed, "--prefault-stack", fitting_stack(finding.values)),
        "pages_for_heap": run(typed, *heap_pages(finding.values)),
        "small_heap": run(typed, "--heap", str(finding.values.get("fitting_heap", "SIZE"))),
        "no_report": run(typed, "--report", "fd:2"),
    }


def who(where: Where) -> str:
    """Return who we are as --user's value; who has no entry in passwd is named with the group."""
    return where.user or f"{where.uid}:{where.gid}"


def ambient_instead(values: Mapping[str, object]) -> str:
    """Return what a file's capabilities are as --ambient-caps: they, and the one for locking."""
    try:
        given = int(str(values.get("permitted", "0")), 16)
    except ValueError:
        given = 0
    names = [name for number, name in enumerate(CAPABILITIES) if given >> number & 1]
    return ",".join(dict.fromkeys(("ipc_lock", *names)))


def heap_pages(values: Mapping[str, object]) -> tuple[str, str]:
    """Return the option that gives a heap its huge pages, or that has it do without."""
    lease = values.get("lease")
    return ("--hugepages", lease) if isinstance(lease, str) else ("--heap-pages", "base")


def without_low_memlock(finding: Finding, typed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options without a --memlock below the hard limit, which no place would cure."""
    values = finding.values
    memlock = BY_PLACE.get(finding.code) in (MEMLOCK, HEADROOM)
    if memlock and values.get("soft") != values.get("hard"):
        return instead(typed, "--memlock", "max")
    return typed


def instead(typed: Sequence[str], option: str, value: str) -> tuple[str, ...]:
    """Return the options with this one where it stood, or at the end where it did not.

    One that may be repeated replaces only its like: --limit that of the same name.
    """
    made: list[str] = []
    placed = False
    for words in one_by_one(typed):
        if not is_alike(words, option, value):
            made += words
        elif not placed:
            made += (option, value)
            placed = True
    return tuple(made) if placed else (*made, option, value)


def one_by_one(typed: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield each option, with its value where that is a word of its own."""
    words = iter(typed)
    for word in words:
        row = BY_NAME.get(word[2:]) if word[:2] == "--" else None
        value = next(words, None) if row and row.takes_value else None
        yield (word,) if value is None else (word, value)


def is_alike(words: tuple[str, ...], option: str, value: str) -> bool:
    """Tell whether ``words`` give the same option, and for one of many the same item of it."""
    name, equals, joined = words[0].partition("=")
    if name != option:
        return False
    given = joined if equals else words[-1]
    same_item = given.partition("=")[0] == value.partition("=")[0]
    return same_item or not BY_NAME[option[2:]].repeatable


def fitting_stack(values: Mapping[str, object]) -> str:
    """Return how much stack may be touched, as an option's value: a power of two, or none."""
    room = values.get("room_bytes")
    if not isinstance(room, int):
        return spell_size(SMALL_STACK)
    return spell_size(1 << room.bit_length() - 1) if room >= LEAST_STACK else "none"


def fitting_threads(values: Mapping[str, object]) -> str:
    """Return a thread's stack of which two fit into what may still be locked, as a size."""
    room = values.get("headroom_bytes")
    half = room // 2 if isinstance(room, int) else LARGE_THREAD_STACK
    stack = 1 << max(half, SMALL_THREAD_STACK).bit_length() - 1
    return spell_size(min(stack, LARGE_THREAD_STACK))


def roomy_threads(values: Mapping[str, object]) -> str:
    """Return a stack that arguments and environment take a quarter of at most, as a size."""
    needed = values.get("needed_bytes")
    quarter = needed if isinstance(needed, int) else 0
    return spell_size(max(1 << (4 * quarter).bit_length(), SMALL_THREAD_STACK))


def thread_names(values: Mapping[str, object]) -> Mapping[str, str]:
    """Return the stack that was asked for threads: as an option's value, and in KiB."""
    asked = values.get("asked_bytes")
    size = asked if isinstance(asked, int) else 256 << 10
    return {"thread_size": spell_size(size), "thread_kib": str(size >> 10)}


def shortened(command: str) -> str:
    """Cut a command line that would not fit a message, at a word."""
    if len(command) <= COMMAND_SHOWN:
        return command
    return command[:COMMAND_SHOWN].rsplit(" ", 1)[0] + " ..."


def variable_of(values: Mapping[str, object]) -> str:
    """Return the environment variable that a finding is about: the first it lists, or a twin."""
    listed, option = values.get("variables"), values.get("option")
    if isinstance(listed, (list, tuple)) and listed:
        return str(listed[0])
    return "RTLAUNCH_" + (str(option).upper().replace("-", "_") if option else "OPTION")


def capability_names(capability: str) -> Mapping[str, str]:
    """Return a capability as containers spell it, as everyone else does, and the flag for it."""
    bare = capability.upper().removeprefix("CAP_")
    return {"cap": bare, "capability": f"CAP_{bare}", "cap_flag": f"--cap-add {bare}"}


def memlock_names(values: Mapping[str, object]) -> Mapping[str, str]:
    """Return a memlock limit that suffices: in bytes, in KiB and as an option's value."""
    needed = values.get("needed_bytes")
    size = enough_memlock(needed if isinstance(needed, int) else 0)
    hard = values.get("hard")
    given = format_limit("memlock", hard) if isinstance(hard, int) else "less"
    return {"bytes": str(size), "kib": str(size >> 10), "size": spell_size(size), "given": given}


def enough_memlock(needed_bytes: int) -> int:
    """Return a limit in bytes for a program that needs this much at start: a power of two."""
    return max(LEAST_MEMLOCK, 1 << (GROWTH * needed_bytes - 1).bit_length())


def limit_names(values: Mapping[str, object]) -> Mapping[str, str]:
    """Return a demanded rlimit as prlimit, systemd.exec(5) and limits.conf(5) spell it."""
    name, soft = values.get("limit"), values.get("soft")
    if not isinstance(name, str) or not isinstance(soft, int):
        return {}
    spelled = {"raw": "unlimited", "raw_unit": "infinity", "raw_ulimit": "-1"}
    if soft != UNLIMITED:
        spelled = dict.fromkeys(spelled, str(soft))
    return {**spelled, "directive": f"Limit{name.upper()}", "limits_d": limits_d(name, soft)}


def limits_d(name: str, value: int) -> str:
    """Return a limit as /etc/security/limits.d counts it (limits.conf(5))."""
    if value == UNLIMITED:
        return "unlimited"
    if name in KIB_ITEMS:
        return str(-(-value // 1024))
    return str(-(-value // 60) if name == "cpu" else value)


def _cpus(asked: object) -> str:
    if isinstance(asked, (list, tuple)) and asked:
        return format_cpus(int(cpu) for cpu in asked)
    return "LIST"
