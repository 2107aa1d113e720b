"""The words in which people give values: sizes, times, CPU lists, signals, capabilities, limits.

Each parser turns text into the kernel's own number or raises ValueError with a
message that a person can act on: the text, what is wrong, what is allowed.
The names and numbers are those of :mod:`rtlaunch.core.numbers`.
Nothing here knows of options, and nothing is asked of this machine.
"""

from __future__ import annotations

from rtlaunch.core.numbers import (
    CAPABILITIES,
    CAPABILITY_NUMBERS,
    RLIMIT_NUMBERS,
    RLIMITS,
    RLIMITS_IN_BYTES,
    SCHED_POLICIES,
    SIGNAL_NUMBERS,
    SIGNALS,
    SIGRTMAX,
    SIGRTMIN,
    UNLIMITED,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST = 2**63 - 1  # what fits an off_t, a long and an rlimit that is not RLIM_INFINITY
LARGEST_DIGITS = 19  # of LARGEST; longer texts are refused before int() reads them
LAST_CPU = 8191  # the kernel's largest CONFIG_NR_CPUS less one
SHOWN_CHARS = 60  # of a value in a message

SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
TIME_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


# --- texts -----------------------------------------------------------------------------------


def shown(text: str) -> str:
    """Quote ``text`` for a message, on one line and no longer than a line takes."""
    return repr(text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…")


def split_list(text: str) -> tuple[str, ...]:
    """Split ``a,b,c``; ValueError when an item, or all of it, is empty."""
    items = tuple(text.split(","))
    if not all(items):
        raise ValueError(f"{shown(text)} has an empty item: separate by single commas, as in a,b")
    return items


def distance(one: str, other: str) -> int:
    """Count the single-letter mistakes between two words; two letters swapped are one."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, left in enumerate(one):
        before, last, row = row, before, [i + 1]
        for j, right in enumerate(other):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (left != right)))
            if last and j and (left, one[i - 1]) == (other[j - 1], right):
                row[-1] = min(row[-1], last[j - 1] + 1)
    return row[-1]


def near(word: str, known: Iterable[str]) -> str:
    """Return the one of ``known`` that was probably meant by ``word``, or an empty string.

    It is the one that continues ``word``, else the nearest with at most one mistake in
    three letters.
    """
    names = sorted(known)
    longer = [name for name in names if len(word) > 1 and name.startswith(word)]
    if len(longer) == 1:
        return longer[0]
    allowed = max(1, len(word) // 3)
    names = [name for name in names if abs(len(name) - len(word)) <= allowed]
    best = min(names, key=lambda name: distance(word, name), default="")
    return best if best and distance(word, best) <= allowed else ""


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``; did you mean NAME?`` for the near name in ``known``, or an empty string."""
    name = near(word, known)
    return f"; did you mean {prefix}{name}?" if name else ""


# --- numbers, sizes, times -------------------------------------------------------------------


def _digits(text: str) -> bool:
    """Whether ``text`` is plain ASCII digits; int() alone would take ``1_0`` and ``+1``."""
    return text.isascii() and text.isdigit()


def _bounded(text: str, digits: str, unit: int, noun: str) -> int:
    """Return ``digits`` times ``unit``; ValueError past 2^63-1."""
    significant = digits.lstrip("0") or "0"
    if len(significant) > LARGEST_DIGITS or int(significant) * unit > LARGEST:
        raise ValueError(f"{shown(text)} is too large a {noun}: the most is 2^63-1")
    return int(significant) * unit


def parse_count(text: str) -> int:
    """Read a whole number from 0 to 2^63-1; ValueError otherwise."""
    if not _digits(text):
        raise ValueError(f"{shown(text)} is no count: use a whole number from 0 up")
    return _bounded(text, text, 1, "count")


def parse_integer(text: str, low: int, high: int, noun: str) -> int:
    """Read a whole number from ``low`` to ``high``; ValueError names ``noun`` and the range."""
    digits = text.removeprefix("-") if text[:1] == "-" else text.removeprefix("+")
    if _digits(digits) and len(digits) <= LARGEST_DIGITS and low <= int(text) <= high:
        return int(text)
    raise ValueError(f"{shown(text)} is no {noun}: use a whole number from {low} to {high}")


def parse_size(text: str) -> int:
    """Read a size in bytes, ``512K`` being binary; ValueError if negative or past 2^63-1."""
    unit = text[-1:].upper() if not _digits(text[-1:]) else ""
    digits = text[: len(text) - len(unit)]
    if unit not in SIZE_UNITS or not _digits(digits):
        raise ValueError(f"{shown(text)} is no size: use bytes, or K, M, G, T (binary), as in 512K")
    return _bounded(text, digits, SIZE_UNITS[unit], "size")


def parse_time(text: str) -> int:
    """Read a time in nanoseconds from ``50us``, ``10ms``, ``2s``; ValueError without a unit."""
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :]
    if unit not in TIME_UNITS or not _digits(digits):
        raise ValueError(
            f"{shown(text)} is no time: use a whole number with ns, us, ms or s, as in 50us"
        )
    return _bounded(text, digits, TIME_UNITS[unit], "time")


def _format_scaled(value: int, units: tuple[tuple[str, int], ...]) -> str:
    """Write ``value`` in the largest of ``units`` that it fills: whole if exact, else a tenth."""
    name, unit = next((pair for pair in units if abs(value) >= pair[1]), units[-1])
    return f"{value // unit} {name}" if value % unit == 0 else f"{value / unit:.1f} {name}"


BYTES_SHOWN = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("bytes", 1))
TIMES_SHOWN = (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))


