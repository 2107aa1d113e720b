"""Keeping one of our threads out of the target's way.

Affinity, policy and signal mask are a thread's own, so that this changes
nothing for the rest of the launcher. It must not touch the target.
"""

from __future__ import annotations

import _signal
import os

_REALTIME = (1, 2, 6)  # SCHED_FIFO, SCHED_RR, SCHED_DEADLINE
_RESET_ON_FORK = 0x40000000


def step_aside(pid: int) -> None:
    """Take this thread out of the way of ``pid``: no signals, no real-time policy, other CPUs.

    Where there is no other CPU than the target's, it stays; a cpuset narrows what is asked for.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    if os.sched_getscheduler(0) & ~_RESET_ON_FORK in _REALTIME:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        busy = os.sched_getaffinity(pid)
        others = os.sched_getaffinity(0) - busy or set(range(os.cpu_count() or 1)) - busy
        if others:
            os.sched_setaffinity(0, others)
    except OSError:  # the target ended, or the cpuset has no such CPU
        return
