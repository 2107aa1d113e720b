"""Drafts of the report while the target runs: a process writes one, and ends with it.

What writing takes (json, the documents, what looks at images) would else stay beside the target for
as long as that runs, and a disk that hangs would hold up the watch. Nobody waits for who writes: it
is heard of by SIGCHLD. There is one at a time, and none is left when the report of the end is
written, which a late draft would replace.

It must not be begun while another thread of ours is at work: the child would find that one's
imports half done, and locked for ever.
"""

from __future__ import annotations

import _signal
import os
import sys
import time

from rtlaunch.engine.detach import STDERR, let_go, set_name
from rtlaunch.linux import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rtlaunch.core.findings import Finding
    from rtlaunch.engine.listener import Listener

NAME = "rtlaunch-draft"  # what the kernel calls who writes one (15 bytes at most)
FAILED = 1
INTERVAL_NS = 1_000_000_000  # from the beginning of a draft to that of the next


class Drafts:
    """Those of one target: when the next is due, and who writes one now."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.pid = 0  # of who writes, 0 for nobody
        self.due_ns = 0
        self.begun_ns = 0
        self.failed = False  # which was said

    def want(self) -> None:
        """Have a draft written soon: not twice within the interval, nor two at a time."""
        self.due_ns = max(time.monotonic_ns(), self.begun_ns + INTERVAL_NS)

    def patience_ms(self) -> float | None:
        """Return how long until one is to be begun; None where nothing but a signal begins one."""
        if not self.due_ns or self.pid:
            return None
        return max(0.0, (self.due_ns - time.monotonic_ns()) / 1e6)

    def begin(self, findings: tuple[Finding, ...]) -> None:
        """Have what is known by now written down, here only where no process can be had."""
        self.due_ns, self.begun_ns = 0, time.monotonic_ns()
        if not self.listener.takes_drafts():
            return
        parent = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:  # nobody may be left to write at the end
            self.write(findings)
            return
        if self.pid == 0:
            self.become_writer(parent, findings)

    def become_writer(self, parent: int, findings: tuple[Finding, ...]) -> NoReturn:
        """Write a draft and end; nothing of the process that we come from is touched, nor held."""
        try:
            prctl.set_pdeathsig(_signal.SIGKILL)  # nobody would keep us from a later report
            set_name(NAME)
            let_go({0, 1, STDERR, *self.listener.descriptors()})
            if os.getppid() == parent:
                self.write(findings)
        finally:
            if sys.exc_info()[0]:  # a bug of ours, of which nobody else would hear
                sys.excepthook(*sys.exc_info())
                self.failed = True
            os._exit(FAILED if self.failed else 0)

    def write(self, findings: tuple[Finding, ...]) -> None:
        """Write a draft; what is in its way is said once, however many fail."""
        self.failed = not self.listener.draft(findings, said=self.failed) or self.failed

    def on_child(self) -> None:
        """Reap who wrote, if it has ended."""
        found = self.pid and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
        if found:
            self.pid = 0
            self.failed = self.failed or found.si_status == FAILED

    def end(self) -> None:
        """End who writes, and wait until it is gone: what it had to say is told better now.

        A process that waits for its disk ends when that lets it; so would we, who write there next.
        """
        self.due_ns = 0
        if self.pid:
            os.kill(self.pid, _signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
