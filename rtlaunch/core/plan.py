"""The plan of a launch: a tuple of actions, pure data that describes itself.

``rtlaunch plan``, ``-v`` and the error of an action that fails print the same
words. The order is the kernel's: what needs privileges stands before the
change of user that gives them up, and no_new_privs stands last.

Nothing here touches the system: :mod:`rtlaunch.engine.apply` performs what
stands before exec, the shim and the launcher the rest.
"""

from __future__ import annotations

from rtlaunch.core import caps, limits, mode
from rtlaunch.core.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.facts import Account, Facts
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options


class Step(Record):
    """One action of a plan."""

    def describe(self) -> str:
        """Say what it does, with its values."""
        raise NotImplementedError

    def values(self) -> dict[str, object]:
        """Return what a remedy needs, should the kernel refuse it: as preflight's findings do."""
        return {}


class SetLimit(Step):
    """Set one resource limit (prlimit(2)); a demanded one must hold, ``max`` takes what it gets."""

    change: limits.LimitChange

    def describe(self) -> str:
        """Say the change with both values."""
        return self.change.describe()

    def values(self) -> dict[str, object]:
        """Name the limit, what was asked, the soft limit to be and the hard one that was."""
        change = self.change
        return {
            "limit": change.name,
            "asked": change.asked,
            "soft": change.after.soft,
            "hard": change.before.hard,
        }


class SetAffinity(Step):
    """Bind the target to CPUs (sched_setaffinity(2))."""

    cpus: tuple[int, ...]

    def describe(self) -> str:
        """Say which CPUs."""
        from rtlaunch.core.units import format_cpus

        return f"run on CPUs {format_cpus(self.cpus)}"

    def values(self) -> dict[str, object]:
        """Name the CPUs."""
        return {"asked": list(self.cpus)}


class SetScheduler(Step):
    """Set policy and static priority (sched_setscheduler(2))."""

    policy: str
    priority: int

    def describe(self) -> str:
        """Say policy and priority."""
        return f"schedule as {self.policy}, priority {self.priority}"

    def values(self) -> dict[str, object]:
        """Name policy and priority."""
        return {"policy": self.policy, "priority": self.priority}


class SetNice(Step):
    """Set the nice value (setpriority(2))."""

    nice: int

    def describe(self) -> str:
        """Say the nice value."""
        return f"set nice {self.nice}"

    def values(self) -> dict[str, object]:
        """Name the nice value."""
        return {"nice": self.nice}


class SetTimerSlack(Step):
    """Set the timer slack in ns (PR_SET_TIMERSLACK, kept over exec)."""

    slack_ns: int

    def describe(self) -> str:
        """Say the slack."""
        return f"set timer slack {self.slack_ns} ns"


class BecomeUser(Step):
    """Change groups and user ids, keeping the capabilities that shall become ambient."""

    account: Account
    keep: bool

    def describe(self) -> str:
        """Say whom we become."""
        who = self.account
        return f"become {who.name} (uid {who.uid}, gid {who.gid}, groups {list(who.groups)})"

    def values(self) -> dict[str, object]:
        """Name the user."""
        return {"user": self.account.name, "uid": self.account.uid}


class RaiseAmbient(Step):
    """Put capabilities into the inheritable and ambient sets (PR_CAP_AMBIENT_RAISE)."""

    caps: tuple[str, ...]

    def describe(self) -> str:
        """Name the capabilities."""
        return "raise ambient " + ", ".join(f"CAP_{cap.upper()}" for cap in self.caps)

    def values(self) -> dict[str, object]:
        """Name the first capability: the kernel does not tell which one it refused."""
        return {"capability": f"CAP_{self.caps[0].upper()}"}


class SetNoNewPrivs(Step):
    """Set no_new_privs (PR_SET_NO_NEW_PRIVS); nothing after it can gain privileges."""

    def describe(self) -> str:
        """Say so."""
        return "set no_new_privs"


class LeaseHugePages(Step):
    """Lease huge pages before the fork, confirm them at ``go``, give them back at the end."""

    page_bytes: int
    count: int
    node: int | None

    def describe(self) -> str:
        """Say how many, of what size, where."""
        from rtlaunch.core.units import format_size

        where = "" if self.node is None else f" on node {self.node}"
        return f"lease {self.count} huge pages of {format_size(self.page_bytes)}{where}"


