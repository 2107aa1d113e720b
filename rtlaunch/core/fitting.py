"""What is recommended of what was measured: the line, the limits, and by how much they are larger.

Pure. A recommendation must not break what it is for: a stack is given twice the depth that was
seen, and never less than the floor of its runtime; a limit leaves an eighth, since another run
takes some pages more. It stays below what is a third more than the need, so that a limit a quarter
smaller than recommended is refused before the start and not met later.
"""

from __future__ import annotations

from rtlaunch.core import fit, spelling
from rtlaunch.core.options import SETTINGS, SWITCH, Options
from rtlaunch.core.profile import PROFILE_FORMAT
from rtlaunch.core.record import Record, replace
from rtlaunch.core.units import spell_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.options import Row

KIB, MIB = 1 << 10, 1 << 20

MARGIN_SHARE = 8  # of a need: an eighth
MARGIN_LEAST = 512 * KIB  # what a small program may take more another time
MARGIN_MOST_SHARE = 4  # but no more than a quarter of it

# What threads' stacks are while it is measured, where nothing was given: glibc's own default where
# there is no limit (ARCH_STACK_DEFAULT_SIZE). Programs that make their stacks by the default, so or
# so many times it, show that: redis-server has 4 MiB then, at 8 MiB it would have that.
MEASURED_STACK = 2 * MIB

DEPTH_FACTOR = 2  # another input goes deeper: what was seen, twice
STACK_STEP = 64 * KIB
# A signal handler with AVX-512 state, printf of a long double, name resolution: 64 KiB and more.
THREAD_STACK_LEAST = 256 * KIB
# By runtime, measured (rtlaunch/profiles): less ends in a SIGSEGV where Python would have raised
# RecursionError, and C called from Go has no other stack.
THREAD_STACK_FLOOR = {fit.PYTHON: 2 * MIB, fit.GO: 1 * MIB}
PREFAULT_LEAST = 256 * KIB

# What runs beside the program in its container: rtlaunch itself (VmHWM of one that supervises:
# 11.7 MiB), and what the kernel has for each thread (its stack, 16 KiB, and task_struct) and for
# page tables (8 bytes a page, upper levels beside).
LAUNCHER_BYTES = 12 * MIB
KERNEL_THREAD_BYTES = 32 * KIB
KERNEL_BYTES = 1 * MIB
TABLE_SHARE = 512

# The forms of --lock that are told, the default first.
FORMS = (
    ("current", "future"),
    ("current", "future", "onfault"),
    ("current",),
    ("future",),
)
NO_FORM = ("none",)


class Choice(Record):
    """What may be chosen for this program: what it does not support, or has been given, may not.

    ``thread_stack`` and ``arenas`` are what it was measured with, None where that is left alone;
    ``usual_stack`` is the size that threads' stacks have without.
    """

    prefault: bool
    usual_stack: int
    thread_stack: int | None = None
    arenas: int | None = None


class Advice(Record):
    """What was found and is recommended; sizes in bytes.

    ``needs`` has each form of lock, ``need`` the one of the options. ``thread_stack`` and
    ``prefault`` are None where nothing is recommended for them. ``memlock`` is 0 where nothing is
    locked. ``container`` is for the program, rtlaunch and what the kernel has for both, whose peak
    is ``container_need``.
    """

    form: tuple[str, ...]
    needs: Mapping[str, fit.Need]
    need: fit.Need
    memlock: int
    container_need: int
    container: int
    thread_stack: int | None
    prefault: int | None
    arenas: int | None


