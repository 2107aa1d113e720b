"""What of a machine's settings stands against a program that must not fault: facts in, lines out.

Pure; one function for each subject, each giving a line of ``rtlaunch check`` and
a finding where something should be changed. Facts that could not be read are
None and are said to be unknown, never taken for good. It must not judge a
command (:mod:`rtlaunch.core.preflight`) nor know where we are (remedy does).
"""

from __future__ import annotations

from rtlaunch.core.cgroup import CgroupLimit
from rtlaunch.core.findings import Finding
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.record import Record, replace
from rtlaunch.core.units import format_limit, format_size, format_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

EPERM, EAGAIN, ENOSYS = 1, 11, 38

# Room for a handful of threads with default stacks of 8 MiB: under MCL_FUTURE
# a program that has less breaks at one of its next mappings.
COMFORT_BYTES = 64 << 20

# Which kernel replaced real-time throttling by the fair server (kernel/sched, "fair_server").
FAIR_SERVER_SINCE = (6, 12)

# It is no sysctl, and only root sees the directory: the shell that expands the names is root's.
FAIR_SERVER_OFF = (
    "sudo sh -c 'for cpu in /sys/kernel/debug/sched/fair_server/cpu*; "
    "do echo 0 >$cpu/runtime; done'"
)

SIGSYS = 31


class LockTrial(Record):
    """What a forked child could do: the errno of each step, 0 for success, None if not reached.

    ``lockall`` is mlockall itself, ``least`` and ``comfort`` locking
    ``least_bytes`` and COMFORT_BYTES more; ``signal`` ended the child early.
    All are None where a step of the plan failed before.
    """

    least_bytes: int
    lockall: int | None
    least: int | None
    comfort: int | None
    signal: int = 0


class HostFacts(Record):
    """What was read of the machine; None is not known, texts are as the kernel prints them."""

    kernel: str
    memory_bytes: int | None = None
    available_bytes: int | None = None
    swap_bytes: int | None = None
    swap_used_bytes: int | None = None
    thp: str | None = None
    cgroups: tuple[CgroupLimit, ...] = ()
    compact_unevictable: int | None = None
    numa_balancing: int | None = None
    numa_nodes: int | None = None
    ksm_run: int | None = None
    rt_runtime_us: int | None = None
    rt_period_us: int | None = None
    fair_server_ns: int | None = None
    perf_paranoid: int | None = None
    watch_error: str | None = None
    seccomp: bool = False
    memlock: tuple[int, int] = (0, 0)
    may_lock_all: bool = False
    trial: LockTrial | None = None
    need_bytes: int = 0


class Line(Record):
    """One line of the table: the subject, how it stands, and what was found wrong."""

    subject: str
    text: str
    finding: Finding | None = None


def lines(facts: HostFacts) -> tuple[Line, ...]:
    """Return one line for each subject, in the order of their weight."""
    return tuple(check(facts) for check in CHECKS)


def unknown(subject: str, source: str) -> Line:
    """Return the line for a fact that could not be read."""
    return Line(subject, f"unknown: {source} cannot be read")


# --- the lock --------------------------------------------------------------------------------


def of_privileges(facts: HostFacts) -> Line:
    """Say whose limit binds: CAP_IPC_LOCK makes RLIMIT_MEMLOCK irrelevant (can_do_mlock)."""
    soft, hard = (format_limit("memlock", value) for value in facts.memlock)
    if facts.may_lock_all:
        return Line("privileges", f"CAP_IPC_LOCK: no limit applies (RLIMIT_MEMLOCK {soft}:{hard})")
    return Line("privileges", f"no CAP_IPC_LOCK that counts; RLIMIT_MEMLOCK {soft}:{hard}")


def of_lock(facts: HostFacts) -> Line:
    """Say what a child of ours could really lock."""
    trial = facts.trial
    if trial is None or (trial.lockall is None and not trial.signal):
        return Line("mlockall", "not tried: a step before it fails")
    if trial.signal or trial.lockall in (EPERM, ENOSYS):
        return _forbidden(facts, trial)
    if trial.lockall or trial.least:
        return _too_small(facts, trial)
    if trial.comfort:
        return _little_room(facts, trial)
    return Line("mlockall", f"works; {format_size(COMFORT_BYTES)} more could be locked")