class SetThp(Step):
    """Set PR_SET_THP_DISABLE, which exec and children inherit (prctl(2)); 0 takes it away."""

    policy: str
    disable: int
    flags: int

    def describe(self) -> str:
        """Say who may have transparent huge pages from then on."""
        whom = "none" if self.policy == "never" else "only memory that the program advises"
        return f"transparent huge pages: {whom} (PR_SET_THP_DISABLE {self.disable}, {self.flags})"

    def values(self) -> dict[str, object]:
        """Name the policy."""
        return {"asked": self.policy}


class SetThreadStack(Step):
    """Set the soft RLIMIT_STACK for the exec, where glibc reads it; the shim restores it."""

    size: int
    restored: limits.Limit

    def describe(self) -> str:
        """Say the size of a thread's stack, and the limit that main() has."""
        from rtlaunch.core.units import format_limit, format_size

        soft = format_limit("stack", self.restored.soft)
        return (
            f"set the soft RLIMIT_STACK to {format_size(self.size)} for the exec, the default "
            f"stack of threads; restored to {soft} before main()"
        )

    def values(self) -> dict[str, object]:
        """Name the size and the hard limit."""
        return {"asked_bytes": self.size, "hard": self.restored.hard}


class ReserveHeap(Step):
    """Set up glibc's malloc, and have the heap guest reserve ``heap_bytes`` (0: no guest).

    ``pages`` is ``--heap-pages``; ``populate`` has the guest put it in memory, where no lock will.
    """

    heap_bytes: int
    pages: str | int
    tunables: str
    guest: str
    populate: bool

    def describe(self) -> str:
        """Say how much, on what pages, and what the C library is told."""
        from rtlaunch.core.units import format_size

        told = f"GLIBC_TUNABLES={self.tunables}"
        if not self.heap_bytes:
            return f"set up malloc: {told}"
        size = self.pages if isinstance(self.pages, str) else format_size(self.pages)
        on = "" if size == "inherit" else f" on {size} pages"
        through = f", through {self.guest}" if self.guest else ""
        return f"reserve {format_size(self.heap_bytes)} of heap{on}: {told}{through}"


class Trace(Step):
    """Let the launcher trace the child, so that it stops at its exec (ptrace(2), PTRACE_SEIZE)."""

    def describe(self) -> str:
        """Say what the tracing is for."""
        return "stop it at its exec by ptrace, and lock it from outside"


class Execute(Step):
    """Start the program (execve(2)), the shim first in LD_PRELOAD unless ``preload`` is empty."""

    path: str
    argv: tuple[str, ...]
    preload: str

    def describe(self) -> str:
        """Say what is started, through which shim."""
        through = f" through {self.preload}" if self.preload else ""
        return f"exec {self.path}{through}"


class Lock(Step):
    """What the shim does before main(): mlockall(2), then touching the main stack."""

    flags: tuple[str, ...]
    prefault_bytes: int
    children: str

    def describe(self) -> str:
        """Say flags, prefault and who is meant."""
        from rtlaunch.core.units import format_size

        calls = "|".join(f"MCL_{flag.upper()}" for flag in self.flags)
        lock = f"mlockall({calls})" if calls else "no mlockall"
        whom = "the program and its children" if self.children == "all" else "the program"
        stack = f"touch {format_size(self.prefault_bytes)} of its stack"
        return f"before main() of {whom}: {lock}, {stack}, prove both"

    def costs(self, thread_stack_bytes: int) -> tuple[str, ...]:
        """Say what these flags cost, where a thread's stack has that many bytes."""
        from rtlaunch.core.lockcosts import costs

        return costs(self.flags, thread_stack_bytes)


class WatchFaults(Step):
    """What the supervisor thread does once the proof is in."""

    source: str
    pdeathsig: int
    aside: bool = False

    def describe(self) -> str:
        """Say how faults are watched, by whom, and what happens if rtlaunch dies."""
        if self.aside:
            return f"watch page faults ({self.source}) from a side process; this PID is the program"
        from rtlaunch.core.units import signal_name

        ends = f"send it {signal_name(self.pdeathsig)}" if self.pdeathsig else "leave it alone"
        return f"watch page faults ({self.source}); should rtlaunch die, {ends}"


