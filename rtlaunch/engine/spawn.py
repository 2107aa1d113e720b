"""What the child does between fork and exec: the plan's actions, then exec.

It runs in the process that becomes the target, so it leaves nothing behind
but what the plan says. From its first instruction until the shim was told
``go`` the child has SIGKILL as its parent death signal: a launcher that dies
leaves nobody half-started.
"""

from __future__ import annotations

import _signal
import os
from errno import ENOMEM

from rtlaunch.core.protocol import (
    CHANNEL_VARIABLE,
    EXIT_REFUSED,
    FAILED,
    REFUSE,
    SKIP,
    Message,
    channel_variable,
    unpack,
)
from rtlaunch.engine import channel, inherit
from rtlaunch.engine.apply import PERFORM, become_user
from rtlaunch.linux import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping
    from typing import Any

    from rtlaunch.core.asked_steps import BecomeUser, ReserveHeap
    from rtlaunch.core.facts import Account
    from rtlaunch.core.options import Options
    from rtlaunch.core.steps import Execute, Step

# login(1)'s variables, which systemd sets for User= as well (systemd.exec(5)).
ACCOUNT_VARIABLES = {"HOME": "home", "USER": "name", "LOGNAME": "name", "SHELL": "shell"}


def target_environ(
    environ: Mapping[str, str], account: Account | None, preload: str, variable: str
) -> dict[str, str]:
    """Return the target's environment: the shim first in LD_PRELOAD, the channel, the account."""
    made = dict(environ)
    if account is not None:
        for name, field in ACCOUNT_VARIABLES.items():
            made[name] = getattr(account, field)
    if preload:
        users_own = made.get("LD_PRELOAD", "")
        made["LD_PRELOAD"] = f"{preload}:{users_own}" if users_own else preload
        made[CHANNEL_VARIABLE] = variable
    return made


class Child:
    """The child's side of a launch; :meth:`become_target` returns only on failure."""

    def __init__(
        self,
        options: Options,
        actions: tuple[Step, ...],
        theirs: _socket.socket,
        inherited: inherit.Inherited,
        launcher_pid: int,
        nofile: int,
    ) -> None:
        self.options = options
        self.actions = actions
        self.channel = theirs
        self.inherited = inherited
        self.launcher_pid = launcher_pid
        self.nofile = nofile
        self.account: Account | None = None
        self.failed = (0, 0)
        self.preloads = True
        self.heap: ReserveHeap | None = None

    def become_target(self) -> None:
        """Do all that precedes exec, then exec; on failure tell the launcher which step it was."""
        self.bind_to_launcher()
        names = [type(action).__name__ for action in self.actions]
        index = names.index("Execute")  # what the descriptor is for
        try:
            fd = channel.move_high(self.channel.fileno(), self.nofile)
            for index, action in enumerate(self.actions):  # noqa: B007  (who failed reads it)
                self.perform(action, fd)
        except OSError as error:
            self.say_failed(index, error.errno or 0)
        except (ImportError, MemoryError):  # by a limit that is set already
            self.say_failed(index, ENOMEM)

    def perform(self, action: Step, fd: int) -> None:
        """Perform one action, if it is one that stands before exec."""
        kind = type(action).__name__  # not the type: those of rare options are not imported
        if kind in self.OWN:
            self.OWN[kind](self, action, fd)
        elif kind in PERFORM:
            PERFORM[kind](action)

    def become_user(self, action: BecomeUser, fd: int) -> None:
        """Change the user, and die with the launcher still: the change cleared that."""
        become_user(action)
        self.account = action.account
        self.bind_to_launcher()

    def reserve_heap(self, action: ReserveHeap, fd: int) -> None:
        """Keep it for the environment."""
        self.heap = action

    def await_tracer(self, action: Step, fd: int) -> None:
        """Wait until the launcher traces us, or says that it cannot and we may run unlocked."""
        answer, handed = channel.take(self.channel)
        word = unpack(answer).kind if answer else REFUSE  # it is dead
        if word == REFUSE:
            os._exit(EXIT_REFUSED)
        self.preloads = word != SKIP
        for each in handed:
            channel.move_high(each, self.nofile)
            os.close(each)

    def bind_to_launcher(self) -> None:
        """Die with the launcher, and at once if it is dead already."""
        prctl.set_pdeathsig(_signal.SIGKILL)
        if os.getppid() != self.launcher_pid:
            os._exit(EXIT_REFUSED)

    def execute(self, action: Execute, fd: int) -> None:
        """Exec the target, its end of the channel at ``fd``."""
        inherit.give_back(self.inherited)
        identity = os.fstat(fd)
        meant = os.getpid() if self.options.children == "none" else 0
        variable = channel_variable(fd, identity.st_dev, identity.st_ino, meant)
        preload = action.preload if self.preloads else ""
        if not preload:  # no shim will ever do these two
            os.close(fd)
            prctl.set_pdeathsig(self.options.pdeathsig)
        environ = target_environ(self.inherited.environ, self.account, preload, variable)
        if self.heap is not None:
            from rtlaunch.core import heap

            environ = heap.environment(self.heap, preload, environ, os.getpid())
        os.execve(action.path, action.argv, environ)

    OWN: dict[str, Callable[[Child, Any, int], None]] = {  # noqa: RUF012  (nobody writes to it)
        "BecomeUser": become_user,
        "Execute": execute,
        "ReserveHeap": reserve_heap,
        "Trace": await_tracer,
    }

    def say_failed(self, index: int, errno: int) -> None:
        """Tell the launcher which action failed, with what errno."""
        self.failed = (index, errno)
        channel.tell(self.channel, Message(FAILED, flags=index, error=errno))
