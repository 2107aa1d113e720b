"""What a program was seen to take, and what that comes to once it is locked.

Pure: texts of /proc become samples, samples peaks, peaks needs. The program was measured unlocked;
mlockall charges each mapping that it can lock with its whole size, touched or not, and fills what
may be accessed. Both can be told from its mappings alone, so that nobody has to be allowed to lock
in order to learn how much (docs/decisions/0031). What is recommended of it is
:mod:`rtlaunch.core.fitting`'s.
"""

from __future__ import annotations

from rtlaunch.core import allocators, proc, proof
from rtlaunch.core.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ARENA_BYTES = 64 << 20  # HEAP_MAX_SIZE on 64 bits: an arena's heap begins at a multiple of it
HUGE_BYTES = 2 << 20
JOINED_MOST = 64 << 10  # thread-local storage and the like of the main thread
GUARD_MOST = 64 << 10  # below a thread's stack; glibc has one page of it, musl two

GLIBC, MUSL, UNKNOWN = "glibc", "musl", "unknown"
PYTHON, JVM, GO = "Python", "JVM", "Go"

# what a mapped file is called: whose it is
LIBCS = (
    ("libc.so.6", GLIBC), ("libc-2.", GLIBC),
    ("ld-musl", MUSL), ("libc.musl", MUSL), ("libc.so", MUSL),
)  # fmt: skip
RUNTIMES = (("libjvm.so", JVM), ("libpython", PYTHON), ("python3", PYTHON), ("python2", PYTHON))


class Stack(Record):
    """A thread's stack: its mapping, with the guard, and how deep it was ever used, in bytes.

    ``default`` tells whether its size is the one that ``--thread-stack`` sets.
    """

    start: int
    size: int
    depth: int
    default: bool


class Candidate(Record):
    """Memory that huge pages could hold: private, anonymous, writable, 2 MiB of it in use."""

    start: int
    size: int
    resident: int
    name: str


class Place(Record):
    """What the kernel cannot be asked once it is measured.

    ``lowest`` returns the lowest address in use between two, None if none is or nobody can tell;
    ``file_bytes`` the length of a mapping's file; ``pointers`` are the threads' stack pointers.
    ``thread_stack`` is the default size of a thread's stack, ``others`` the private memory of
    its children.
    """

    page: int
    thread_stack: int
    pointers: tuple[int, ...] = ()
    lowest: Callable[[int, int], int | None] = lambda start, end: None
    file_bytes: Callable[[proc.Mapping], int | None] = lambda mapping: None
    others: int = 0


class Sample(Record):
    """One look at the program; sizes in bytes.

    ``mapped`` is VmSize, ``locked`` the sum of what mlockall can lock, ``populated`` VmRSS once
    that was filled, ``resident`` what VmRSS is. ``main_stack`` is the size of the main stack,
    ``main_depth`` how much of it was ever used. ``heap`` is malloc's own of glibc (brk and arenas),
    ``anonymous`` all other private memory without a file. ``huge`` are mappings of huge pages: they
    are not in VmLck, and RLIMIT_MEMLOCK counts them all the same when they are made.
    """

    mapped: int
    locked: int
    populated: int
    resident: int
    threads: int
    main_stack: int
    main_depth: int
    stacks: tuple[Stack, ...] = ()
    heap: int = 0
    anonymous: int = 0
    candidates: tuple[Candidate, ...] = ()
    others: int = 0
    huge: int = 0

    @property
    def default_stacks(self) -> int:
        """How many stacks have the size that ``--thread-stack`` sets."""
        return sum(1 for stack in self.stacks if stack.default)


# --- a look ----------------------------------------------------------------------------------


def look(status: proc.Status, mappings: Sequence[proc.Mapping], place: Place) -> Sample:
    """Make a sample of one reading of status and smaps."""
    lockable = [mapping for mapping in mappings if proof.lockable(mapping)]
    missing = sum(
        proof.missing_bytes(
            mapping, place.file_bytes(mapping) if mapping.inode else None, place.page
        )
        for mapping in lockable
        if mapping.rss < mapping.size
    )
    stacks = tuple(thread_stacks(mappings, place))
    main = next((mapping for mapping in mappings if mapping.path == "[stack]"), None)
    heaps = list(glibc_heaps(mappings))
    known = {stack.start for stack in stacks} | {mapping.start for mapping in heaps}
    rest = [one for one in mappings if is_anonymous(one) and one.start not in known]
    resident = sum(mapping.rss for mapping in mappings)  # VmRSS lags behind by a batch for each CPU
    return Sample(
        mapped=status.vm_size,
        locked=sum(mapping.size for mapping in lockable),
        populated=resident + missing,
        resident=resident,
        threads=status.threads,
        main_stack=main.size if main else 0,
        main_depth=depth(main, place) if main else 0,
        stacks=stacks,
        heap=sum(mapping.size for mapping in heaps),
        anonymous=sum(mapping.size for mapping in rest),
        candidates=tuple(candidates([*heaps, *rest])),
        others=place.others,
        huge=sum(mapping.size for mapping in mappings if "ht" in mapping.flags),
    )


