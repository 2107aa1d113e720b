"""What stands against what few options ask for: another user, capabilities, scheduling, CPUs.

Checks of :mod:`rtlaunch.core.preflight`, which a launch without such an option never imports.
"""

from __future__ import annotations

from rtlaunch.core import caps, limits
from rtlaunch.core.findings import Finding
from rtlaunch.core.numbers import CAPABILITY_NUMBERS, REALTIME_POLICIES, UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.facts import Account, Facts
    from rtlaunch.core.options import Options


def of_user(account: Account, facts: Facts) -> Iterable[Finding]:
    """Find a change of user that the kernel would refuse."""
    who = facts.who
    if account.uid == who.uid == who.euid and account.gid == who.gid:
        return
    needed = {"CAP_SETUID": caps.CAP_SETUID, "CAP_SETGID": caps.CAP_SETGID}
    missing = [name for name, cap in needed.items() if not _effective(facts, cap)]
    if missing:
        yield Finding(
            "user-denied",
            f"cannot become {account.name} (uid {account.uid}) from uid {who.euid}: no "
            + ", no ".join(missing),
            why="only CAP_SETUID and CAP_SETGID change to another user",
            values={"user": account.name, "uid": account.uid},
        )


def _effective(facts: Facts, cap: int) -> bool:
    return caps.has(facts.who.caps.effective, cap)


def of_caps(wanted_caps: tuple[str, ...], facts: Facts) -> Iterable[Finding]:
    """Find ambient capabilities that were asked for and cannot be raised."""
    who = facts.who.caps
    for wanted in wanted_caps:
        cap, shown = CAPABILITY_NUMBERS[wanted], f"CAP_{wanted.upper()}"
        lacking = [
            name
            for name, mask in (("permitted", who.permitted), ("bounding", who.bounding))
            if not caps.has(mask, cap)
        ]
        if lacking:
            yield Finding(
                "capability-missing",
                f"cannot give {shown} to the program: it is not in our "
                + " and ".join(lacking) + " set",
                why="an ambient capability must be permitted and inheritable first "
                "(PR_CAP_AMBIENT_RAISE)",
                values={"capability": shown, "lacking": lacking},
            )  # fmt: skip
    if facts.who.securebits & caps.SECBIT_NO_CAP_AMBIENT_RAISE:
        yield Finding(
            "capability-missing",
            "cannot raise ambient capabilities: securebits forbid it "
            f"({facts.who.securebits:#x} has SECBIT_NO_CAP_AMBIENT_RAISE)",
            why="the secure bits were locked down before rtlaunch started",
            values={"securebits": facts.who.securebits},
        )


def of_scheduling(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a policy, priority, nice value or CPU that cannot be had."""
    yield from of_policy(options, facts)
    yield from of_nice(options, facts)
    if options.cpu_list is not None:
        yield from of_cpus(options.cpu_list, facts.possible_cpus)


def of_cpus(asked: tuple[int, ...], allowed: frozenset[int]) -> Iterable[Finding]:
    """Find CPUs that the cpuset of this process keeps from us."""
    from rtlaunch.core.units import format_cpus

    missing = frozenset(asked) - allowed
    values = {"asked": list(asked), "allowed": sorted(allowed)}
    if missing == frozenset(asked):
        yield Finding(
            "cpu-unavailable",
            f"CPUs {format_cpus(asked)} were asked for; only {format_cpus(allowed)} may be used "
            "here",
            why="the cpuset of this process allows no others (sched_setaffinity(2), EINVAL)",
            values=values,
        )
    elif missing:
        yield Finding(
            "cpu-unavailable",
            f"CPUs {format_cpus(missing)} of {format_cpus(asked)} may not be used here",
            why="the kernel would leave them out without a word",
            values=values,
        )


def of_policy(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a real-time policy without CAP_SYS_NICE and above RLIMIT_RTPRIO."""
    if options.sched is None or options.sched.policy not in REALTIME_POLICIES:
        return
    policy, priority = options.sched.policy, options.sched.priority
    allowed = facts.limits["rtprio"].soft
    if facts.no_realtime:
        yield no_realtime_group(policy, priority, facts.no_realtime)
    if _effective(facts, caps.CAP_SYS_NICE) or limits.at_most(priority, allowed):
        return
    yield Finding(
        "sched-denied",
        f"{policy} priority {priority} was asked for; RLIMIT_RTPRIO is {allowed}, no CAP_SYS_NICE",
        why="sched_setscheduler(2) gives real-time priorities up to RLIMIT_RTPRIO only",
        values={"policy": policy, "priority": priority, "rtprio": allowed},
    )


def no_realtime_group(policy: str, priority: int, group: str) -> Finding:
    """Return the finding for a group without real-time tasks, which no capability overrides."""
    file = f"{group}/cpu.rt_runtime_us"
    return Finding(
        "sched-denied",
        f"{policy} priority {priority} was asked for; {file} is 0",
        why="a cgroup without a share of real-time may hold no such task, whoever asks: EPERM "
        "(CONFIG_RT_GROUP_SCHED, kernel/sched/syscalls.c)",
        values={"policy": policy, "priority": priority, "cgroup": group, "rationed": file},
    )


def of_nice(options: Options, facts: Facts) -> Iterable[Finding]:
    """Find a nice value below what RLIMIT_NICE permits."""
    if options.nice is None or options.nice >= facts.nice or _effective(facts, caps.CAP_SYS_NICE):
        return
    floor = 20 - facts.limits["nice"].soft
    if facts.limits["nice"].soft != UNLIMITED and options.nice < floor:
        yield Finding(
            "sched-denied",
            f"nice {options.nice} was asked for; RLIMIT_NICE permits {min(floor, 19)} at best, "
            "no CAP_SYS_NICE",
            why="setpriority(2) lowers the nice value to 20 - RLIMIT_NICE only",
            values={"nice": options.nice, "floor": floor},
        )
