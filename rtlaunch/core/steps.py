"""The steps of every launch: pure data that describes itself.

``rtlaunch plan``, ``-v`` and the error of a step that fails print the same words. Those of options
that few give are in :mod:`rtlaunch.core.asked_steps`, which a launch without them never imports.
Nothing here touches the system: :mod:`rtlaunch.engine.apply` performs what stands before exec, the
shim and the launcher the rest.
"""

from __future__ import annotations

from rtlaunch.core import limits
from rtlaunch.core.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Facts


class Step(Record):
    """One action of a plan; ``refused_as`` is the finding's code where the kernel refuses it."""

    refused_as = "launch-failed"

    def describe(self) -> str:
        """Say what it does, with its values."""
        raise NotImplementedError

    def values(self) -> dict[str, object]:
        """Return what a remedy needs, should the kernel refuse it: as preflight's findings do."""
        return {}

    def changes_something(self, facts: Facts) -> bool:
        """Tell whether it does more than what is so already."""
        return True


class SetLimit(Step):
    """Set one resource limit (prlimit(2)); a demanded one must hold, ``max`` takes what it gets."""

    refused_as = "limit-raise"

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

    def changes_something(self, facts: Facts) -> bool:
        """Tell whether the limit is another one before."""
        return self.change.before != self.change.after

    def as_far_as_possible(self) -> SetLimit:
        """Return the step that takes what it gets: the refusal of what was demanded was waived."""
        return SetLimit(replace(self.change, demanded=False))


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
        of_name = "" if self.children == "all" else f" that run {self.children}"
        children = "" if self.children == "none" else f" and its children{of_name}"
        whom = f"the program{children}"
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
