"""Setting a resource limit, of this process or of another: setrlimit(2), prlimit(2).

The only file that imports ``resource``. It decides nothing; what a limit
shall be is :mod:`rtlaunch.core.limits`'s. Limits are read from /proc, those of
the target and our own alike.
"""

from __future__ import annotations

import errno
import os
import resource

from rtlaunch.core.limits import Limit, at_most
from rtlaunch.core.numbers import RLIMIT_NUMBERS


def put_soft(name: str, soft: int) -> None:
    """Set the soft limit ``name`` and leave the hard one; OSError as :func:`put`."""
    put(name, Limit(soft, resource.getrlimit(RLIMIT_NUMBERS[name])[1]))


def put_soft_of(pid: int, name: str, soft: int) -> None:
    """Set the soft limit ``name`` of another process (prlimit(2)).

    OSError: EPERM for another user's without CAP_SYS_RESOURCE, ESRCH if it is gone.
    """
    number = RLIMIT_NUMBERS[name]
    try:
        hard = resource.prlimit(pid, number)[1]
        resource.prlimit(pid, number, (soft, hard))
    except ValueError as error:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from error


def put(name: str, limit: Limit) -> None:
    """Set the limit ``name``; OSError with EPERM or EINVAL as setrlimit(2) has them.

    Python makes ValueError of both; EINVAL is a soft limit above the hard one.
    """
    put_of(0, name, limit)


def put_of(pid: int, name: str, limit: Limit) -> None:
    """Set the limit ``name`` of process ``pid``, 0 for ourselves (prlimit(2))."""
    try:
        resource.prlimit(pid, RLIMIT_NUMBERS[name], (limit.soft, limit.hard))
    except ValueError as error:
        number = errno.EPERM if at_most(limit.soft, limit.hard) else errno.EINVAL
        raise OSError(number, os.strerror(number)) from error
