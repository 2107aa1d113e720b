"""Resource limits of this process: getrlimit(2) and setrlimit(2).

The only file that imports ``resource``. It decides nothing; what a limit
shall be is :mod:`rtlaunch.core.limits`'s.
"""

from __future__ import annotations

import resource

from rtlaunch.core.limits import Limit
from rtlaunch.core.units import RLIMIT_NUMBERS


def get(name: str) -> Limit:
    """Return the limit ``name`` (as in ``memlock``) of this process."""
    return Limit(*resource.getrlimit(RLIMIT_NUMBERS[name]))


def get_all() -> dict[str, Limit]:
    """Return all limits of this process by name."""
    return {name: get(name) for name in RLIMIT_NUMBERS}


def put(name: str, limit: Limit) -> None:
    """Set the limit ``name``; PermissionError where the kernel refuses, ValueError on EINVAL."""
    resource.setrlimit(RLIMIT_NUMBERS[name], (limit.soft, limit.hard))


def get_of(pid: int, name: str) -> Limit:
    """Return the limit ``name`` of another process (prlimit(2)); ProcessLookupError if gone."""
    return Limit(*resource.prlimit(pid, RLIMIT_NUMBERS[name]))
