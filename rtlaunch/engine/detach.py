"""Exec mode: this process becomes the target, and a side process supervises it.

The side process is forked twice, so that it is no child of the target; it holds none of the
target's descriptors, so that pipes end when the target does; it hears no signal but SIGKILL, since
a service manager sends its whole group SIGTERM to end the main process. What it cannot do, being
no parent: forward signals, see the target stop, keep its exit status from anybody.
"""

from __future__ import annotations

import _signal
import os
import stat
import time
from errno import EAGAIN

from rtlaunch.core import protocol
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.options import DEFAULT
from rtlaunch.core.outcome import RUNNING
from rtlaunch.core.record import replace
from rtlaunch.engine import channel, inherit, spawn
from rtlaunch.engine.handshake import Conversation
from rtlaunch.engine.launch import failed_action, fork_failed
from rtlaunch.engine.supervise import Supervisor
from rtlaunch.linux import pidfd, prctl, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Collection, Iterable
    from typing import NoReturn

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options
    from rtlaunch.core.steps import Step
    from rtlaunch.engine.inherit import Inherited
    from rtlaunch.engine.inject import Injection
    from rtlaunch.engine.listener import Listener

NAME = "rtlaunch-watch"  # what the kernel calls the side process (15 bytes at most)
STDERR = 2

# How long the end of a target that nobody has reaped yet may keep its status from us.
STATUS_PATIENCE_S = 0.08
STATUS_POLL_S = 0.005


def keep_pdeathsig(options: Options) -> Options:
    """Return the options with the parent death signal that we were given, unless one was asked for.

    Our parent is the target's: its death is not ours to answer.
    """
    if options.origin["pdeathsig"] != DEFAULT:
        return options
    return replace(options, pdeathsig=prctl.get_pdeathsig())


def become_target(
    options: Options,
    facts: Facts,
    actions: tuple[Step, ...],
    inherited: Inherited,
    theirs: _socket.socket,
    listener: Listener,
) -> NoReturn:
    """Become the target once the side process says so; Refusal where an action failed."""
    listener.leave_report()
    inherit.reap_helper()
    word = theirs.recv(protocol.MESSAGE_BYTES)
    if not word:
        raise Refusal(nobody_watches())
    prctl.let_trace(protocol.unpack(word).error)
    nofile = facts.limits["nofile"].soft
    child = spawn.Child(options, actions, theirs, inherited, os.getppid(), nofile)
    child.become_target()
    raise Refusal(failed_action(actions, facts, *child.failed))


def fork_aside() -> bool:
    """Fork a process that is no child of ours; True in it, False here. Refusal where fork fails."""
    try:
        middle = os.fork()
    except OSError as error:
        raise Refusal(fork_failed(error)) from error
    if middle == 0:
        return fork_and_end()
    _, status = os.waitpid(middle, 0)
    errno = os.waitstatus_to_exitcode(status)
    if errno > 0:
        raise Refusal(fork_failed(OSError(errno, os.strerror(errno))))
    return False


def fork_and_end() -> bool:
    """Return True in a child of ours, and end, with the errno of a fork that failed."""
    try:
        child = os.fork()
    except OSError as error:
        os._exit(error.errno or EAGAIN)
    if child:
        os._exit(0)
    return True


def nobody_watches() -> Finding:
    """Return the finding for a side process that died before it could watch."""
    return Finding(
        "launch-failed",
        "the side process that was to watch the program died",
        why="without it there is neither proof nor watch",
    )


# ---- the side process


def step_out(keep: Iterable[int]) -> None:
    """Leave the target's session and let go of its descriptors but stderr and ``keep``."""
    os.setsid()
    set_name(NAME)
    nothing = inherit.open_nothing()
    for fd in (0, 1):
        os.dup2(nothing, fd)
    let_go({0, 1, STDERR, *keep})


def set_name(name: str) -> None:
    """Have the kernel call this process ``name``."""
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(name)


