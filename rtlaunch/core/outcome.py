"""What became of a launch, as the engine learns it and the report shows it.

One mutable object because a launch ends at any step, and the report of a
refusal must hold all that was known by then. Every name is the report's own
key; what was not measured stays None (a sequence: empty), never 0.

Instants are absolute CLOCK_MONOTONIC ns here; :mod:`rtlaunch.report.document`
makes them relative to the start. It must not decide, format or read anything,
and is imported before exec: no import that costs.
"""

from __future__ import annotations

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtlaunch.core.budget import Budget
    from rtlaunch.core.findings import Finding

REFUSED, RUNNING, ENDED = "refused", "running", "ended"
BY_TARGET, BY_RTLAUNCH = "target", "rtlaunch"


class Part:
    """A bundle of fields whose defaults stand in the class body; an unknown name is an error."""

    def __init__(self, **named: object) -> None:
        for name, value in named.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        if not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        object.__setattr__(self, name, value)


class Program(Part):
    """Which rtlaunch this was."""

    version: str | None = None
    protocol: int | None = None


class Host(Part):
    """Where the launch took place; ``where`` is the kind of :mod:`rtlaunch.core.where`."""

    name: str | None = None
    kernel: str | None = None
    arch: str | None = None
    page_bytes: int | None = None
    boot_id: str | None = None
    where: str | None = None
    container: str | None = None
    unit: str | None = None


class Time(Part):
    """When each step was reached.

    ``started_at`` and ``ended_at`` are CLOCK_REALTIME ns; all others, the
    ``monotonic_ns`` of the start among them, are CLOCK_MONOTONIC ns.
    """

    started_at: int | None = None
    ended_at: int | None = None
    monotonic_ns: int | None = None
    forked_ns: int | None = None
    entered_ns: int | None = None
    locked_ns: int | None = None
    proven_ns: int | None = None
    ready_ns: int | None = None
    armed_ns: int | None = None
    go_ns: int | None = None
    ended_ns: int | None = None


class Image(Part):
    """One program image that the target's pid exec()ed.

    ``at_ns`` is CLOCK_MONOTONIC; ``elf`` is a mapping or record of its header;
    ``why`` says what kept it from being locked, ``via`` how it was: preload or ptrace.
    """

    path: str | None = None
    at_ns: int | None = None
    elf: Mapping[str, object] | Record | None = None
    locked: bool | None = None
    why: str | None = None
    via: str | None = None


class Target(Part):
    """The process that was started."""

    argv: Sequence[str] = ()
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    images: Sequence[Image] = ()


class Mode(Part):
    """The process model, and the rule that chose it."""

    chosen: str | None = None
    why: str | None = None


class Limit(Part):
    """One rlimit: as asked on the command line, and (soft, hard) before and after."""

    asked: str | None = None
    before: tuple[int, int] | None = None
    after: tuple[int, int] | None = None


class Caps(Part):
    """Capability sets by name, each a bit mask: ours, and the target's as read back."""

    launcher: Mapping[str, int] | None = None
    target: Mapping[str, int] | None = None
    no_new_privs: bool | None = None


class Sched(Part):
    """Scheduling as read back from the target; ``cpu_list`` as the kernel prints it."""

    policy: str | None = None
    priority: int | None = None
    nice: int | None = None
    cpu_list: str | None = None
    timer_slack_ns: int | None = None


class UnlockedMapping(Record):
    """A mapping that the proof found not locked or not resident."""

    start: int
    end: int
    name: str
    resident_bytes: int
    why: str


class Thread(Part):
    """A thread of a process that was looked at while it ran; the counts are since it began."""

    tid: int | None = None
    name: str | None = None
    state: str | None = None
    policy: str | None = None
    priority: int | None = None
    nice: int | None = None
    cpu_list: str | None = None
    cpu: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None


