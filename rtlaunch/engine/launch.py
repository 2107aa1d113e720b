"""The story of a launch, from options to outcome.

survey -> preflight -> plan -> fork, apply, exec -> handshake -> watch -> outcome.
Each line of :func:`launch` is a chapter that lives in a module of that name.
What is imported where is part of the design: what the child needs stands
before the fork, and what only the parent needs passes while the child exec()s
(docs/decisions/0005).
"""

from __future__ import annotations

import os
import sys
import time

from rtlaunch.core import plan as planning
from rtlaunch.core import preflight
from rtlaunch.core.findings import (
    EXIT_LIMIT_EXCEEDED,
    EXIT_REFUSED,
    Finding,
    Refusal,
    first_refusal,
)
from rtlaunch.core.identity import target_credentials
from rtlaunch.core.mode import EXEC, choose, needs_signals
from rtlaunch.core.record import replace
from rtlaunch.core.settings import without_twins
from rtlaunch.core.steps import Execute, SetLimit, Trace
from rtlaunch.engine import channel, inherit, spawn
from rtlaunch.engine.survey import judge, survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options
    from rtlaunch.core.outcome import Outcome
    from rtlaunch.core.steps import Step
    from rtlaunch.engine.inherit import Inherited
    from rtlaunch.engine.listener import Listener
    from rtlaunch.engine.readiness import Readiness
    from rtlaunch.engine.sentry import Sentry
    from rtlaunch.engine.supervise import Supervisor


class Story:
    """One launch as it is told: when it began, whether a child was forked, and the outcome.

    ``started_at`` is CLOCK_REALTIME, ``began_ns`` CLOCK_MONOTONIC, both ns. The
    outcome is made when it is first written to. ``sentry`` makes who stays beside the target,
    where that is not the usual one.
    """

    __slots__ = ("_outcome", "began_ns", "elsewhere", "forked", "sentry", "started_at")

    def __init__(self) -> None:
        self.started_at = time.time_ns()
        self.began_ns = time.monotonic_ns()
        self.forked = False
        self.elsewhere = False  # whether another process brings it to its end
        self.sentry: Callable[[Options, Facts, Outcome, Listener], Sentry] | None = None
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        """All that is known of the launch."""
        if self._outcome is None:
            from rtlaunch.core.outcome import Outcome

            self._outcome = Outcome()
            self._outcome.time.started_at = self.started_at
            self._outcome.time.monotonic_ns = self.began_ns
        return self._outcome


def launch(
    options: Options, command: Sequence[str], inherited: Inherited, listener: Listener, story: Story
) -> None:
    """Run ``command`` as ``options`` say and fill the story's outcome in, whatever happens.

    Who watches it is :attr:`Story.sentry`'s to say.

    Refusal, with the finding, where it did not start or was ended before
    main(); else ``outcome.exit.rtlaunch_code`` is the exit status.
    """
    facts, found = judge(options, survey(options, command, inherited.environ))
    refusing = first_refusal(found)
    if refusing:
        write_facts(options, facts, story.outcome)
        story.outcome.findings += tuple(other for other in found if other is not refusing)
        raise Refusal(refusing)
    options = planning.as_allowed(options, found)
    way, _ = preflight.way_in(options, facts)
    actions = planning.make_plan(options, facts, found, way)
    listener.plan(actions)
    if not options.hugepages or facts.hugepages is None:
        carry_out(options, facts, found, actions, inherited, listener, story)
        return
    from rtlaunch.engine import lease

    held = lease.take(options, facts.hugepages, found, listener, story.outcome)
    try:
        held.yield_to_keys(inherited.mask)
        carry_out(options, facts, found, actions, inherited, listener, story, held.confirm)
    finally:
        if not story.elsewhere:
            held.give_back()
        story.outcome.findings += tuple(held.findings)


def carry_out(
    options: Options,
    facts: Facts,
    found: tuple[Finding, ...],
    actions: tuple[Step, ...],
    inherited: Inherited,
    listener: Listener,
    story: Story,
    promise: Callable[[int], Finding | None] | None = None,
) -> None:
    """Fork, and supervise the target to its end; ``promise`` is asked before it is told to go."""
    ours, theirs = channel.open_channel()
    detached = choose(options, facts).mode == EXEC
    inherit.block_signals(but=inherit.KEYS)  # until there is a child to share them with
    clean = replace(inherited, environ=without_twins(inherited.environ))
    ready = begin_readiness(clean, by_us=not detached) if options.notify else None
    forked_ns = time.monotonic_ns()
    if detached:
        from rtlaunch.engine import detach

        options, pid = detach.keep_pdeathsig(options), os.getpid()
        if not detach.fork_aside():
            story.elsewhere = True
            ours.close()
            detach.become_target(options, facts, actions, clean, theirs, listener)
        keep = (*listener.descriptors(), *(ready.descriptors() if ready else ()))
        detach.step_out({ours.fileno(), theirs.fileno(), *keep})
    else:
        pid = start_child(options, facts, actions, clean, theirs)
    inherit.block_signals()
    end = os.fstat(theirs.fileno())
    theirs.close()
    story.forked = True

    supervisor = make_supervisor(options, facts, actions, listener, ours, story, detached)
    supervisor.channel_end = (end.st_dev, end.st_ino)
    supervisor.handshake.promise = promise
    supervisor.handshake.readiness = ready
    story.outcome.time.forked_ns = forked_ns
    write_facts(options, facts, story.outcome)
    if facts.heap is not None:
        write_heap(actions, story.outcome)
    for finding in found:
        listener.finding(finding)
    story.outcome.findings += found  # before a report can be written while it runs
    supervisor.run(pid)
    story.outcome.findings += supervisor.findings()
    conclude(supervisor, actions, facts, story.outcome)


