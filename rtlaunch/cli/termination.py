"""A refusal where kubelet looks for the last words of a container: /dev/termination-log.

kubelet puts that file into each container and shows what it finds there as the reason of its end
(terminationMessagePath), in `kubectl describe pod`, where no log has to be searched. It reads 4096
bytes. Nothing is made here: where there is no such file, or it is something else, nothing is done.
"""

from __future__ import annotations

import os
import stat

from rtlaunch.cli import surroundings
from rtlaunch.core.where import CONTAINERS

PATH = "/dev/termination-log"
MOST_BYTES = 4096


def leave(text: str, path: str = PATH) -> None:
    """Write the last words of this container, if it is one that has a place for them."""
    if not os.path.exists(path):
        return
    place = surroundings.here()
    if place.kind in CONTAINERS or place.inside in CONTAINERS:
        write_over(path, fitting(text))


def write_over(path: str, data: bytes) -> None:
    """Replace what a regular file holds; any other kind, and one that we may not, is left."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
            os.write(fd, data)
    except OSError:
        return  # full, or read-only: stderr has it as well
    finally:
        os.close(fd)


def fitting(text: str) -> bytes:
    """Return as many whole lines as are read, or the beginning of a first one that is too long."""
    data = (text + "\n").encode("utf-8", "surrogateescape")
    if len(data) <= MOST_BYTES:
        return data
    head = data[:MOST_BYTES]
    return head[: head.rfind(b"\n") + 1] or head
