"""Who goes on where the target has ended: forks of it, which have none of its locks.

A program that becomes a daemon ends, with 0, in a moment; what does the work from then on is a
child that was forked and not exec()ed, so that no shim ran in it. It is looked for once, at the
end, and only where somebody holds the target's end of the channel still. A daemon that closes all
its descriptors is not found.

It must not touch what it finds: it is nobody's business here but the user's.
"""

from __future__ import annotations

import os
import time

from rtlaunch.linux import proc

# For a child that was forked last and is about to exec, or to fork the daemon and end. A side
# process has 0.1 s to end in.
SETTLED_WITHIN_S = 0.05


def forks_of(executable: str, end: tuple[int, int]) -> list[int]:
    """Return the processes that run ``executable`` and hold ``end``, st_dev and st_ino."""
    # twice: one may have ended while we looked, and have forked another
    found = look(executable, end) or look(executable, end)
    if found:
        time.sleep(SETTLED_WITHIN_S)
        found = look(executable, end)
    return sorted(found)


def look(executable: str, end: tuple[int, int]) -> list[int]:
    """Return those of this moment."""
    pids = map(int, filter(str.isdecimal, os.listdir("/proc")))
    return [pid for pid in pids if is_fork(pid, executable, end)]


def is_fork(pid: int, executable: str, end: tuple[int, int]) -> bool:
    """Tell whether ``pid`` is one; not if it has ended, or is none of ours to look into."""
    try:
        return proc.read_exe(pid) == executable and proc.descriptor_of(pid, end) >= 0
    except OSError:
        return False
