"""What stands against a launch, found before anything is changed.

Pure: options and facts in, findings out, each with the numbers that it rests
on. The lock itself is judged by the kernel and by :mod:`rtlaunch.core.proof`;
here is only what would certainly fail, or would fail too late to be said well.
What puts numbers into words is imported where it is done: most launches say nothing.
"""

from __future__ import annotations

from rtlaunch.core import budget, caps, limits, mode, way
from rtlaunch.core.findings import Finding
from rtlaunch.core.identity import ambient_caps, may_raise_hard, target_credentials
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.record import replace
from rtlaunch.core.target import judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options

# What the kernel and ld.so put on a stack below the arguments: auxv, ld.so's own frames.
STACK_IN_USE_BYTES = 64 << 10


def findings(options: Options, facts: Facts) -> tuple[Finding, ...]:
    """Return everything found, worst questions first; waived ones are marked so."""
    found = [finding for check in CHECKS for finding in check(options, facts)]
    return tuple(waive(finding, options) for finding in found)


def waive(finding: Finding, options: Options) -> Finding:
    """Mark a finding as accepted where ``--allow`` or ``--best-effort`` says so."""
    accepted = finding.waivable and (options.best_effort or finding.code in options.allow)
    return replace(finding, waived=True) if accepted else finding