def rounded(size: int, step: int) -> int:
    """Return ``size`` rounded up to a multiple of ``step``."""
    return -(-size // step) * step


def with_margin(need: int) -> int:
    """Return a need with its margin: an eighth, at least 512 KiB, at most a quarter."""
    return need + min(max(need // MARGIN_SHARE, MARGIN_LEAST), need // MARGIN_MOST_SHARE)


def advise(course: fit.Course, options: Options, choice: Choice, runtime: str) -> Advice:
    """Return what is recommended for a program that was measured with ``options``."""
    size = stack_of_threads(course, choice, runtime)
    thread_stack = size if size and size < choice.usual_stack else None
    prefault = stack_of_main(course) if choice.prefault else None
    touched = options.prefault_stack if prefault is None else prefault
    shape = fit.Shape(choice.thread_stack or 0, size, touched)
    need = fit.need(course, shape, options.lock)
    # mlockall(MCL_CURRENT) compares the limit with all that is mapped (mm/mlock.c)
    at_main = course.entry.mapped if course.entry and "current" in options.lock else 0
    locked = max(need.locked, at_main)
    limited = max(need.locked + course.huge, at_main)
    container = in_container(course, need)
    return Advice(
        form=options.lock or NO_FORM,
        needs=fit.needs(course, shape, FORMS),
        need=replace(need, locked=locked if options.lock else 0),
        memlock=rounded(with_margin(limited), STACK_STEP) if options.lock else 0,
        container_need=container,
        container=rounded(with_margin(container), MIB),
        thread_stack=thread_stack,
        prefault=prefault,
        arenas=choice.arenas if course.threads > 1 else None,
    )


def stack_of_threads(course: fit.Course, choice: Choice, runtime: str) -> int:
    """Return the stack that threads should have, 0 where that is left alone.

    Where all have a size of their own it is what it was measured with: they may have asked for it.
    """
    if choice.thread_stack is None or not course.stacks:
        return 0
    if not course.default_stacks:
        return choice.thread_stack
    least = max(THREAD_STACK_LEAST, THREAD_STACK_FLOOR.get(runtime, 0))
    size = max(least, rounded(course.default_depth * DEPTH_FACTOR, STACK_STEP))
    return min(size, choice.usual_stack)


def stack_of_main(course: fit.Course) -> int:
    """Return how much of the main stack should be touched before main()."""
    return max(PREFAULT_LEAST, rounded(course.main_depth * DEPTH_FACTOR, STACK_STEP))


def in_container(course: fit.Course, need: fit.Need) -> int:
    """Return what a memory cgroup is charged with: the program, its children, rtlaunch, the kernel.

    Files count whole: in a new container nobody else has them in memory yet.
    """
    kernel = KERNEL_BYTES + course.threads * KERNEL_THREAD_BYTES
    kernel += max(course.tables, need.resident // TABLE_SHARE)
    return need.resident + course.others + LAUNCHER_BYTES + kernel


# --- in words --------------------------------------------------------------------------------


class Found(Record):
    """All that one measuring run came to, for who shows it.

    ``line`` is the command line that is recommended, ``path`` the profile that was written, "" for
    none. ``run_ns`` is how long the program ran, ``traced`` whether its end was looked at,
    ``stopped`` whether it was ended for ``--for``. ``ended`` is how: its exit code, or 128 + N.
    """

    command: tuple[str, ...]
    line: tuple[str, ...]
    path: str
    course: fit.Course
    advice: Advice
    allocator: str
    runtime: str
    default_stack: int
    run_ns: int
    traced: bool
    stopped: bool
    ended: int


def chosen(options: Options, advice: Advice) -> Options:
    """Return the options with what is recommended in place of what was not given."""
    known = {
        "thread_stack": advice.thread_stack,
        "prefault_stack": advice.prefault,
        "arenas": advice.arenas,
    }
    return replace(options, **{name: value for name, value in known.items() if value is not None})


def recommended(advice: Advice, with_memlock: bool) -> dict[str, str]:
    """Return the options that the line has besides those that were given, as texts."""
    memlock = advice.memlock if with_memlock else 0
    sizes = {
        "memlock": memlock or None,
        "thread-stack": advice.thread_stack,
        "prefault-stack": advice.prefault,
    }
    texts = {name: spell_size(size) for name, size in sizes.items() if size is not None}
    return texts if advice.arenas is None else {**texts, "arenas": str(advice.arenas)}


def profile_text(found: Found, options: Options, heading: str) -> str:
    """Return a profile that asks for the same, and has what was measured in its table ``[fit]``.

    ValueError where the command holds bytes that TOML, which is UTF-8, cannot.
    """
    lines = [f"# {heading}", "", f"format = {PROFILE_FORMAT}"]
    lines.append(f"command = [{', '.join(map(in_toml, found.command))}]")
    lines += [line for row in SETTINGS if row.name not in ("profile", "limit")
              for line in setting(row, options)]  # fmt: skip
    if options.limit:
        asked = (spelling.write_limit_demand(ask).partition("=") for ask in options.limit)
        lines += ["", "[limit]", *(f"{name} = {in_toml(value)}" for name, _, value in asked)]
    need = found.advice.need
    lines += ["", "[fit]", f"locked_bytes = {need.locked}", f"resident_bytes = {need.resident}"]
    return "\n".join([*lines, f"threads = {max(1, found.course.threads)}", ""])


def setting(row: Row, options: Options) -> list[str]:
    """Return the line of one option; none where it is as it is anyway."""
    value = getattr(options, row.field)
    if value == getattr(Options(), row.field):
        return []
    text = spelling.write(row, value)
    if row.kind == SWITCH:
        return [f"{row.name} = {text}"]
    if row.kind == "hugepages":
        return [f"{row.name} = [{', '.join(map(in_toml, text.split()))}]"]
    return [f"{row.name} = {in_toml(text)}"]


def in_toml(text: str) -> str:
    """Write a text as a basic string of TOML; ValueError for what is no UTF-8."""
    text.encode()
    escaped = (
        f"\\u{ord(char):04x}"
        if char < " " or char == "\x7f"
        else f"\\{char}"
        if char in '"\\'
        else char
        for char in text
    )
    return f'"{"".join(escaped)}"'