Action = (
    SetLimit | SetAffinity | SetScheduler | SetNice | SetTimerSlack | BecomeUser | RaiseAmbient
    | SetNoNewPrivs | LeaseHugePages | SetThp | SetThreadStack | ReserveHeap | Trace | Execute
    | Lock | WatchFaults
)  # fmt: skip


def may_raise_hard(facts: Facts) -> bool:
    """Tell whether we may raise a hard limit: CAP_SYS_RESOURCE, in the initial user namespace."""
    who = facts.who
    return who.initial_userns and caps.has(who.caps.effective, caps.CAP_SYS_RESOURCE)


def ambient_caps(options: Options, facts: Facts) -> tuple[str, ...]:
    """Return the capabilities to raise: those asked for, or the automatic default.

    The default is CAP_IPC_LOCK, only when ``--user`` leaves root, the memlock
    limit could not be raised to unlimited, and we hold the capability.
    """
    if options.ambient_caps is not None:
        return options.ambient_caps
    leaves_root = facts.account is not None and facts.who.euid == 0 and facts.account.uid != 0
    if not leaves_root or not options.lock or may_raise_hard(facts):
        return ()
    if facts.limits["memlock"].hard == -1:
        return ()
    holds = caps.has(facts.who.caps.permitted, caps.CAP_IPC_LOCK)
    return ("ipc_lock",) if holds else ()


def target_credentials(options: Options, facts: Facts) -> caps.Credentials:
    """Predict who the target is just before exec."""
    who = facts.who
    if facts.account is not None:
        account = facts.account
        who = caps.after_setuid(who, account.uid, account.gid, account.groups)
    who = caps.with_ambient(who, caps.mask_of(ambient_caps(options, facts)))
    return replace(who, no_new_privs=who.no_new_privs or options.no_new_privs)


def before_exec(options: Options, facts: Facts) -> tuple[Action, ...]:
    """Return what the child does to itself, in order."""
    actions: list[Action] = [
        SetLimit(change)
        for change in limits.changes(options, facts.limits, may_raise_hard(facts))
    ]
    if options.cpu_list is not None:
        actions.append(SetAffinity(options.cpu_list))
    if options.sched is not None:
        actions.append(SetScheduler(options.sched.policy, options.sched.priority))
    if options.nice is not None:
        actions.append(SetNice(options.nice))
    if options.timer_slack is not None:
        actions.append(SetTimerSlack(options.timer_slack))
    ambient = ambient_caps(options, facts)
    if facts.account is not None:
        actions.append(BecomeUser(facts.account, bool(ambient)))
    if ambient:
        actions.append(RaiseAmbient(ambient))
    if options.no_new_privs:
        actions.append(SetNoNewPrivs())
    if options.thp != "inherit" or options.thread_stack is not None:
        actions += shape_of_memory(options, facts)
    return tuple(actions)


def shape_of_memory(options: Options, facts: Facts) -> list[Action]:
    """Return what shapes the target's memory; the small stack limit last, as it binds us too."""
    from rtlaunch.core import thp, threadstack

    actions: list[Action] = []
    flag = thp.flag(options.thp, facts) if options.thp != thp.INHERIT else None
    if flag:
        actions.append(SetThp(options.thp, *flag))
    if options.thread_stack is not None:
        size = threadstack.asked_bytes(options, facts)
        actions.append(SetThreadStack(size, threadstack.limit_after(options, facts)))
    return actions


# Findings that say that no preload reaches the program; waived, it runs without one.
UNREACHED = frozenset(
    (
        "target-static", "target-setuid", "target-file-caps", "target-class", "target-machine",
        "shim-missing", "shim-path",
    )
)  # fmt: skip


def as_far_as_possible(action: Action) -> Action:
    """Turn a demanded limit, whose refusal was waived, into one that takes what it gets."""
    if not isinstance(action, SetLimit):
        return action
    return SetLimit(replace(action.change, demanded=False))