def of_target(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find what is wrong with the command itself, or keeps us from reaching it."""
    found = against_preload(options, facts)
    chosen, _ = way.via(options, facts, (finding.code for finding in found))
    passed = way.reached_by(chosen, facts)
    return tuple(finding for finding in found if finding.code not in passed)


def against_preload(options: Options, facts: Facts) -> tuple[Finding, ...]:
    """Return what is wrong with the command, or keeps a preload from its program."""
    who = target_credentials(options, facts)
    return (*judge(facts.target, who, facts.reach), *of_shim(options, facts))


def way_in(options: Options, facts: Facts) -> tuple[str, str]:
    """Return the way into the target, preload or ptrace, and why it is that one."""
    return way.via(options, facts, (finding.code for finding in against_preload(options, facts)))


def of_shim(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a shim that is not there, or that the loader could not map."""
    if facts.shim is None:
        yield Finding(
            "shim-missing",
            f"this installation has no shim for {facts.host.arch}",
            why="the shim is what locks the program before main()",
            values={"machine": facts.host.arch},
        )
        return
    if not facts.shim.preload:
        yield Finding(
            "shim-path",
            f"LD_PRELOAD cannot carry the shim's path {facts.shim.path!r}, and no alias for it "
            "could be made",
            why="ld.so splits LD_PRELOAD at spaces and colons",
            values={"path": facts.shim.path},
        )
    if facts.shim.noexec:
        yield Finding(
            "shim-path",
            f"the shim {facts.shim.path} is on a file system mounted noexec",
            why="ld.so cannot map it executable, says so on stderr and goes on without it",
            values={"path": facts.shim.path},
        )
    if facts.shim.hidden:
        uid = facts.account.uid if facts.account else facts.who.uid
        yield Finding(
            "shim-path",
            f"uid {uid} cannot read the shim {facts.shim.path}: {facts.shim.hidden}",
            why="ld.so runs as that user, says that it cannot open the shim, and goes on without",
            values={"path": facts.shim.path, "uid": uid},
        )


def of_children(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find children that are to be locked, where nothing is preloaded that could."""
    if options.via == way.PTRACE and options.children != "none":
        yield Finding(
            "child-unlocked",
            "--via ptrace locks the program alone: no child of it will be locked",
            why="what is locked from outside is given no LD_PRELOAD to pass on",
            set_by=f"--via ptrace together with --children {options.children}",
            try_now="--via auto, which preloads wherever the loader honours it",
            for_good="--via auto, or --children none",
        )


def of_surroundings(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find protocols that are bound to our PID, which the target will not have."""
    if options.notify:
        from rtlaunch.core import readiness

        yield from readiness.findings(options, facts, has_speaker(options, facts))
    if facts.unit_type == "forking":
        yield Finding(
            "unit-forking",
            f"{facts.unit} has Type=forking: what systemd goes on with is a fork of the program "
            "that is locked",
            why="a fork has none of its parent's locks (mlockall(2)): it would run unlocked",
            values={"unit": facts.unit},
        )
    if mode.choose(options, facts).mode == mode.EXEC:
        yield from mode.findings(options, facts)
        return
    present = bound_to_us(options, facts)
    if present:
        yield Finding(
            "notify-supervise",
            f"{', '.join(present)} is set, and the program would run as a child of rtlaunch",
            why="readiness, sockets and watchdog belong to the PID the service manager started",
            values={"variables": present},
        )


def has_speaker(options: Options, facts: Facts) -> bool:
    """Tell whether we will be the main process, or have something of ours run in it."""
    if mode.choose(options, facts).mode != mode.EXEC:
        return True
    return not any(finding.code in way.UNREACHED for finding in of_target(options, facts))


def bound_to_us(options: Options, facts: Facts) -> list[str]:
    """Return the variables of protocols that a child could not take part in.

    sd_listen_fds(3) and sd_watchdog_enabled(3) go by the PID that is named there: that of somebody
    else means somebody else, and a watchdog without a time is none.
    """
    environ, own = facts.environ, str(facts.host.pid)
    watchdog = environ.get("WATCHDOG_PID", "")
    timed = environ.get("WATCHDOG_USEC", "").lstrip("0").isdecimal() and watchdog in ("", own)
    bound = {
        "NOTIFY_SOCKET": environ.get("NOTIFY_SOCKET") and not options.notify,
        "LISTEN_PID": environ.get("LISTEN_PID") == own,
        "WATCHDOG_PID": watchdog and timed,
        "WATCHDOG_USEC": not watchdog and timed,
    }
    return [name for name, is_bound in bound.items() if is_bound]


def of_limits(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find limits that were demanded and cannot be had."""
    may_raise = may_raise_hard(facts)
    for change in limits.changes(options, facts.limits, may_raise):
        finding = limits.impossible(change, may_raise)
        if finding:
            yield finding


def memlock_after(options: Options, facts: Facts) -> int:
    """Return the soft memlock limit in bytes that the target will have."""
    for change in limits.changes(options, facts.limits, may_raise_hard(facts)):
        if change.name == "memlock":
            return change.after.soft
    return facts.limits["memlock"].soft


def will_hold_ipc_lock(options: Options, facts: Facts) -> bool:
    """Tell whether the image after exec has CAP_IPC_LOCK where the kernel asks for it.

    mm/mlock.c can_do_mlock asks the initial user namespace, so a capability
    held in another one counts for nothing.
    """
    program = facts.target.program
    marked = program is not None and program.file_caps is not None and not program.nosuid
    after = caps.after_exec(target_credentials(options, facts), marked)
    return facts.who.initial_userns and caps.has(after.effective, caps.CAP_IPC_LOCK)


def of_heap(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find what keeps the heap from being what was asked for."""
    if facts.heap is None:
        return ()
    from rtlaunch.core import heapfindings

    return heapfindings.findings(options, facts)


def of_lock(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a lock that must fail: no capability and a limit below the least a program needs."""
    if not options.lock or will_hold_ipc_lock(options, facts):
        return
    limit = memlock_after(options, facts)
    least = max(budget.program_bytes(facts), 1)
    if limit == UNLIMITED or limit >= least:
        return
    from rtlaunch.core.units import format_limit, format_size

    yield Finding(
        "memlock-limit",
        f"{facts.target.command} needs at least {format_size(least)} locked; RLIMIT_MEMLOCK is "
        f"{format_size(limit)} (hard {format_limit('memlock', facts.limits['memlock'].hard)}), "
        "no CAP_IPC_LOCK",
        why="without CAP_IPC_LOCK the kernel locks no more than RLIMIT_MEMLOCK",
        values={"needed_bytes": least, "soft": limit, "hard": facts.limits["memlock"].hard},
    )


def stack_limit(options: Options, facts: Facts) -> int:
    """Return the soft stack limit in bytes that the target will have."""
    asked = [ask.soft for ask in options.limit if ask.name == "stack"]
    return asked[-1] if asked else facts.limits["stack"].soft


def stack_room(options: Options, facts: Facts) -> int:
    """Return how many bytes of main stack the limit leaves below arguments and environment."""
    soft = stack_limit(options, facts)
    if soft == UNLIMITED:
        return 1 << 62
    strings = sum(len(key) + len(value) + 10 for key, value in facts.environ.items())
    strings += sum(len(argument) + 9 for argument in facts.target.argv)
    return max(0, soft - strings - STACK_IN_USE_BYTES)


def budgeted(options: Options, facts: Facts) -> budget.Budget:
    """Return what the program will take at least, or by its profile, and what there is for it."""
    injected = way_in(options, facts)[0] == way.PTRACE
    stacks = stack_limit(options, facts), thread_stack(options, facts)
    need = budget.predict(options, facts, *stacks, injected)
    capable = will_hold_ipc_lock(options, facts)
    memlock = UNLIMITED if capable else memlock_after(options, facts)
    return budget.Budget(need, budget.room_for(need, memlock, facts.memory))


def thread_stack(options: Options, facts: Facts) -> int:
    """Return what a thread's stack takes by default, in bytes."""
    if options.thread_stack is not None:
        return options.thread_stack
    soft = stack_limit(options, facts)
    return limits.DEFAULT_THREAD_STACK_BYTES if soft == UNLIMITED else soft


def of_budget(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a need that a limit, a memory cgroup or the machine has no room for."""
    whole = budgeted(options, facts)
    if whole.comfortable:
        return ()
    from rtlaunch.core import overbudget

    return overbudget.findings(whole, facts)


def may_be_stale(found: Iterable[Finding]) -> bool:
    """Tell whether a launch is refused only for what page cache could give back, limits permitting.

    How much of a group's use is cache comes late from the kernel (CgroupLimit).
    """
    refusing = [finding for finding in found if finding.refuses]
    return bool(refusing) and all(
        finding.code == "cgroup-budget" and budget.fits_empty(finding.values)
        for finding in refusing
    )


def of_stack(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a stack limit below what shall be prefaulted, which would be a SIGSEGV."""
    room = stack_room(options, facts)
    if options.prefault_stack <= room:
        return
    from rtlaunch.core.units import format_size

    soft = stack_limit(options, facts)
    yield Finding(
        "stack-limit",
        f"--prefault-stack {format_size(options.prefault_stack)} does not fit: RLIMIT_STACK is "
        f"{format_size(soft)}, which leaves {format_size(room)}",
        why="touching the stack below its limit is a SIGSEGV before main()",
        values={"prefault_bytes": options.prefault_stack, "soft": soft, "room_bytes": room},
    )


def of_hugepages(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find leases of huge pages that cannot be had, or not used."""
    if not options.hugepages:
        return ()
    from rtlaunch.core import hugefindings

    return hugefindings.findings(options, facts)


def of_thread_stack(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find what keeps threads from getting stacks of the size that was asked for."""
    if options.thread_stack is None:
        return ()
    from rtlaunch.core import threadstack

    known = (*of_target(options, facts), *of_shim(options, facts))
    unreached = any(finding.code in way.UNREACHED for finding in known)
    unreached |= way_in(options, facts)[0] == way.PTRACE
    return threadstack.findings(options, facts, unreached)


def of_thp(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find transparent huge pages that cannot be had as asked, or not with that lock."""
    if options.thp == "inherit":
        return ()
    from rtlaunch.core import thp

    return thp.findings(options, facts)


def of_user(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a change of user that the kernel would refuse."""
    if facts.account is None:
        return ()
    from rtlaunch.core import asked

    return asked.of_user(facts.account, facts)


def of_caps(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find ambient capabilities that were asked for and cannot be raised."""
    wanted = ambient_caps(options, facts)
    if not wanted:
        return ()
    from rtlaunch.core import asked

    return asked.of_caps(wanted, facts)


def of_scheduling(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a policy, priority, nice value or CPU that cannot be had."""
    if options.sched is None and options.nice is None and options.cpu_list is None:
        return ()
    from rtlaunch.core import asked

    return asked.of_scheduling(options, facts)


CHECKS: tuple[Callable[[Options, Facts], Iterable[Finding]], ...] = (
    of_target,
    of_children,
    of_surroundings,
    of_user,
    of_caps,
    of_limits,
    of_heap,
    of_lock,
    of_budget,
    of_stack,
    of_hugepages,
    of_thread_stack,
    of_thp,
    of_scheduling,
)
