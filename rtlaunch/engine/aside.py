"""Keeping one of our threads out of the target's way.

Affinity, policy and signal mask are a thread's own, so that this changes
nothing for the rest of the launcher. It must not touch the target.
"""

from __future__ import annotations

import _signal
import os
from _struct import Struct

from rtlaunch.linux import libc

_REALTIME = (1, 2, 6)  # SCHED_FIFO, SCHED_RR, SCHED_DEADLINE
_RESET_ON_FORK = 0x40000000
_SLICE_NS = 100_000  # the shortest that the kernel grants (kernel/sched/syscalls.c)
# size, policy, flags, nice, priority, runtime, deadline, period (struct sched_attr, its first form)
_SCHED_ATTR = Struct("=IIQiIQQQ")


def step_aside(pid: int) -> None:
    """Take this thread out of the way of ``pid``: no signals, no real-time policy, other CPUs.

    Where there is no other CPU than the target's, it stays; a cpuset narrows what is asked for.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    if os.sched_getscheduler(0) & ~_RESET_ON_FORK in _REALTIME:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    _ask_for_short_slices()
    try:
        busy = os.sched_getaffinity(pid)
        there = range(os.sysconf("SC_NPROCESSORS_CONF"))  # the last may be online, others not
        others = os.sched_getaffinity(0) - busy or set(there) - busy
        if others:
            os.sched_setaffinity(0, others)
    except OSError:  # the target ended, or the cpuset has no such CPU
        return


def _ask_for_short_slices() -> None:
    """Be run soon after a wake-up, where the CPU is shared with the target; since Linux 6.12.

    A thread that asks for less at a time is due earlier, at no larger share
    (EEVDF). Older kernels take no notice; where it is denied, nothing changes.
    """
    if libc.has_seccomp_filter():
        return  # systemd's ~@resources may kill us for it
    nice = os.getpriority(os.PRIO_PROCESS, 0)  # of this thread, as Linux has it
    attr = _SCHED_ATTR.pack(
        _SCHED_ATTR.size, os.sched_getscheduler(0) & ~_RESET_ON_FORK, 0, nice, 0, _SLICE_NS, 0, 0
    )
    try:
        libc.sched_setattr(attr)
    except OSError:  # no number for it here
        return