def _forbidden(facts: HostFacts, trial: LockTrial) -> Line:
    if trial.lockall == EPERM and not facts.may_lock_all and facts.memlock[0] == 0:
        return _too_small(facts, trial)
    how = f"ended by signal {trial.signal}" if trial.signal else f"errno {trial.lockall}"
    finding = Finding(
        "lock-denied",
        f"mlockall is forbidden here ({how})"
        + (": a seccomp filter is in force" if facts.seccomp or trial.signal == SIGSYS else ""),
        why="limit and capabilities do not explain it",
        values={"errno": trial.lockall, "signal": trial.signal},
    )
    return Line("mlockall", f"forbidden ({how})", finding)


def _too_small(facts: HostFacts, trial: LockTrial) -> Line:
    soft = format_limit("memlock", facts.memlock[0])
    finding = Finding(
        "memlock-limit",
        f"a child could not lock {format_size(trial.least_bytes)}; RLIMIT_MEMLOCK is {soft}, "
        "no CAP_IPC_LOCK that counts",
        why="without CAP_IPC_LOCK the kernel locks no more than RLIMIT_MEMLOCK",
        values={
            "needed_bytes": trial.least_bytes,
            "soft": facts.memlock[0],
            "hard": facts.memlock[1],
        },
    )
    return Line("mlockall", f"fails: not even {format_size(trial.least_bytes)}", finding)