def begin_readiness(inherited: Inherited, by_us: bool) -> Readiness | None:
    """Prepare READY=1; the program has no NOTIFY_SOCKET where we say it: a child is not heard."""
    from rtlaunch.engine import readiness

    ready = readiness.begin(inherited.environ, by_us)
    if ready is not None and ready.by_us:
        del inherited.environ["NOTIFY_SOCKET"]
    return ready


def start_child(
    options: Options,
    facts: Facts,
    actions: tuple[Step, ...],
    inherited: Inherited,
    theirs: _socket.socket,
) -> int:
    """Fork the process that becomes the target; return its pid. Refusal where fork fails.

    It must be the main thread's: the parent death signal fires when the
    *thread* that forked ends (prctl(2)).
    """
    launcher_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        raise Refusal(fork_failed(error)) from error
    if pid == 0:
        try:
            nofile = facts.limits["nofile"].soft
            spawn.Child(options, actions, theirs, inherited, launcher_pid, nofile).become_target()
        finally:
            if sys.exc_info()[0]:  # a bug of ours, of which nobody else would hear
                sys.excepthook(*sys.exc_info())
            os._exit(EXIT_REFUSED)
    return pid


def make_supervisor(
    options: Options,
    facts: Facts,
    actions: tuple[Step, ...],
    listener: Listener,
    ours: _socket.socket,
    story: Story,
    detached: bool,
) -> Supervisor:
    """Import and put together what stays beside the target."""
    from rtlaunch.engine.handshake import Handshake
    from rtlaunch.engine.sentry import Sentry

    execute = next(action for action in actions if isinstance(action, Execute))
    traced = any(isinstance(action, Trace) for action in actions)
    outcome = story.outcome
    sentry = (story.sentry or Sentry)(options, facts, outcome, listener)
    handshake = Handshake(options, facts, outcome, listener, sentry.arm, sentry.sees_exec)
    kind = kind_of_supervisor(options, detached)
    return kind(outcome, handshake, sentry, ours, execute.preload, traced)


def kind_of_supervisor(options: Options, detached: bool) -> type[Supervisor]:
    """Import what this launch needs to stay beside its target."""
    if detached:
        from rtlaunch.engine.detach import SideProcess

        return SideProcess
    if needs_signals(options):
        from rtlaunch.engine.manners import Mannered

        return Mannered
    from rtlaunch.engine.supervise import Supervisor

    return Supervisor


def write_facts(options: Options, facts: Facts, outcome: Outcome) -> None:
    """Write down what is known before anything starts."""
    from rtlaunch.core.outcome import Limit

    host = outcome.host
    host.name, host.kernel, host.arch = facts.host.name, facts.host.kernel, facts.host.arch
    host.page_bytes = facts.host.page_bytes
    outcome.budget = preflight.budgeted(options, facts)
    who = target_credentials(options, facts)
    outcome.target.argv = facts.target.argv
    outcome.target.uid, outcome.target.gid = who.euid, who.egid
    chosen = choose(options, facts)
    outcome.mode.chosen, outcome.mode.why = chosen.mode, chosen.why
    outcome.lock.via, outcome.lock.why = preflight.way_in(options, facts)
    outcome.lock.flags = options.lock
    outcome.caps.launcher = facts.who.caps.as_dict()
    if options.thp != "inherit" and facts.shape:
        from rtlaunch.core import thp

        outcome.thp.asked = options.thp
        outcome.thp.before = thp.policy_for(facts.shape.thp_disabled, facts.shape.thp_system)
    for action in planning.before_exec(options, facts):
        if isinstance(action, SetLimit):
            before = action.change.before
            outcome.limits[action.change.name] = Limit(
                asked=action.change.asked, before=(before.soft, before.hard)
            )


def write_heap(actions: Sequence[Step], outcome: Outcome) -> None:
    """Write down the heap that was asked for, and what the C library is told."""
    from rtlaunch.core.asked_steps import ReserveHeap

    for action in actions:
        if isinstance(action, ReserveHeap):
            outcome.heap.asked_bytes = action.heap_bytes or None
            outcome.heap.variables = {"GLIBC_TUNABLES": action.tunables}


def conclude(
    supervisor: Supervisor,
    actions: Sequence[Step],
    facts: Facts,
    outcome: Outcome,
) -> None:
    """Set the exit status, or raise the Refusal that a failed launch comes to."""
    if supervisor.failure:
        raise Refusal(failed_action(actions, facts, *supervisor.failure))
    if supervisor.refusal:
        raise Refusal(supervisor.refusal)
    status = supervisor.exit_status()
    status = dict(supervisor.handshake.options.map_exit).get(status, status)
    outcome.exit.rtlaunch_code = EXIT_LIMIT_EXCEEDED if supervisor.sentry.limit_exceeded else status


def fork_failed(error: OSError) -> Finding:
    """Return the finding for a fork that the kernel refused."""
    return Finding(
        "launch-failed",
        f"cannot fork: {error.strerror}",
        why="too many processes (RLIMIT_NPROC, pids cgroup), too little memory, or SCHED_DEADLINE "
        "without SCHED_RESET_ON_FORK, under which nobody may fork (sched(7))",
        values={"errno": error.errno},
    )


def failed_action(actions: Sequence[Step], facts: Facts, index: int, errno: int) -> Finding:
    """Say which action of the plan failed in the child, in the words that ``plan`` prints."""
    action = actions[index]
    if isinstance(action, Execute):
        from rtlaunch.engine import classify

        return classify.diagnose(errno, facts.target, facts.account)
    return Finding(
        action.refused_as,
        f"could not {action.describe()}: {os.strerror(errno)}",
        why="the kernel refused it in the process that was to become the program",
        values={**action.values(), "errno": errno},
    )
