"""The steps of what few options ask for; see :mod:`rtlaunch.core.steps` for what a step is.

A launch without such an option imports none of them.
"""

from __future__ import annotations

from rtlaunch.core.numbers import SCHED_POLICIES, SCHED_RESET_ON_FORK
from rtlaunch.core.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core import limits
    from rtlaunch.core.facts import Account, Facts


class SetAffinity(Step):
    """Bind the target to CPUs (sched_setaffinity(2))."""

    refused_as = "cpu-unavailable"

    cpus: tuple[int, ...]

    def describe(self) -> str:
        """Say which CPUs."""
        from rtlaunch.core.units import format_cpus

        return f"run on CPUs {format_cpus(self.cpus)}"

    def values(self) -> dict[str, object]:
        """Name the CPUs."""
        return {"asked": list(self.cpus)}


class KeepSchedule(Step):
    """Take back what fork(2) has reset (sched(7), SCHED_RESET_ON_FORK); None was asked for anew.

    ``policy`` is the kernel's number, with the flag: the program's own children are to lose it.
    """

    refused_as = "sched-denied"

    policy: int | None
    priority: int
    nice: int | None

    def describe(self) -> str:
        """Say what is taken back."""
        named = {number: name for name, number in SCHED_POLICIES.items()}
        kept = []
        if self.policy is not None:
            name = named.get(self.policy & ~SCHED_RESET_ON_FORK, "deadline")
            kept.append(f"{name}, priority {self.priority}")
        if self.nice is not None:
            kept.append(f"nice {self.nice}")
        return f"take back {', '.join(kept) or 'nothing'}, which is reset on fork"

    def values(self) -> dict[str, object]:
        """Name policy, priority and nice value."""
        return {"policy": self.policy, "priority": self.priority, "nice": self.nice}


class SetScheduler(Step):
    """Set policy and static priority (sched_setscheduler(2))."""

    refused_as = "sched-denied"

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

    refused_as = "sched-denied"

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

    refused_as = "user-denied"

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

    refused_as = "capability-missing"

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

    def changes_something(self, facts: Facts) -> bool:
        """Tell whether it is not set already."""
        return not facts.who.no_new_privs


class LeadGroup(Step):
    """Lead a group of its own: setpgid(2) where there is a terminal to share, else setsid(2)."""

    has_terminal: bool

    def describe(self) -> str:
        """Say what it leads, and what of the terminal."""
        if self.has_terminal:
            return "lead a process group of its own, and have the terminal while we may have it"
        return "lead a session of its own"


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

    refused_as = "thp-unavailable"

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

    def changes_something(self, facts: Facts) -> bool:
        """Tell whether the flag is another one now."""
        return not facts.shape or facts.shape.thp_disabled != self.disable | self.flags


class SetThreadStack(Step):
    """Set the soft RLIMIT_STACK for the exec, where glibc reads it; the shim restores it."""

    refused_as = "thread-stack-size"

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
