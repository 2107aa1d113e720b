"""The plan of a launch: a tuple of actions, pure data that describes itself.

The order is the kernel's: what needs privileges stands before the change of user that gives them
up, and no_new_privs stands last. What a step is stands in :mod:`rtlaunch.core.steps`.
"""

from __future__ import annotations

from rtlaunch.core import limits, mode
from rtlaunch.core.identity import ambient_caps, may_raise_hard
from rtlaunch.core.numbers import SCHED_RESET_ON_FORK
from rtlaunch.core.record import replace
from rtlaunch.core.steps import Execute, Lock, SetLimit, Step, Trace, WatchFaults
from rtlaunch.core.target import leads_on
from rtlaunch.core.way import PRELOAD, PTRACE, UNREACHED, preloaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Facts
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options


NOTHING = (None,) * 6  # options that are None unless they were given


def before_exec(options: Options, facts: Facts) -> tuple[Step, ...]:
    """Return what the child does to itself, in order."""
    changes = limits.changes(options, facts.limits, may_raise_hard(facts))
    return (*map(SetLimit, changes), *asked_for(options, facts))


def asked_for(options: Options, facts: Facts) -> tuple[Step, ...]:
    """Return the steps of options that few give."""
    ambient = ambient_caps(options, facts)
    asks = (
        options.cpu_list, options.sched, options.nice, options.timer_slack, options.thread_stack,
        facts.account,
    )  # fmt: skip
    kept = kept_over_fork(options, facts)
    plain = options.thp == "inherit" and options.signal_to == "main" and not kept
    if not ambient and not options.no_new_privs and plain and asks == NOTHING:
        return ()
    from rtlaunch.core import asked_steps as asked

    steps: list[Step] = []
    if options.signal_to == "group":
        steps.append(asked.LeadGroup(facts.has_terminal))
    if options.cpu_list is not None:
        steps.append(asked.SetAffinity(options.cpu_list))
    steps += kept
    if options.sched is not None:
        steps.append(asked.SetScheduler(options.sched.policy, options.sched.priority))
    if options.nice is not None:
        steps.append(asked.SetNice(options.nice))
    if options.timer_slack is not None:
        steps.append(asked.SetTimerSlack(options.timer_slack))
    if facts.account is not None:
        steps.append(asked.BecomeUser(facts.account, bool(ambient)))
    if ambient:
        steps.append(asked.RaiseAmbient(ambient))
    if options.no_new_privs:
        steps.append(asked.SetNoNewPrivs())
    return (*steps, *shape_of_memory(options, facts))


def kept_over_fork(options: Options, facts: Facts) -> tuple[Step, ...]:
    """Return the step that takes back what a fork of ours resets, if it does and nobody asked."""
    if not facts.policy & SCHED_RESET_ON_FORK or mode.choose(options, facts).mode == mode.EXEC:
        return ()
    from rtlaunch.core.asked_steps import KeepSchedule

    policy = facts.policy if options.sched is None else None
    nice = facts.nice if options.nice is None else None
    return (KeepSchedule(policy, facts.rt_priority, nice),)


def shape_of_memory(options: Options, facts: Facts) -> list[Step]:
    """Return what shapes the target's memory; the small stack limit last, as it binds us too."""
    from rtlaunch.core import asked_steps as asked
    from rtlaunch.core import thp, threadstack

    steps: list[Step] = []
    flag = thp.flag(options.thp, facts) if options.thp != thp.INHERIT else None
    if flag:
        steps.append(asked.SetThp(options.thp, *flag))
    if options.thread_stack is not None:
        size = threadstack.asked_bytes(options, facts)
        steps.append(asked.SetThreadStack(size, threadstack.limit_after(options, facts)))
    return steps


def as_allowed(options: Options, findings: tuple[Finding, ...]) -> Options:
    """Return the options without those that cannot be had, and that the user let go."""
    codes = {finding.code for finding in findings}
    if "thread-stack-unsupported" in codes:
        options = replace(options, thread_stack=None)
    if "thp-unavailable" in codes:
        options = replace(options, thp="inherit")
    return options


def leases(options: Options) -> tuple[Step, ...]:
    """Return the leases of huge pages, which stand before the fork."""
    if not options.hugepages:
        return ()
    from rtlaunch.core.asked_steps import LeaseHugePages

    return tuple(LeaseHugePages(one.page_bytes, one.count, one.node) for one in options.hugepages)


def make_plan(
    options: Options, facts: Facts, findings: tuple[Finding, ...] = (), way: str = PRELOAD
) -> tuple[Step, ...]:
    """Return the whole plan of a launch, but what changes nothing.

    It is without preload where waived findings rule that out.
    """
    codes = {finding.code for finding in findings}
    options = as_allowed(options, findings)
    preload = "" if codes & UNREACHED else preloaded(options, facts, way)
    aside = mode.choose(options, facts).mode == mode.EXEC
    steps = tuple(step for step in before_exec(options, facts) if step.changes_something(facts))
    if "limit-raise" in codes:
        steps = tuple(as_far_as_possible(step) for step in steps)
    if facts.heap is not None:
        from rtlaunch.core import heap

        steps += heap.steps(options, facts, codes)
    return (
        *leases(options),
        *((Trace(),) if way == PTRACE else ()),
        *steps,
        Execute(facts.target.path, facts.target.argv, preload),
        Lock(options.lock, options.prefault_stack, options.children),
        *said_ready(options, facts, aside),
        *followed(options, facts),
        WatchFaults(options.watch, options.pdeathsig, aside),
    )


def said_ready(options: Options, facts: Facts, by_program: bool) -> tuple[Step, ...]:
    """Return the step of ``--notify``, where somebody is there to be told."""
    if not options.notify:
        return ()
    from rtlaunch.core import readiness

    return readiness.steps(facts, by_program)


def followed(options: Options, facts: Facts) -> tuple[Step, ...]:
    """Return the step that follows a program which is, by its name, there to become another."""
    program = facts.target.program
    if program is None or not leads_on(program.path):
        return ()
    from rtlaunch.core import chains

    followed = chains.are_followed(options, facts.reach.reads_any)
    return (chains.Follow(program.path),) if followed else ()


def as_far_as_possible(step: Step) -> Step:
    """Turn a demanded limit, whose refusal was waived, into one that takes what it gets."""
    return step.as_far_as_possible() if isinstance(step, SetLimit) else step