def let_go(keep: Collection[int]) -> None:
    """Close all descriptors but those to ``keep``."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in keep:
            close(fd)


def close(fd: int) -> None:
    """Close a descriptor that may be closed already."""
    try:
        os.close(fd)
    except OSError:
        return


def drop_stderr() -> None:
    """Let go of a stderr that somebody may read to its end: a pipe or a socket."""
    if os.isatty(STDERR) or os.path.isfile(f"/proc/self/fd/{STDERR}"):
        return
    nothing = inherit.open_nothing()
    os.dup2(nothing, STDERR)
    os.close(nothing)


def borrow_stderr(pid: int) -> None:
    """Take up again the stderr of a target that stands, to say there why it has to end.

    Of what was let go of, a pipe can be opened anew; a file or a terminal was not.
    """
    path = f"/proc/{pid}/fd/{STDERR}"
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            return
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # ENXIO: nobody reads
    except OSError:
        return
    os.set_blocking(fd, True)
    os.dup2(fd, STDERR)
    os.close(fd)


class SideProcess(Supervisor):
    """The loop of a launch whose target is not our child."""

    def run(self, pid: int) -> None:
        """Watch ``pid`` to its end; it waits for our word before it does anything."""
        self.pid = self.handshake.target_pid = pid
        self.outcome.target.pid = pid
        self.fd = os.pidfd_open(pid)
        self.listen(self.fd, self.on_end)
        self.nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.listen(self.nudge, self.on_nudge)
        self.sentry.kill = self.kill_by_descriptor
        self.sentry.noticed = lambda: os.eventfd_write(self.nudge, 1)
        channel.tell(self.channel, protocol.Message(protocol.GO, error=os.getpid()))
        if self.traced:
            from rtlaunch.engine import tracing

            tracing.begin(self)
        from rtlaunch.engine.drafts import Drafts

        self.drafts = Drafts(self.handshake.listener)
        try:
            self.loop()
        finally:
            self.drafts.end()

    def settle_in(self) -> None:
        """Let go, once the target runs, of what it shares with us."""
        if self.settled_in or not self.handshake.went:
            return
        drop_stderr()
        self.outcome.state = RUNNING
        self.draft()  # while no other thread is there
        super().settle_in()

    # ---- the report while it runs

    def on_nudge(self) -> None:
        """Hear of faults: the report is to be written anew."""
        os.eventfd_read(self.nudge)
        self.drafts.want()

    def patience_ms(self) -> float | None:
        """Return how long until something is due, the next draft of the report included."""
        due = (super().patience_ms(), self.drafts.patience_ms())
        return min((each for each in due if each is not None), default=None)

    def on_silence(self) -> None:
        """Do what is due."""
        if self.drafts.patience_ms() == 0:
            self.draft()
        super().on_silence()

    def draft(self) -> None:
        """Have the report written as far as it is known: nobody may be left to do it at the end."""
        self.drafts.due_ns = 0
        if not self.sentry.hold():
            return  # we are nudged when the watcher sleeps
        try:
            self.sentry.glance()
            self.drafts.begin(self.findings())
        except ProcessLookupError:
            return  # the end is being told
        finally:
            self.sentry.let_go()

    # ---- the end

    def on_signals(self) -> None:
        """Take signals and do nothing: they are meant for the target, which gets its own.

        But SIGCHLD, which tells of a draft that is written, and of a stop while we trace it.
        """
        try:
            os.read(self.signals, 1 << 12)
        except BlockingIOError:
            return  # the watcher's bell took it, and hands it over
        self.drafts.on_child()
        if self.injection is not None:
            self.on_tracee(self.injection)

    def on_tracee(self, injection: Injection) -> None:
        """Deal with the stops of a target while it is traced; its end comes by the pidfd."""
        while not injection.is_over:
            try:
                found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
            except ChildProcessError:
                return
            if found is None:
                return
            self.target_stopped(found.si_status)

    def on_child(self) -> None:
        """Have no children to ask for here."""

    def kill_by_descriptor(self, _: int, number: int) -> None:
        """Send the target a signal, and nobody who has its number since: its parent may reap it."""
        _signal.pidfd_send_signal(self.fd, number)

    def refuse(self, finding: Finding) -> None:
        """End the target with 125, as who started it is to see; one that cannot be, by SIGKILL."""
        self.refusal = self.refusal or finding
        if self.settled_in:
            borrow_stderr(self.pid)
        if not self.leaves():
            self.kill(_signal.SIGKILL)

    def leaves(self) -> bool:
        """Have the target exit with 125: where it is held, by its shim, or before its exec."""
        speaker, word = self.current, protocol.Message(protocol.REFUSE)
        if self.injection is not None and self.injection.leave(protocol.EXIT_REFUSED):
            return True
        if isinstance(speaker, Conversation):
            return channel.tell(speaker.sock, word)
        return self.traced and self.injection is None and channel.tell(self.channel, word)

    def on_arrival(self, arrival: channel.Arrival) -> None:
        """Answer one message; a child that could not exec says itself why."""
        super().on_arrival(arrival)
        if self.failure:
            self.handshake.listener.leave_words()

    def on_end(self) -> None:
        """Take the last counts, if the parent has not reaped it yet, and its status."""
        self.on_channel()
        self.sentry.ended()
        self.outcome.time.ended_ns = time.monotonic_ns()
        self.ended = True
        status = exit_status(self.fd, self.pid)
        self.let_parent_reap()
        from rtlaunch.engine import ending

        ending.settle_status(self, status)

    def let_parent_reap(self) -> None:
        """Take the end of a target that we trace to its exec: its parent hears of it only then."""
        if self.injection is None or self.injection.is_over:
            return
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return


def exit_status(fd: int, pid: int) -> int | None:
    """Return the wait status of a process that has ended; None if it cannot be learnt."""
    deadline = time.monotonic() + STATUS_PATIENCE_S
    while True:
        found = pidfd.exit_status(fd)
        if found is None:
            found = proc.zombie_status(pid)
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(STATUS_POLL_S)
