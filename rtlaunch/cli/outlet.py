"""Writing to descriptors that are others' too, and never waiting for them without end.

O_NONBLOCK is no way: the flag is the open file's, which the program and whoever started us share
(open(2)). So we ask first, and write no more at a time than what a pipe that has room takes whole.
"""

from __future__ import annotations

import errno
import os
import select

# A pipe that polls as writable has a free page (fs/pipe.c, pipe_poll), a socket more than that.
AT_ONCE = 4096


class Stalled(OSError):
    """Nobody reads: what was left is not written."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "nobody reads it")


def write_whole(fd: int, data: bytes, patience_ms: int) -> None:
    """Write all of ``data``; OSError as write(2) has it.

    Stalled where nothing was taken for ``patience_ms``.
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while data:
        if not poll.poll(patience_ms):
            raise Stalled
        data = data[os.write(fd, data[:AT_ONCE]) :]
