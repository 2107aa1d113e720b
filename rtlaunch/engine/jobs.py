"""Signals of a cluster's daemon, which has sent to the target what it sends to us.

Imported only in a job, for a signal that some process sent. What each daemon does is
:mod:`rtlaunch.core.forwarding`'s to know; here the two processes are looked at.
"""

from __future__ import annotations

import os

from rtlaunch.core import forwarding
from rtlaunch.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def has_it_already(target: int, sender: int, environ: Mapping[str, str]) -> bool:
    """Tell whether ``sender``, a process that signalled us, signalled the target as well."""
    try:
        name = proc.read_text(sender, "comm").rstrip("\n")
        same_group = os.getpgid(target) == os.getpgrp()
        ours, theirs = (
            forwarding.step_cgroups(proc.read_text(pid, "cgroup")) for pid in (os.getpid(), sender)
        )
    except OSError:
        return False  # it is gone: once more is better than never
    return forwarding.signals_all(name, environ, same_group, ours == theirs)