def is_anonymous(mapping: proc.Mapping) -> bool:
    """Tell whether it is private, writable memory without a file, and no main stack."""
    nameless = not mapping.path or mapping.path.startswith("[anon")
    return nameless and mapping.perms[:2] == "rw" and mapping.perms[3] == "p"


def glibc_heaps(mappings: Sequence[proc.Mapping]) -> Iterable[proc.Mapping]:
    """Yield brk, and of each arena of glibc the part in use: the rest of its 64 MiB is reserved."""
    above: proc.Mapping | None = None
    for mapping in reversed(mappings):
        reserved = (
            above.size if above and above.start == mapping.end and not above.accessible else 0
        )
        above = mapping
        arena = not mapping.start % ARENA_BYTES and mapping.size + reserved >= ARENA_BYTES
        whole_arena = is_anonymous(mapping) and arena and mapping.size <= ARENA_BYTES
        if mapping.path == "[heap]" or whole_arena:
            yield mapping


def depth(mapping: proc.Mapping, place: Place) -> int:
    """Return how far down from its top a stack was ever used."""
    lowest = place.lowest(mapping.start, mapping.end)
    return mapping.rss if lowest is None else mapping.end - lowest


def thread_stacks(mappings: Sequence[proc.Mapping], place: Place) -> Iterable[Stack]:
    """Yield the stacks: what a stack pointer points into, and what has a small guard below.

    glibc keeps some of ended threads, and the pointer of a running thread is not to be had. A
    default stack is known by its size. That is a page less before glibc 2.27, and some more where
    the kernel joins the first one with the loader's memory above it; since 2.42 the guard is inside
    of the mapping.
    """
    before: proc.Mapping | None = None
    for mapping in mappings:
        below, before = before, mapping
        if not is_anonymous(mapping):
            yield from unborn_stacks(mapping, place)
            continue
        guarded = bool(below and below.end == mapping.start and not below.accessible)
        guard = below.size if below and guarded else 0
        inside = "gu" in mapping.flags and mapping.size == place.thread_stack
        more = mapping.size - place.thread_stack
        usual = inside or (guarded and -place.page <= more <= JOINED_MOST)
        pointed = any(mapping.start <= pointer < mapping.end for pointer in place.pointers)
        if usual or pointed or 0 < guard <= GUARD_MOST:
            yield Stack(mapping.start, mapping.size + guard, depth(mapping, place), usual)