def _little_room(facts: HostFacts, trial: LockTrial) -> Line:
    soft = format_limit("memlock", facts.memlock[0])
    finding = Finding(
        "memlock-headroom",
        f"RLIMIT_MEMLOCK is {soft}: a small program can be locked, and its threads or a large "
        "malloc may fail later",
        why="with MCL_FUTURE each thread's stack is charged whole, 8 MiB by default",
        values={"needed_bytes": COMFORT_BYTES // 2, "soft": facts.memlock[0]},
    )
    return Line("mlockall", f"works up to {soft}", finding)


# --- memory ----------------------------------------------------------------------------------


def of_memory_cgroup(facts: HostFacts) -> Line:
    """Find the tightest memory limit above us: what is locked must fit below it at once."""
    limited = [group for group in facts.cgroups if group.limit != UNLIMITED]
    if not limited:
        return Line("memory cgroup", "no limit")
    tight = min(limited, key=lambda group: group.left)
    need = max(facts.need_bytes, COMFORT_BYTES)
    text = f"{format_size(tight.limit)}, {format_size(tight.left)} left ({tight.folder})"
    if tight.left >= need:
        return Line("memory cgroup", text)
    finding = Finding(
        "memory-cgroup",
        f"the memory cgroup has {format_size(tight.left)} left of {format_size(tight.limit)}: "
        f"{tight.folder}",
        why="locked pages cannot be reclaimed; over the limit the kernel kills the program",
        values={"cgroup": tight.folder, "limit_bytes": tight.limit, "usage_bytes": tight.usage},
    )
    return Line("memory cgroup", text, finding)


def of_memory(facts: HostFacts) -> Line:
    """Say how much memory there is."""
    if facts.memory_bytes is None or facts.available_bytes is None:
        return unknown("memory", "/proc/meminfo")
    total, available = format_size(facts.memory_bytes), format_size(facts.available_bytes)
    return Line("memory", f"{total}, {available} available")


def of_swap(facts: HostFacts) -> Line:
    """Note swap: what is locked never goes there, what is not may."""
    if facts.swap_bytes is None:
        return unknown("swap", "/proc/meminfo")
    if not facts.swap_bytes:
        return Line("swap", "none")
    text = f"{format_size(facts.swap_bytes)}, {format_size(facts.swap_used_bytes or 0)} used"
    finding = Finding(
        "swap-on",
        f"this machine swaps ({text})",
        why="locked memory stays; that of other processes, and what is not locked, may go",
        values={"swap_bytes": facts.swap_bytes, "used_bytes": facts.swap_used_bytes},
    )
    return Line("swap", text, finding)


# --- what moves locked pages -----------------------------------------------------------------


def of_thp(facts: HostFacts) -> Line:
    """Find transparent huge pages for everybody; the mode in force stands in brackets."""
    if facts.thp is None:
        return Line("huge pages", "transparent huge pages are not in this kernel")
    mode = facts.thp.partition("[")[2].partition("]")[0] or facts.thp.strip()
    if mode != "always":
        return Line("huge pages", f"transparent: {mode}")
    finding = Finding(
        "thp-always",
        "transparent huge pages are on for every program",
        why="khugepaged and compaction unmap pages for a moment, locked ones too",
        values={"mode": mode},
    )
    return Line("huge pages", "transparent: always", finding)


def of_compaction(facts: HostFacts) -> Line:
    """Find compaction that may move locked pages."""
    value = facts.compact_unevictable
    if value is None:
        return Line("compaction", "leaves locked pages alone (not in this kernel)")
    if not value:
        return Line("compaction", "leaves locked pages alone")
    finding = Finding(
        "compaction-unevictable",
        f"vm.compact_unevictable_allowed is {value}: compaction may move locked pages",
        why="a thread that touches a page on the move takes a minor fault and waits",
        values={"value": value},
    )
    return Line("compaction", "may move locked pages", finding)


def of_numa(facts: HostFacts) -> Line:
    """Find automatic NUMA balancing, where there is more than one node."""
    value, nodes = facts.numa_balancing, facts.numa_nodes
    if not value:
        return Line("NUMA balancing", "off")
    if nodes == 1:
        return Line("NUMA balancing", "on, with one node to no effect")
    finding = Finding(
        "numa-balancing",
        f"kernel.numa_balancing is {value}, with {nodes or 'an unknown number of'} nodes",
        why="it makes memory inaccessible for a moment to see who uses it: minor faults",
        values={"value": value, "nodes": nodes},
    )
    return Line("NUMA balancing", "on", finding)


def of_ksm(facts: HostFacts) -> Line:
    """Find page merging at work."""
    if facts.ksm_run is None:
        return Line("page merging", "not in this kernel")
    if facts.ksm_run != 1:
        return Line("page merging", "off")
    finding = Finding(
        "ksm-on",
        "KSM is running: equal pages that programs marked are merged",
        why="the next write to a merged page is a minor fault that copies it",
        values={"run": facts.ksm_run},
    )
    return Line("page merging", "on (KSM)", finding)


# --- scheduling and watching -----------------------------------------------------------------


def of_throttling(facts: HostFacts) -> Line:
    """Find what takes the CPU from a real-time thread that never sleeps."""
    if kernel_version(facts.kernel) >= FAIR_SERVER_SINCE:
        return _fair_server(facts)
    runtime, period = facts.rt_runtime_us, facts.rt_period_us
    if runtime is None or period is None:
        return unknown("RT throttling", "kernel.sched_rt_runtime_us")
    if runtime < 0 or runtime >= period:
        return Line("RT throttling", "off")
    share = f"{format_time(runtime * 1000)} of {format_time(period * 1000)}"
    values: dict[str, object] = {"runtime_us": runtime, "period_us": period}
    finding = _throttled(f"real-time threads together get {share}", values)
    return Line("RT throttling", f"real-time threads get {share}", finding)


def _fair_server(facts: HostFacts) -> Line:
    given = facts.fair_server_ns
    if given == 0:
        return Line("RT throttling", "off (fair server 0)")
    share = f"{format_time(given)} of each second" if given else "50 ms of each second by default"
    finding = _throttled(
        f"the fair server may take {share} from a real-time thread that never sleeps",
        {"fair_server_ns": given},
    )
    cured = replace(finding, try_now=FAIR_SERVER_OFF, for_good="the same at boot, in a unit")
    return Line("RT throttling", f"fair server: {share}", cured)


def _throttled(what: str, values: dict[str, object]) -> Finding:
    why = "who uses that up stands still for the rest; a loop that sleeps is not concerned"
    return Finding("rt-throttling", what, why=why, values=values)


def of_watch(facts: HostFacts) -> Line:
    """Say whether perf can place faults."""
    paranoid = facts.perf_paranoid
    setting = "" if paranoid is None else f" (kernel.perf_event_paranoid {paranoid})"
    if facts.watch_error is None:
        return Line("watch", f"perf{setting}")
    finding = Finding(
        "watch-degraded",
        f"perf is not to be had: {facts.watch_error}{setting}; faults are counted, not placed",
        why="the count comes from /proc/PID/stat and is right; where a fault fell is not known",
        values={"error": facts.watch_error, "paranoid": paranoid},
    )
    return Line("watch", f"proc: {facts.watch_error}{setting}", finding)


def kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor of a release such as ``6.1.0-56-amd64``; zeros if it has none."""
    numbers = release.removeprefix("Linux ").split(".")
    if len(numbers) < 2 or not numbers[0].isdigit():
        return 0, 0
    digits = "".join(char if char.isdigit() else " " for char in numbers[1]).split()
    return int(numbers[0]), int(digits[0]) if digits else 0


CHECKS: tuple[Callable[[HostFacts], Line], ...] = (
    of_privileges,
    of_lock,
    of_memory_cgroup,
    of_memory,
    of_swap,
    of_thp,
    of_compaction,
    of_numa,
    of_ksm,
    of_throttling,
    of_watch,
)
