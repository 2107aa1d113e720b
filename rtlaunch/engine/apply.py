"""Performing the plan's actions in the child, between fork and exec.

One function per action, found by its type. Each runs in the process that
becomes the target and must leave nothing but what its action says. An error
is an OSError; the caller reports which action it was.
"""

from __future__ import annotations

import errno
import os

from rtlaunch.core import plan
from rtlaunch.core.limits import Limit
from rtlaunch.core.numbers import CAPABILITY_NUMBERS, SCHED_POLICIES
from rtlaunch.linux import prctl, rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def set_limit(action: plan.SetLimit) -> None:
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


def set_affinity(action: plan.SetAffinity) -> None:
    """Bind to CPUs, and read back: the kernel leaves out what the cpuset forbids."""
    os.sched_setaffinity(0, action.cpus)


def set_scheduler(action: plan.SetScheduler) -> None:
    """Set policy and priority."""
    os.sched_setscheduler(0, SCHED_POLICIES[action.policy], os.sched_param(action.priority))


def set_nice(action: plan.SetNice) -> None:
    """Set the nice value."""
    os.setpriority(os.PRIO_PROCESS, 0, action.nice)


def set_timer_slack(action: plan.SetTimerSlack) -> None:
    """Set the timer slack."""
    prctl.set_timer_slack(action.slack_ns)


def become_user(action: plan.BecomeUser) -> None:
    """Change groups, then the group, then the user: the last gives up the right to the others."""
    account = action.account
    if action.keep:
        prctl.set_keep_caps(True)
    ours = {os.getegid(), *os.getgroups()}  # whether the first is among the others is login's taste
    if os.geteuid() == 0 or ours != {account.gid, *account.groups}:
        os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def raise_ambient(action: plan.RaiseAmbient) -> None:
    """Make capabilities inheritable, then ambient, which needs both sets."""
    numbers = tuple(CAPABILITY_NUMBERS[name] for name in action.caps)
    prctl.add_capabilities(numbers)
    from rtlaunch.linux import libc  # python-prctl has no ambient calls

    for number in numbers:
        libc.raise_ambient(number)


def set_no_new_privs(action: plan.SetNoNewPrivs) -> None:
    """Give up gaining privileges by exec."""
    prctl.set_no_new_privs()


def set_thp(action: plan.SetThp) -> None:
    """Set who may have transparent huge pages, and read it back."""
    from rtlaunch.linux import libc

    libc.set_thp_disable(action.disable, action.flags)
    if libc.get_thp_disable() != action.disable | action.flags:
        raise OSError(errno.EINVAL, "PR_GET_THP_DISABLE says otherwise")


def set_thread_stack(action: plan.SetThreadStack) -> None:
    """Set the stack limit that glibc will read."""
    rlimit.put_soft("stack", action.size)


PERFORM: dict[type, Callable[[Any], None]] = {
    plan.SetLimit: set_limit,
    plan.SetAffinity: set_affinity,
    plan.SetScheduler: set_scheduler,
    plan.SetNice: set_nice,
    plan.SetTimerSlack: set_timer_slack,
    plan.BecomeUser: become_user,
    plan.RaiseAmbient: raise_ambient,
    plan.SetNoNewPrivs: set_no_new_privs,
    plan.SetThp: set_thp,
    plan.SetThreadStack: set_thread_stack,
}

