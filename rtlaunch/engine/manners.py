"""A supervisor that rewrites signals, or signals a group of the target's own.

Imported only for ``--rewrite`` and ``--signal-to group``. With a terminal the target leads a group
in our session and has the foreground as long as we may have it; without one it leads a session.
It must not signal our own group but to suspend it, as the terminal would.
"""

from __future__ import annotations

import _signal
import os

from rtlaunch.core.forwarding import OWN_LIMITS, SI_KERNEL, SIGCHLD
from rtlaunch.core.record import replace
from rtlaunch.engine.supervise import TERMINAL_STOPS, Supervisor
from rtlaunch.linux import libc, proc, terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rtlaunch.core.forwarding import Signal


class Mannered(Supervisor):
    """The loop of a launch with ``--rewrite`` or ``--signal-to group``."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        options = self.handshake.options
        self.rewriting = dict(options.rewrite)
        self.grouped = options.signal_to == "group"
        self.shares_terminal = self.grouped and self.handshake.facts.has_terminal

    def is_meant(self, signal: Signal) -> bool:
        """Tell whether the target is to get ``signal``: a terminal reaches no other group."""
        if self.grouped and signal.code == SI_KERNEL:
            return signal.number not in OWN_LIMITS and signal.number != SIGCHLD
        return super().is_meant(signal)

    def pass_on(self, signal: Signal) -> None:
        """Send what is to be sent for ``signal``, to whom it is to be sent."""
        number = self.rewriting.get(signal.number, signal.number)
        if number == 0:
            return
        if not self.grouped:
            super().pass_on(replace(signal, number=number))
        elif self.suspends(signal.number):
            self.suspend()
        elif signal.code == libc.SI_QUEUE:
            self.queue_to_group(number, signal.value)
        else:
            self.to_group(number)

    # ---- the group

    def to_group(self, number: int) -> None:
        """Send a signal to the group, or to who will lead it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)

    def queue_to_group(self, number: int, value: int) -> None:
        """Send a signal with its value to all of the group (Linux 6.9), or to one by one."""
        info = libc.queued_siginfo(number, value)
        pidfd = os.pidfd_open(self.pid)
        try:
            libc.pidfd_send_signal(pidfd, number, info, libc.PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError:
            for pid in members(self.pid) or [self.pid]:
                libc.rt_sigqueueinfo(pid, number, info)
        finally:
            os.close(pidfd)

    # ---- suspended with it

    def suspends(self, number: int) -> bool:
        """Tell whether the group is to be stopped by us for a terminal's stop signal.

        A session of its own is an orphaned group, whose members no such signal stops (setpgid(2)).
        """
        asked_otherwise = number in self.rewriting
        return number in TERMINAL_STOPS and not self.shares_terminal and not asked_otherwise

    def suspend(self) -> None:
        """Stop the group and ourselves; SIGCONT continues us, and is passed on."""
        self.to_group(_signal.SIGSTOP)
        if self.own_pid != 1:
            os.kill(self.own_pid, _signal.SIGSTOP)

    def stop_with_target(self, number: int) -> None:
        """Stop with a target that the terminal stopped, and all of our group, as the kernel would.

        Where nobody could continue us the kernel lets no terminal stop anybody: so we go on.
        """
        if not self.grouped:
            super().stop_with_target(number)
            return
        if number not in TERMINAL_STOPS or not self.shares_terminal:
            return
        if self.own_pid != 1 and not self.leads_session:
            if self.is_continued():
                return
            self.take_terminal_back()
            os.killpg(0, number)
            os.kill(self.own_pid, _signal.SIGSTOP)
            _signal.sigtimedwait([number], 0)  # our own share, which is blocked
            self.drop_pending_continue()
        self.lend_terminal()
        self.continue_group()

    def continue_group(self) -> None:
        """Continue the group, unless it is gone."""
        try:
            self.to_group(_signal.SIGCONT)
        except ProcessLookupError:
            return

    # ---- the terminal

    def lend_terminal(self) -> None:
        """Put the group into the foreground, if we are there."""
        pass_terminal(os.getpgrp(), self.pid)

    def take_terminal_back(self) -> None:
        """Put our own group into the foreground, if the target's is there."""
        pass_terminal(self.pid, os.getpgrp())

    def target_ended(self, found: os.waitid_result) -> None:
        """Take the terminal back while the group's number is still its own."""
        if self.shares_terminal:
            self.take_terminal_back()
        super().target_ended(found)


def pass_terminal(giver: int, taker: int) -> None:
    """Pass the foreground on, unless there is no terminal any more."""
    try:
        terminal.pass_on(giver, taker)
    except OSError:
        return


def members(group: int) -> list[int]:
    """Return who is in a process group."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = proc.read_text(int(name), "stat").rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        if int(fields[2]) == group:
            found.append(int(name))
    return found