def format_size(size_bytes: int) -> str:
    """Write a size for a message: ``8 MiB``, ``589.8 MiB``, ``unlimited``."""
    return "unlimited" if size_bytes == UNLIMITED else _format_scaled(size_bytes, BYTES_SHOWN)


def format_time(time_ns: int) -> str:
    """Write a time for a message: ``50 us``, ``1.5 ms``, ``2 s``."""
    return _format_scaled(time_ns, TIMES_SHOWN)


def format_limit(name: str, value: int) -> str:
    """Write the value of rlimit ``name`` for a message, in its own unit."""
    if value == UNLIMITED or name in RLIMITS_IN_BYTES:
        return format_size(value)
    return str(value)


def _spell(value: int, units: dict[str, int]) -> str:
    """Write ``value`` as its parser reads it, in the largest unit that divides it."""
    fitting = {unit: scale for unit, scale in units.items() if value % scale == 0}
    unit = max(fitting, key=lambda unit: fitting[unit]) if value else min(units, key=len)
    return f"{value // units[unit]}{unit}"


def spell_size(size_bytes: int) -> str:
    """Write a size as :func:`parse_size` reads it: ``512K``; -1 is ``unlimited``."""
    return "unlimited" if size_bytes == UNLIMITED else _spell(size_bytes, SIZE_UNITS)


def spell_time(time_ns: int) -> str:
    """Write a time as :func:`parse_time` reads it: ``50us``."""
    return _spell(time_ns, TIME_UNITS)


# --- CPUs ------------------------------------------------------------------------------------


def _parse_cpu_range(text: str) -> range:
    first, dash, last = text.partition("-")
    low = parse_integer(first, 0, LAST_CPU, "CPU")
    high = parse_integer(last, 0, LAST_CPU, "CPU") if dash else low
    if high < low:
        raise ValueError(f"{shown(text)} is no CPU range: its end is below its start")
    return range(low, high + 1)


def parse_cpus(text: str) -> tuple[int, ...]:
    """Read a CPU list such as ``0,2-3``, ascending and each once; ValueError past CPU 8191."""
    if not text:
        raise ValueError("'' is no CPU list: use numbers and ranges, as in 0,2-3")
    return tuple(sorted({cpu for part in split_list(text) for cpu in _parse_cpu_range(part)}))


