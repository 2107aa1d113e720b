"""What is written for the guest that locks without a launcher: the twin of native/standalone.h.

Why it is not in :mod:`rtlaunch.core.protocol`: no launch speaks to that guest, only
``rtlaunch plan --as`` writes for it. tests/native compares the two through the compiler.

It must not decide who is locked, or how.
"""

from __future__ import annotations

STANDALONE_VARIABLE = "_RTL_STANDALONE"

# beside the MCL_* bits
STANDALONE_LENIENT = 0x8
STANDALONE_EVERY = 0x10

# PID: the process that SYSTEMD_EXEC_PID names
BY_MANAGER = "0"


def standalone_variable(flags: int, stack_bytes: int, pid: str) -> str:
    """Return the value of ``_RTL_STANDALONE``; ``pid`` is a number, or what a shell makes one."""
    return f"{flags}:{stack_bytes}:{pid}"