def as_allowed(options: Options, findings: tuple[Finding, ...]) -> Options:
    """Return the options without those that cannot be had, and that the user let go."""
    codes = {finding.code for finding in findings}
    if "thread-stack-unsupported" in codes:
        options = replace(options, thread_stack=None)
    if "thp-unavailable" in codes:
        options = replace(options, thp="inherit")
    return options


def changes_something(action: Action, facts: Facts) -> bool:
    """Tell whether an action does more than what is so already."""
    if isinstance(action, SetLimit):
        return action.change.before != action.change.after
    if isinstance(action, SetThp) and facts.shape:
        return facts.shape.thp_disabled != action.disable | action.flags
    return not (isinstance(action, SetNoNewPrivs) and facts.who.no_new_privs)


# Of these, what a process that is stopped at its exec can be locked in spite of. The secure ones
# keep their privileges under a tracer that holds CAP_SYS_PTRACE (cap_bprm_creds_from_file).
BY_PTRACE = frozenset(("target-static", "target-class", "shim-missing", "shim-path"))
BY_PRIVILEGED_PTRACE = frozenset(("target-setuid", "target-file-caps"))

# Machines whose registers are known to rtlaunch.core.tracee.
INJECTABLE = ("x86_64", "i386", "aarch64")

PRELOAD, PTRACE = "preload", "ptrace"
WHY_PTRACE = {
    "target-static": "the program is static: no loader runs before it",
    "target-setuid": "the program is set-uid or set-gid: its loader drops LD_PRELOAD",
    "target-file-caps": "the program has file capabilities: its loader drops LD_PRELOAD",
    "target-class": "there is no shim for a program of this word size",
    "shim-missing": "there is no shim for this machine",
    "shim-path": "LD_PRELOAD cannot carry the shim's path",
}


def via(options: Options, facts: Facts, codes: Iterable[str]) -> tuple[str, str]:
    """Return the way into the target, preload or ptrace, and the rule that chose it.

    ``codes`` are those of the findings that a preload would meet.
    """
    if options.via != "auto":
        return options.via, "asked for"
    reached = reached_by(PTRACE, facts)
    for code in codes:
        if code in reached:
            return PTRACE, WHY_PTRACE[code]
    return PRELOAD, "the program is dynamic, and its loader honours LD_PRELOAD"


def reached_by(way: str, facts: Facts) -> frozenset[str]:
    """Return the codes of what stands against a preload and not against ``way``."""
    if way != PTRACE or facts.target.machine not in INJECTABLE:
        return frozenset()
    return BY_PTRACE | (BY_PRIVILEGED_PTRACE if facts.reach.reads_any else frozenset())


def preloaded(options: Options, facts: Facts, way: str) -> str:
    """Return what LD_PRELOAD shall name, "" for nothing.

    A static program that is locked by ptrace passes it on to what it execs; the loader of any
    other would complain of it, or takes it away.
    """
    shim, program = facts.shim, facts.target.program
    if shim is None or options.via == PTRACE:
        return ""
    if way != PTRACE:
        return shim.preload
    silent = program is not None and program.elf is not None and not program.elf.dynamic
    return shim.preload if silent and facts.target.machine == shim.machine else ""


def make_plan(
    options: Options, facts: Facts, findings: tuple[Finding, ...] = (), way: str = PRELOAD
) -> tuple[Action, ...]:
    """Return the whole plan of a launch, but what changes nothing.

    It is without preload where waived findings rule that out.
    """
    codes = {finding.code for finding in findings}
    options = as_allowed(options, findings)
    preload = "" if codes & UNREACHED else preloaded(options, facts, way)
    aside = mode.choose(options, facts).mode == mode.EXEC
    steps = tuple(step for step in before_exec(options, facts) if changes_something(step, facts))
    if "limit-raise" in codes:
        steps = tuple(map(as_far_as_possible, steps))
    if facts.heap is not None:
        from rtlaunch.core import heap

        steps += heap.steps(options, facts, codes)
    leases = (
        LeaseHugePages(asked.page_bytes, asked.count, asked.node) for asked in options.hugepages
    )
    traced = (Trace(),) if way == PTRACE else ()
    return (
        *leases,
        *traced,
        *steps,
        Execute(facts.target.path, facts.target.argv, preload),
        Lock(options.lock, options.prefault_stack, options.children),
        WatchFaults(options.watch, options.pdeathsig, aside),
    )