def format_cpus(cpus: Iterable[int]) -> str:
    """Write CPUs as a list with ranges, as the kernel does: ``0,2-3``."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


# --- signals ---------------------------------------------------------------------------------


def _parse_realtime(name: str) -> int | None:
    """Return the number of ``RTMIN+N`` or ``RTMAX-N``, None if ``name`` is neither."""
    for word, base, sign, step in (("RTMIN", SIGRTMIN, "+", 1), ("RTMAX", SIGRTMAX, "-", -1)):
        if name == word:
            return base
        offset = name.removeprefix(word + sign)
        if offset != name and _digits(offset) and len(offset) <= 2:
            return base + step * int(offset)
    return None


def _signal_number(text: str) -> int | None:
    name = text.upper().removeprefix("SIG")
    if _digits(text) and len(text) <= 2:
        return int(text)
    return SIGNAL_NUMBERS.get(name) or _parse_realtime(name)


def parse_signal(text: str) -> int:
    """Read a signal's name (``TERM``, ``SIGTERM``, ``RTMIN+3``) or number; ValueError if none.

    32 and 33 are refused: they belong to the C library's threads (signal(7)).
    """
    number = _signal_number(text)
    if number in SIGNALS or (number is not None and SIGRTMIN <= number <= SIGRTMAX):
        return number
    hint = did_you_mean(text.upper().removeprefix("SIG"), SIGNAL_NUMBERS)
    raise ValueError(
        f"{shown(text)} is no signal: use a name such as TERM or RTMIN+3, "
        f"or a number from 1 to 31 or 34 to 64{hint}"
    )


def signal_name(number: int) -> str:
    """Return the name without SIG: ``TERM``, ``RTMIN+3``; the number itself if it has none."""
    if SIGRTMIN <= number <= SIGRTMAX:
        return f"RTMIN+{number - SIGRTMIN}"
    return SIGNALS.get(number, str(number))


# --- capabilities, limits, policies ----------------------------------------------------------


def parse_capability(text: str) -> str:
    """Read ``ipc_lock`` or ``CAP_IPC_LOCK`` into ``ipc_lock``; ValueError if unknown."""
    name = text.lower().removeprefix("cap_")
    if name in CAPABILITY_NUMBERS:
        return name
    hint = did_you_mean(name, CAPABILITIES)
    raise ValueError(f"{shown(text)} is no capability: use a name such as ipc_lock{hint}")


def capability_names(mask: int) -> tuple[str, ...]:
    """Name the bits of a capability mask as /proc/PID/status has it, ascending.

    A bit that this table does not know is ``cap_N``, as capsh(1) writes it.
    """
    bits = (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    return tuple(CAPABILITIES[bit] if bit < len(CAPABILITIES) else f"cap_{bit}" for bit in bits)


def parse_rlimit_name(text: str) -> str:
    """Read an rlimit's name (``nofile``, ``RLIMIT_NOFILE``); ValueError if unknown."""
    name = text.lower().removeprefix("rlimit_")
    if name in RLIMIT_NUMBERS:
        return name
    hint = did_you_mean(name, RLIMITS)
    raise ValueError(f"{shown(text)} is no limit: use one of {', '.join(RLIMITS)}{hint}")


def parse_rlimit_value(text: str) -> int:
    """Read a number, a size or ``unlimited`` (:data:`UNLIMITED`); ValueError otherwise."""
    if text == "unlimited":
        return UNLIMITED
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(f"{error}; or unlimited") from None


def parse_policy(text: str) -> str:
    """Read a scheduling policy's name; ValueError if unknown, and for ``deadline``.

    SCHED_DEADLINE takes a runtime and a period, and its tasks may neither fork nor
    be pinned (sched(7)): a launcher cannot give it to any program.
    """
    if text in SCHED_POLICIES:
        return text
    if text == "deadline":
        raise ValueError(
            "'deadline' cannot be given from outside: it needs a runtime and a period, "
            "and forbids fork; the program calls sched_setattr itself"
        )
    hint = did_you_mean(text, SCHED_POLICIES)
    raise ValueError(f"{shown(text)} is no policy: use {', '.join(SCHED_POLICIES)}{hint}")
