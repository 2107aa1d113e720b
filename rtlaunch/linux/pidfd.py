"""What a pidfd tells of a process that is not our child (include/uapi/linux/pidfd.h).

It decides nothing. Opening one is :func:`os.pidfd_open`.
"""

from __future__ import annotations

from _struct import Struct
from fcntl import ioctl

# struct pidfd_info in its first form: mask, cgroup, pids, ids, exit code.
_INFO = Struct("=QQIIIIIIIIIIIi")
_INFO_EXIT = 1 << 3  # Linux 6.15
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, ...)


def exit_status(fd: int) -> int | None:
    """Return the wait status of the process, once it was reaped; None before, or before 6.15."""
    asked = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    try:
        ioctl(fd, _GET_INFO, asked)
    except OSError:
        return None
    told = _INFO.unpack(asked)
    return told[-1] if told[0] & _INFO_EXIT else None
