"""A plan in the words of other engines: ``rtlaunch plan --as``.

One module for each kind of engine, one row for each engine. Pure: a
:class:`~rtlaunch.core.wanted.Wanted` in, text out. What an engine has no word for is a comment,
never left out. It must not weigh a finding: which ones an engine can mend is the row's to say, by
the beginnings of the codes of those that it cannot.
"""

from __future__ import annotations

from rtlaunch.core.record import Record
from rtlaunch.report.engines import containers, limits, shell, systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rtlaunch.core.wanted import Wanted


class Engine(Record):
    """One engine: how it is rendered, what it cannot mend, and whether no launcher is there."""

    render: Callable[[Wanted], str]
    judged: tuple[str, ...]
    standalone: bool = False


OF_THE_COMMAND = ("command-", "target-", "shim-", "user-unknown", "environment-")
OF_THIS_HOST = ("memory-budget", "overcommit-limit")
OF_THIS_SHELL = (
    "memlock-", "limit-raise", "stack-limit", "capability-", "user-denied", "sched-", "cpu-",
    "cgroup-budget",
)  # fmt: skip

ENGINES = {
    "systemd": Engine(systemd.render, (*OF_THE_COMMAND, *OF_THIS_HOST), True),
    "docker": Engine(containers.docker, ("environment-",)),
    "compose": Engine(containers.compose, ("environment-",)),
    "kubernetes": Engine(containers.kubernetes, ("environment-",)),
    "limits.d": Engine(limits.render, ("user-unknown", "environment-")),
    "env": Engine(shell.render, (*OF_THE_COMMAND, *OF_THIS_HOST, *OF_THIS_SHELL), True),
}