def unborn_stacks(mapping: proc.Mapping, place: Place) -> Iterable[Stack]:
    """Yield stacks that glibc has mapped this moment, without access yet: whole ones with guards.

    The kernel joins them with the guard of the stack above.
    """
    size = place.thread_stack + place.page
    if mapping.accessible or mapping.path or mapping.size < size:
        return
    if mapping.size % size in (0, place.page):
        for count in range(mapping.size // size):
            yield Stack(mapping.start + count * size, size, 0, True)


def candidates(mappings: Iterable[proc.Mapping]) -> Iterable[Candidate]:
    """Yield what has a whole huge page in it, and as much in use."""
    for mapping in mappings:
        first = -(-mapping.start // HUGE_BYTES) * HUGE_BYTES
        if mapping.end - first >= HUGE_BYTES and mapping.rss >= HUGE_BYTES:
            name = mapping.path or "anonymous"
            yield Candidate(mapping.start, mapping.size, mapping.rss, name)


def identify(paths: Iterable[str]) -> tuple[str, str]:
    """Return allocator and runtime by the mapped files; the runtime is "" if none is known."""
    names = [path.rpartition("/")[2].removesuffix(" (deleted)") for path in paths]
    libc = _first(names, LIBCS) or UNKNOWN
    foreign = next(filter(None, map(allocators.by_library, names)), "")
    return foreign or libc, _first(names, RUNTIMES)


def _first(names: Iterable[str], known: Iterable[tuple[str, str]]) -> str:
    found = list(names)
    return next(
        (owner for start, owner in known if any(name.startswith(start) for name in found)), ""
    )


# --- peaks -----------------------------------------------------------------------------------


class Peak(Record):
    """The most that was seen while the program had some number of default stacks."""

    locked: int = 0
    populated: int = 0
    main_stack: int = 0


# What a course has the most of, as its samples have it.
COUNTED = ("mapped", "threads", "main_depth", "heap", "anonymous", "others", "huge")


class Course:
    """One image of the program from its first look to its last: what its peaks were.

    Peaks are kept for each number of default stacks, as their size is what is to be chosen.
    """

    def __init__(self) -> None:
        self.entry: Sample | None = None
        self.peaks: dict[int, Peak] = {}
        self.looks = 0
        self.mapped = 0
        self.resident = 0
        self.threads = 0
        self.main_depth = 0
        self.heap = 0
        self.anonymous = 0
        self.others = 0
        self.huge = 0
        self.tables = 0
        self.default_depth = 0
        self.own_depth = 0
        self.stacks = 0
        self.default_stacks = 0
        self.candidates: tuple[Candidate, ...] = ()
        self.highest = 0

    def glance(self, status: proc.Status) -> None:
        """Take the kernel's own high-water marks, which miss nothing between two looks."""
        self.highest = max(self.highest, status.vm_peak)
        self.resident = max(self.resident, status.vm_hwm)
        self.tables = max(self.tables, status.vm_pte)
        self.threads = max(self.threads, status.threads)

    def add(self, sample: Sample) -> None:
        """Take a sample."""
        self.entry = self.entry or sample
        self.looks += 1
        self.keep_peak(sample)
        for field in COUNTED:
            setattr(self, field, max(getattr(self, field), getattr(sample, field)))
        self.resident = max(self.resident, sample.resident)
        self.stacks = max(self.stacks, len(sample.stacks))
        self.threads = max(self.threads, self.stacks + 1)  # they may have ended between two looks
        self.default_stacks = max(self.default_stacks, sample.default_stacks)
        for stack in sample.stacks:
            if stack.default:
                self.default_depth = max(self.default_depth, stack.depth)
            else:
                self.own_depth = max(self.own_depth, stack.depth)
        if total(sample.candidates) >= total(self.candidates):
            self.candidates = sample.candidates

    def keep_peak(self, sample: Sample) -> None:
        """Keep the most for this number of stacks."""
        had = self.peaks.get(sample.default_stacks, Peak())
        self.peaks[sample.default_stacks] = replace(
            had,
            locked=max(had.locked, sample.locked),
            populated=max(had.populated, sample.populated),
            main_stack=max(had.main_stack, sample.main_stack),
        )

    @property
    def unseen(self) -> int:
        """How much more was mapped at some instant than in any look: VmPeak over the looks'."""
        return max(0, self.highest - self.mapped)


def total(found: Iterable[Candidate]) -> int:
    """Return how much of the candidates is in use."""
    return sum(candidate.resident for candidate in found)


# --- needs -----------------------------------------------------------------------------------


class Shape(Record):
    """What the sizes of stacks will be: 0 leaves a thread's as measured, ``prefault`` none touched.

    ``default`` is what a thread's stack was when it was measured.
    """

    default: int
    thread_stack: int = 0
    prefault: int = 0


class Need(Record):
    """What one form of lock takes, in bytes: VmLck and VmRSS at their peak."""

    locked: int
    resident: int


def needs(course: Course, shape: Shape, forms: Iterable[tuple[str, ...]]) -> Mapping[str, Need]:
    """Return the need of each form of ``--lock``, by its name."""
    return {",".join(form): need(course, shape, form) for form in forms}


def need(course: Course, shape: Shape, form: tuple[str, ...]) -> Need:
    """Return what one form of lock takes: of what is mapped at main(), and of what comes later."""
    entry = course.entry
    if entry is None:
        return Need(0, 0)
    growth = stack_growth(entry, entry.main_stack, shape)
    first, last = entry.locked + growth, whole(course, entry, shape)
    untouched = entry.populated - entry.resident  # what populating at main() adds
    touched = max(course.resident, entry.resident + shape.prefault)
    most = max(last.resident, touched)
    now, later = "current" in form, "future" in form
    resident = {
        (False, False): touched,
        (True, False): min(most, touched + untouched),
        (False, True): max(touched, most - untouched),
        (True, True): most,
    }
    return Need(
        (first if now else 0) + (max(0, last.locked - first) if later else 0),
        touched if "onfault" in form else resident[now, later],
    )


def whole(course: Course, entry: Sample, shape: Shape) -> Need:
    """Return what all of it takes, locked and populated, with the stacks of that shape."""
    saved = shape.default - shape.thread_stack if shape.thread_stack else 0
    locked = populated = 0
    for stacks, peak in course.peaks.items():
        growth = stack_growth(entry, peak.main_stack, shape)
        locked = max(locked, peak.locked + growth - stacks * saved)
        populated = max(populated, peak.populated + growth - stacks * saved)
    return Need(locked + course.unseen, populated + course.unseen)


def stack_growth(entry: Sample, size: int, shape: Shape) -> int:
    """Return how much larger than ``size`` the main stack is once so much of it was touched."""
    return max(0, entry.main_depth + shape.prefault - size) if shape.prefault else 0