class Lock(Part):
    """The lock of the last image; the report's ``ok`` is the conjunction over all images.

    ``flags`` are mlockall's by name, empty for none; ``errno`` is the number
    that mlockall failed with; ``headroom_bytes`` is core.units.UNLIMITED where
    no limit applies; ``stopped_ns`` is how long one thread of a process that already ran stood
    still for it; ``children_locked`` counts the images of children, None where none was meant.
    """

    via: str | None = None
    why: str | None = None
    flags: Sequence[str] | None = None
    errno: int | None = None
    locked_bytes: int | None = None
    resident_bytes: int | None = None
    headroom_bytes: int | None = None
    stack_bytes: int | None = None
    thread_stack_bytes: int | None = None
    lock_ns: int | None = None
    stopped_ns: int | None = None
    unlocked_mappings: Sequence[UnlockedMapping] = ()
    children_locked: int | None = None


class Thp(Part):
    """Who gets transparent huge pages: ``always``, ``madvise`` or ``never``.

    ``before`` is the policy for us, ``after`` that for the target, by its status.
    """

    asked: str | None = None
    before: str | None = None
    after: str | None = None


class HugeLease(Part):
    """One lease of huge pages, in pages: as asked, as confirmed at ``go``, as given back."""

    page_bytes: int | None = None
    node: int | None = None
    asked: int | None = None
    got: int | None = None
    released: int | None = None


class Heap(Part):
    """The heap that was asked for, and what was found of it before main(), in bytes.

    ``allocator`` is whose malloc serves the program, ``variables`` what it was told.
    """

    allocator: str | None = None
    asked_bytes: int | None = None
    found_bytes: int | None = None
    locked_bytes: int | None = None
    resident_bytes: int | None = None
    page_bytes: int | None = None
    variables: Mapping[str, str] | None = None


class Faults(Part):
    """Page faults of a stretch of time, by the kernel's count."""

    major: int | None = None
    minor: int | None = None


class Watch(Part):
    """What was seen of faults: ``lost`` by the ring, ``unseen`` by perf but in the kernel's count.

    ``sites`` and ``faults`` are mappings or records of :mod:`rtlaunch.core.faults`.
    """

    source: str | None = None
    why: str | None = None
    lost: int | None = None
    unseen: int | None = None
    before_arm: Faults | None = None
    after_arm: Faults | None = None
    sites: Sequence[Mapping[str, object] | Record] = ()
    faults: Sequence[Mapping[str, object] | Record] = ()
    faults_omitted: int | None = None


class Exit(Part):
    """Who ended the run, and how: a code, or a signal's number; and rtlaunch's own exit code."""

    by: str | None = None
    code: int | None = None
    signal: int | None = None
    core_dumped: bool | None = None
    rtlaunch_code: int | None = None


class Rusage(Part):
    """What wait4 said of the target, in ns, bytes and counts."""

    user_ns: int | None = None
    system_ns: int | None = None
    max_resident_bytes: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None


class Outcome:
    """All that is known of one launch; the engine fills it, :mod:`rtlaunch.report` renders it.

    ``state`` is None until it is known: ``refused``, ``running`` or ``ended``.
    ``options`` maps a long option without dashes to its value, as the command
    line writes it, and its origin; empty when the command line itself was refused.
    """

    __slots__ = (
        "budget",
        "caps",
        "exit",
        "findings",
        "heap",
        "host",
        "hugepages",
        "limits",
        "lock",
        "mode",
        "options",
        "rtlaunch",
        "rusage",
        "sched",
        "state",
        "target",
        "thp",
        "threads",
        "time",
        "watch",
    )

    def __init__(self) -> None:
        self.state: str | None = None
        self.rtlaunch = Program()
        self.host = Host()
        self.time = Time()
        self.target = Target()
        self.mode = Mode()
        self.options: dict[str, tuple[str, str]] = {}
        self.limits: dict[str, Limit] = {}
        self.caps = Caps()
        self.sched = Sched()
        self.threads: Sequence[Thread] = ()
        self.budget: Budget | None = None
        self.lock = Lock()
        self.thp = Thp()
        self.heap = Heap()
        self.hugepages: Sequence[HugeLease] = ()
        self.watch = Watch()
        self.exit = Exit()
        self.rusage = Rusage()
        self.findings: tuple[Finding, ...] = ()
