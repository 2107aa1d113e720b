"""The one table of options, and the record of what was chosen.

Everything that knows an option reads it here: the launch path's parser, the typer
command, the environment twins, the keys of a profile, ``plan`` and the report. A
new option is a row, a field of the same name, and a kind if no existing one fits
(:mod:`rtlaunch.core.kinds`). Nothing here parses or decides.
"""

from __future__ import annotations

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CLI, ENVIRONMENT, PROFILE, DEFAULT = "cli", "environment", "profile", "default"

TWIN_PREFIX = "RTLAUNCH_"
RESERVED_VARIABLES = ("RTLAUNCH_STATE_DIR",)  # ours, but no option: where leases are kept

SWITCH, ACTION = "switch", "action"  # the kinds that take no value
LISTS = ("lock", "caps", "cpus", "codes")  # the kinds whose items are separated by commas


class LimitDemand(Record):
    """One ``--limit``: ``hard`` is None when only the soft limit was named; -1 is unlimited."""

    name: str
    soft: int
    hard: int | None = None


class Identity(Record):
    """``--user``: names or numbers as typed, not looked up; ``group`` is None if not given."""

    user: str
    group: str | None = None


class Sched(Record):
    """``--sched``: the policy's name and the static priority, 0 for all but fifo and rr."""

    policy: str
    priority: int = 0


class Arm(Record):
    """``--arm``: ``when`` is ``locked``, ``time`` (``after_ns``) or ``signal`` (``signal``)."""

    when: str
    after_ns: int = 0
    signal: int = 0


class Reaction(Record):
    """``--on-major``, ``--on-minor``: ``do`` is ``none``, ``log`` or ``signal`` (``signal``)."""

    do: str
    signal: int = 0


class ReportTo(Record):
    """``--report``: a path, its placeholders not filled in yet, or else a descriptor."""

    path: str
    fd: int = -1


class HugePages(Record):
    """One ``--hugepages``: ``count`` pages of ``page_bytes``, of a NUMA node or, None, of any."""

    page_bytes: int
    count: int
    node: int | None = None


class Fitted(Record):
    """What ``rtlaunch fit`` measured of a program: the table ``[fit]`` of a profile.

    ``locked_bytes`` is the peak of VmLck with the profile's own options, ``resident_bytes`` that
    of VmRSS, ``threads`` the most at one time.
    """

    locked_bytes: int
    resident_bytes: int
    threads: int


