"""Trying in a forked child what a seccomp filter may answer by death.

It must leave nothing behind: no core file, no zombie.
"""

from __future__ import annotations

import os

from rtlaunch.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def survives(attempt: Callable[[], object]) -> bool:
    """Tell whether a forked child of ours lives through ``attempt``, whatever comes of it."""
    pid = os.fork()
    if not pid:
        try:
            libc.prctl(libc.PR_SET_DUMPABLE, 0)  # no core file of a trial
            attempt()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return not os.WIFSIGNALED(status)
