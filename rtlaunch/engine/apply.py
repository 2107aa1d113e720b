"""Performing the plan's actions in the child, between fork and exec.

One function per action, found by the name of its type. Each runs in the process that
becomes the target and must leave nothing but what its action says. An error
is an OSError; the caller reports which action it was.
"""

from __future__ import annotations

import errno
import os

from rtlaunch.core.limits import Limit
from rtlaunch.core.numbers import CAPABILITY_NUMBERS, SCHED_POLICIES
from rtlaunch.linux import prctl, rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rtlaunch.core import asked_steps as asked
    from rtlaunch.core import steps


def set_limit(action: steps.SetLimit) -> None:
    """Set one limit; ``max`` falls back to the hard limit in force, never to an error.

    A hard NOFILE above fs.nr_open, say, is EPERM even with CAP_SYS_RESOURCE.
    """
    change = action.change
    try:
        rlimit.put(change.name, change.after)
    except OSError:
        if change.demanded:
            raise
        rlimit.put(change.name, Limit(change.before.hard, change.before.hard))


def set_affinity(action: asked.SetAffinity) -> None:
    """Bind to CPUs, and read back: the kernel leaves out what the cpuset forbids."""
    os.sched_setaffinity(0, action.cpus)


def set_scheduler(action: asked.SetScheduler) -> None:
    """Set policy and priority."""
    os.sched_setscheduler(0, SCHED_POLICIES[action.policy], os.sched_param(action.priority))


def keep_schedule(action: asked.KeepSchedule) -> None:
    """Set policy and nice value as they were before the fork, the flag that reset them as well."""
    if action.policy is not None:
        os.sched_setscheduler(0, action.policy, os.sched_param(action.priority))
    if action.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, action.nice)


def set_nice(action: asked.SetNice) -> None:
    """Set the nice value."""
    os.setpriority(os.PRIO_PROCESS, 0, action.nice)


def set_timer_slack(action: asked.SetTimerSlack) -> None:
    """Set the timer slack."""
    prctl.set_timer_slack(action.slack_ns)


def become_user(action: asked.BecomeUser) -> None:
    """Change groups, then the group, then the user: the last gives up the right to the others.

    Groups that are there already are left alone: root of a user namespace may often not set any
    (user_namespaces(7), /proc/PID/setgroups).
    """
    account = action.account
    if action.keep:
        prctl.set_keep_caps(True)
    ours = {os.getegid(), *os.getgroups()}  # whether the first is among the others is login's taste
    stays = os.geteuid() != 0 or os.getegid() == account.gid  # else what we leave may be lacking
    if not stays or ours != {account.gid, *account.groups}:
        os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def raise_ambient(action: asked.RaiseAmbient) -> None:
    """Make capabilities inheritable, then ambient, which needs both sets."""
    numbers = tuple(CAPABILITY_NUMBERS[name] for name in action.caps)
    prctl.add_capabilities(numbers)
    from rtlaunch.linux import libc  # python-prctl has no ambient calls

    for number in numbers:
        libc.raise_ambient(number)


def lead_group(action: asked.LeadGroup) -> None:
    """Lead a group of our own, in the terminal's foreground if that is where we were."""
    from rtlaunch.linux import terminal

    if not action.has_terminal:
        os.setsid()
        return
    before = os.getpgrp()
    os.setpgid(0, 0)
    terminal.pass_on(before, os.getpgrp())


def set_no_new_privs(action: asked.SetNoNewPrivs) -> None:
    """Give up gaining privileges by exec."""
    prctl.set_no_new_privs()


def set_thp(action: asked.SetThp) -> None:
    """Set who may have transparent huge pages, and read it back."""
    from rtlaunch.linux import libc

    libc.set_thp_disable(action.disable, action.flags)
    if libc.get_thp_disable() != action.disable | action.flags:
        raise OSError(errno.EINVAL, "PR_GET_THP_DISABLE says otherwise")


def set_thread_stack(action: asked.SetThreadStack) -> None:
    """Set the stack limit that glibc will read."""
    rlimit.put_soft("stack", action.size)


# By the name of the step's type: the types of rare steps are not imported for a table.
PERFORM: dict[str, Callable[[Any], None]] = {
    "SetLimit": set_limit,
    "LeadGroup": lead_group,
    "SetAffinity": set_affinity,
    "KeepSchedule": keep_schedule,
    "SetScheduler": set_scheduler,
    "SetNice": set_nice,
    "SetTimerSlack": set_timer_slack,
    "BecomeUser": become_user,
    "RaiseAmbient": raise_ambient,
    "SetNoNewPrivs": set_no_new_privs,
    "SetThp": set_thp,
    "SetThreadStack": set_thread_stack,
}