class Row(Record):
    """One option.

    ``kind`` names its parser; ``default`` is a text that this parser reads; ``section``
    groups the help. ``choices`` are a choice's words.
    """

    name: str
    kind: str
    metavar: str
    default: str
    help: str
    section: str
    repeatable: bool = False
    short: str = ""
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The name of the field in :class:`Options`."""
        return self.name.replace("-", "_")

    @property
    def long(self) -> str:
        """The option as typed: ``--cpu-list``."""
        return f"--{self.name}"

    @property
    def twin(self) -> str:
        """The environment variable: ``RTLAUNCH_CPU_LIST``."""
        return TWIN_PREFIX + self.field.upper()

    @property
    def takes_value(self) -> bool:
        """Whether a value follows on the command line."""
        return self.kind not in (SWITCH, ACTION)


LOCKING = "Locking"
MEMORY = "Memory shape"
LIMITS = "Limits and identity"
SCHEDULING = "Scheduling"
WATCHING = "Watching"
PROCESS = "Process"
OUTPUT = "Findings and output"

# fmt: off
TABLE: tuple[Row, ...] = (
    Row("lock", "lock", "LIST", "current,future",
        "mlockall flags, of current, future, onfault; or none", LOCKING),
    Row("prefault-stack", "size", "SIZE", "512K",
        "main stack touched before main(), in bytes; never more than its limit leaves", LOCKING),
    Row("via", "choice", "HOW", "auto",
        "way into the target: auto, preload or ptrace", LOCKING,
        choices=("auto", "preload", "ptrace")),
    Row("children", "children", "WHICH", "none",
        "children of the target that are locked too: none, all, or those whose executable "
        "matches GLOB[,GLOB]", LOCKING,
        choices=("none", "all")),
    Row("hugepages", "hugepages", "SIZE:COUNT[@NODE]", "none",
        "lease of huge pages, as in 2M:512 or 1G:4@0; given back at the end", MEMORY,
        repeatable=True),
    Row("heap", "amount", "SIZE", "inherit",
        "heap reserved, locked and populated before main(), in bytes", MEMORY),
    Row("heap-pages", "pages", "PAGES", "inherit",
        "pages under the heap: base, thp, or a size of huge pages", MEMORY),
    Row("arenas", "number", "N", "inherit",
        "most arenas that malloc may make", MEMORY),
    Row("thread-stack", "amount", "SIZE", "inherit",
        "default size of a thread's stack, in bytes", MEMORY),
    Row("thp", "choice", "WHEN", "inherit",
        "transparent huge pages: inherit, never, or madvise", MEMORY,
        choices=("inherit", "never", "madvise")),
    Row("memlock", "limit", "LIMIT", "max",
        "RLIMIT_MEMLOCK: max, inherit, a size in bytes, or unlimited", LIMITS),
    Row("core", "limit", "LIMIT", "max",
        "RLIMIT_CORE: max, inherit, a size in bytes, or unlimited", LIMITS),
    Row("limit", "rlimit", "NAME=SOFT[:HARD]", "none",
        "any other resource limit, in the kernel's unit for it", LIMITS, repeatable=True),
    Row("ambient-caps", "caps", "LIST", "auto",
        "capabilities for the target; auto: ipc_lock if --user needs it to lock", LIMITS),
    Row("user", "user", "USER[:GROUP]", "none",
        "user and group of the target, by name or number", LIMITS),
    Row("no-new-privs", SWITCH, "", "false",
        "no privileges from set-uid or file capabilities for the target", LIMITS),
    Row("sched", "sched", "POLICY[:PRIO]", "inherit",
        "policy other, batch, idle, fifo or rr; priority 1 to 99 for fifo and rr", SCHEDULING),
    Row("cpu-list", "cpus", "LIST", "inherit",
        "CPUs that the target may use, as in 0,2-3", SCHEDULING),
    Row("nice", "nice", "N", "inherit",
        "nice value, -20 to 19", SCHEDULING),
    Row("timer-slack", "slack", "TIME", "inherit",
        "timer slack, as in 50us", SCHEDULING),
    Row("watch", "choice", "SOURCE", "auto",
        "source of faults: auto, perf, proc or none", WATCHING,
        choices=("auto", "perf", "proc", "none")),
    Row("arm", "arm", "WHEN", "locked",
        "start of watching: locked, a time after it, or signal:NAME", WATCHING),
    Row("on-major", "reaction", "ACTION", "log",
        "on a major fault: none, log or signal:NAME", WATCHING),
    Row("on-minor", "reaction", "ACTION", "none",
        "on a minor fault: none, log or signal:NAME", WATCHING),
    Row("max-major", "count", "N", "none",
        "major faults allowed after arming; more is exit code 123", WATCHING),
    Row("max-minor", "count", "N", "none",
        "minor faults allowed after arming; more is exit code 123", WATCHING),
    Row("mode", "choice", "MODE", "auto",
        "process model: auto, supervise or exec", PROCESS,
        choices=("auto", "supervise", "exec")),
    Row("signal-to", "choice", "WHOM", "main",
        "whom a signal to rtlaunch is passed on to: main, or group (of its own)", PROCESS,
        choices=("main", "group")),
    Row("rewrite", "rewrite", "FROM:TO", "none",
        "signal FROM is passed on as TO; TO none: not at all", PROCESS, repeatable=True),
    Row("map-exit", "mapexit", "A=B", "none",
        "exit code A of the target becomes B; 128+TERM is that of a signal", PROCESS,
        repeatable=True),
    Row("pdeathsig", "signal", "SIGNAL", "TERM",
        "signal to the target if rtlaunch dies, or none", PROCESS),
    Row("notify", SWITCH, "", "false",
        "READY=1 to NOTIFY_SOCKET after the proof, for a program that cannot say it", PROCESS),
    Row("profile", "text", "NAME|PATH", "none",
        "options from a TOML file", PROCESS),
    Row("allow", "codes", "CODE[,CODE]", "none",
        "findings accepted by name", OUTPUT, repeatable=True),
    Row("best-effort", SWITCH, "", "false",
        "all findings that can be accepted are", OUTPUT),
    Row("report", "report", "PATH|fd:N", "none",
        "JSON report; PATH takes {host} {rank} {pid} {unit} {time}", OUTPUT),
    Row("log-format", "choice", "FORMAT", "text",
        "form of messages: text, json, or journal (where stderr is the journal's)", OUTPUT,
        choices=("text", "json", "journal")),
    Row("quiet", SWITCH, "", "false",
        "errors alone on stderr", OUTPUT, short="q"),
    Row("verbose", SWITCH, "", "false",
        "each step and the summary on stderr", OUTPUT, short="v"),
    Row("help", ACTION, "", "",
        "this help", "", short="h"),
    Row("version", ACTION, "", "",
        "version; with -v also protocol, shims, profiles, kernel, watch source", "", short="V"),
)
# fmt: on

BY_NAME = {row.name: row for row in TABLE}
SETTINGS = tuple(row for row in TABLE if row.kind != ACTION)  # the rows that are fields
PLACEHOLDERS = ("host", "rank", "pid", "unit", "time")  # of --report's PATH


class Options(Record):
    """What was chosen, each field the parsed value of the option of that name.

    ``memlock`` and ``core`` are ``"max"``, ``"inherit"`` or a demand in bytes, -1 being
    unlimited; None is "not asked"; ``ambient_caps`` None is the automatic default, ``()``
    is none. ``origin`` has for each option's name (``cpu-list``) one of ``cli``,
    ``environment``, ``profile``, ``default``; ``fitted`` is no option: what the profile knows of
    the program's needs. The defaults are the table's, read already:
    most launches are given few values, and need not import what reads them.
    """

    lock: tuple[str, ...] = ("current", "future")
    prefault_stack: int = 512 << 10
    via: str = "auto"
    children: str = "none"
    hugepages: tuple[HugePages, ...] = ()
    heap: int | None = None
    heap_pages: str | int = "inherit"
    arenas: int | None = None
    thread_stack: int | None = None
    thp: str = "inherit"
    memlock: str | int = "max"
    core: str | int = "max"
    limit: tuple[LimitDemand, ...] = ()
    ambient_caps: tuple[str, ...] | None = None
    user: Identity | None = None
    no_new_privs: bool = False
    sched: Sched | None = None
    cpu_list: tuple[int, ...] | None = None
    nice: int | None = None
    timer_slack: int | None = None
    watch: str = "auto"
    arm: Arm = Arm("locked")
    on_major: Reaction = Reaction("log")
    on_minor: Reaction = Reaction("none")
    max_major: int | None = None
    max_minor: int | None = None
    mode: str = "auto"
    signal_to: str = "main"
    rewrite: tuple[tuple[int, int], ...] = ()
    map_exit: tuple[tuple[int, int], ...] = ()
    pdeathsig: int = 15
    notify: bool = False
    profile: str = ""
    allow: tuple[str, ...] = ()
    best_effort: bool = False
    report: ReportTo | None = None
    log_format: str = "text"
    quiet: bool = False
    verbose: bool = False
    origin: Mapping[str, str] = {}
    fitted: Fitted | None = None
