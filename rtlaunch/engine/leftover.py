"""Who goes on where the target has ended: forks of it, which have none of its locks.

A program that becomes a daemon ends, with 0, in a moment; what does the work from then on is a
child that was forked and not exec()ed, so that no shim ran in it. It is looked for once, at the
end, and only where somebody holds the target's end of the channel still. A daemon that closes all
its descriptors is not found.

It must not touch what it finds: it is nobody's business here but the user's.
"""

from __future__ import annotations

import os

from rtlaunch.linux import proc


def forks_of(executable: str | None, end: tuple[int, int]) -> list[int]:
    """Return the processes that run ``executable`` and hold ``end``, st_dev and st_ino."""
    found = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            if proc.read_exe(pid) == executable and proc.descriptor_of(pid, end) >= 0:
                found.append(pid)
        except OSError:
            continue  # it ended, or is none of ours to look into
    return sorted(found)
