"""The foreground of our controlling terminal (tcsetpgrp(3)).

Who calls this has SIGTTOU blocked: the kernel would stop it for the very call. It decides nothing
but whether the terminal is the giver's to give.
"""

from __future__ import annotations

import os


def pass_on(giver: int, taker: int) -> None:
    """Put the process group ``taker`` into the foreground, if ``giver`` is there now.

    OSError where the terminal is gone (ENXIO, EIO), or ``taker`` is not of its session (EPERM).
    """
    fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if os.tcgetpgrp(fd) == giver:
            os.tcsetpgrp(fd, taker)
    finally:
        os.close(fd)
