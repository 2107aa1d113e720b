"""The parent of the target from fork to its end: messages, signals, reaping.

One poll loop in the main thread, woken by the channel, by signals and by
nothing else: no timer while the target runs. Before the target was told to go
there is one, for the program whose loader ignored the shim without a word.

It must not touch the target's streams or terminal, and never waits for
anybody but the target: a program that forks and leaves ends the run.
"""

from __future__ import annotations

import _signal
import gc
import os
import select
import time

from rtlaunch.core import protocol
from rtlaunch.core.numbers import SIGNAL_EXIT_BASE
from rtlaunch.core.target import leads_on
from rtlaunch.engine import channel
from rtlaunch.engine.handshake import Conversation, Handshake, Refused
from rtlaunch.engine.sentry import permitted
from rtlaunch.linux import files, libc, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from rtlaunch.core.findings import Finding
    from rtlaunch.core.forwarding import Signal
    from rtlaunch.core.outcome import Outcome
    from rtlaunch.engine.inject import Injection
    from rtlaunch.engine.sentry import Sentry

EXEC = b"\0exec"  # how the names of execve(2) and its like begin, where a program imports them
ALL_SIGNALS = 2**64 - 1  # the kernel leaves SIGKILL and SIGSTOP out itself (signalfd(2))
TERMINAL_STOPS = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)

# How long a program may be silent after exec before its mappings are looked at, s. A loader on a
# slow disk takes long; one that has mapped no shim by then never will.
SILENCE_S = 5.0


class Supervisor:
    """The loop of one launch, and what it has learnt of the target so far."""

    def __init__(
        self,
        outcome: Outcome,
        handshake: Handshake,
        sentry: Sentry,
        ours: _socket.socket,
        shim_path: str,
        traced: bool = False,
    ) -> None:
        self.outcome = outcome
        self.handshake = handshake
        self.sentry = sentry
        self.channel = ours
        self.channel_end = (0, 0)  # st_dev and st_ino of the target's
        self.signals = libc.signalfd4(-1, ALL_SIGNALS)
        self.shim_path = shim_path
        self.traced = traced
        self.injection: Injection | None = None
        handshake.follow = self.follow
        self.why_unlocked = "not preloaded, as allowed"
        self.pid = 0
        self.ended = False
        self.settled_in = False
        self.continues = False  # whether a SIGCONT was taken that is still to be passed on
        self.refusal: Finding | None = None
        self.failure: tuple[int, int] | None = None
        self.own_pid = os.getpid()
        self.leads_session = os.getsid(0) == self.own_pid
        self.conversations: dict[int, Conversation | Injection] = {}
        self.current: Conversation | Injection | None = None  # of the target's last image
        self.handlers: dict[int, Callable[[], None]] = {}
        self.poll = select.poll()
        self.listen(ours.fileno(), self.on_channel)
        self.listen(self.signals, self.on_signals)

    # ---- the loop

    def listen(self, fd: int, handler: Callable[[], None]) -> None:
        """Call ``handler`` whenever ``fd`` has something to read, or its other side is gone."""
        self.handlers[fd] = handler
        self.poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Stop listening on ``fd``."""
        if self.handlers.pop(fd, None):
            self.poll.unregister(fd)

    def run(self, pid: int) -> None:
        """Supervise ``pid`` to its end; the outcome holds what became of it."""
        self.pid = self.handshake.target_pid = pid
        self.outcome.target.pid = pid
        if self.traced:
            from rtlaunch.engine import tracing

            tracing.begin(self)
        self.on_child()
        self.loop()

    def loop(self) -> None:
        """Serve what comes until the target has ended."""
        while not self.ended:
            ready = self.poll.poll(self.patience_ms())
            if not ready:
                self.on_silence()
            for fd, _ in ready:
                handler = self.handlers.get(fd)
                if handler and not self.ended:
                    handler()

    def settle_in(self) -> None:
        """Do, once, what could wait until the target runs; no signal must wait for an import."""
        if self.settled_in or not self.handshake.went:
            return
        self.settled_in = True
        self.sentry.start()
        self.handshake.listener.proven()
        from rtlaunch.core import forwarding  # noqa: F401  (for on_signals)
        from rtlaunch.engine import ending  # noqa: F401  (the exit status must not need a file)

        gc.freeze()  # what is here stays
        gc.enable()

    def patience_ms(self) -> float | None:
        """Return how long to wait: for ever, but for a silent target or a timed arming."""
        if self.awaiting:
            return SILENCE_S * 1000
        return self.sentry.patience_ms()

    @property
    def awaiting(self) -> bool:
        """Whether the target's first image has not announced itself yet."""
        return not (self.outcome.time.entered_ns or self.refusal or self.handshake.went)

    def on_silence(self) -> None:
        """Do what was waited for; else look whether a silent target ever mapped the shim."""
        if not self.awaiting:
            self.sentry.on_time()
        elif not self.injection:  # whose exec takes long
            from rtlaunch.engine import unproven

            unproven.look_at_silent(self)

    def follow(self, speaker: Conversation | Injection) -> None:
        """Trace an image to its exec of another, if it is there to become one."""
        path = self.handshake.images[-1].path or ""
        if leads_on(path) or EXEC in files.read_small(f"/proc/{speaker.pid}/exe"):
            from rtlaunch.engine import chain

            chain.follow(self, speaker)

    # ---- the shim

    def on_channel(self) -> None:
        """Take the messages that wait on the channel."""
        try:
            while (arrival := channel.receive(self.channel)) is not None:
                self.on_arrival(arrival)
        except EOFError:
            self.forget(self.channel.fileno())
            self.on_channel_closed()
        except ValueError:
            return  # a datagram of somebody who plays with the descriptor

    def on_channel_closed(self) -> None:
        """Note that nobody holds the target's end any more.

        Where no shim was preloaded, by leave of the user, this is the exec:
        the program runs, unlocked, and what is left to do is to watch it.
        """
        unlocked = not self.shim_path and not self.injection and not self.refusal
        if unlocked and not self.handshake.went and not self.failure:
            from rtlaunch.engine import unproven

            unproven.went_unlocked(self.handshake, self.pid, self.why_unlocked)
            self.settle_in()

    def on_arrival(self, arrival: channel.Arrival) -> None:
        """Answer one message on the shared channel."""
        kind, pid = arrival.message.kind, arrival.sender.pid
        if kind != protocol.ENTERED and arrival.fd >= 0:
            os.close(arrival.fd)
        if kind == protocol.FAILED and pid == self.pid and not self.handshake.went:
            self.failure = (arrival.message.flags, arrival.message.error)
        elif kind == protocol.ENTERED and arrival.fd >= 0:
            self.sentry.image_entered(pid == self.pid, arrival.message.time_ns)
            conversation = self.handshake.begin(arrival)
            if conversation:
                self.current = conversation if conversation.is_target else self.current
                self.order(conversation)
                fd = conversation.sock.fileno()
                self.conversations[fd] = conversation
                self.listen(fd, lambda: self.on_conversation(fd))
            self.sentry.prepare()
        elif kind == protocol.RECORD:
            # an image that had no descriptor left for a socket of its own
            speaker = Conversation(self.channel, pid, pid == self.pid, arrival.message.time_ns)
            speaker.is_shared = True
            self.current = speaker if speaker.is_target else self.current
            self.conclude(speaker, arrival.message)

    def order(self, conversation: Conversation) -> None:
        """Have an image lock, or refuse it before."""
        try:
            self.handshake.open(conversation)
        except Refused as refused:
            self.refuse(refused.finding)

    def on_conversation(self, fd: int) -> None:
        """Take the record of an image.

        The end of file is its end, which SIGCHLD tells of, or, where the image
        kept the pair, its exec of another.
        """
        conversation = self.conversations[fd]
        sock = conversation.sock
        assert sock is not None  # an injection without one is not listened to
        try:
            arrival = channel.receive(sock)
            if arrival is None:
                return
            self.conclude(conversation, arrival.message)
            if conversation.kept or conversation.notifying:
                return
        except ValueError:
            pass
        except EOFError:
            if conversation.kept and conversation is self.current:  # none has announced itself
                self.sentry.executed(time.monotonic_ns())
        self.forget(fd)
        del self.conversations[fd]
        sock.close()

    def conclude(self, conversation: Conversation | Injection, record: protocol.Message) -> None:
        """Let an image go on, or refuse it."""
        try:
            self.handshake.conclude(conversation, record)
            self.settle_in()
        except Refused as refused:
            self.refuse(refused.finding)
        except (FileNotFoundError, ProcessLookupError):
            return  # it died while its books were read; SIGCHLD tells of it

    def refuse(self, finding: Finding) -> None:
        """End the target, which stands before main(): SIGKILL, as it may be stopped."""
        self.refusal = self.refusal or finding
        self.kill(_signal.SIGKILL)

    # ---- signals

    def on_signals(self) -> None:
        """Take what waits on the signalfd: children first, as they may end the run."""
        from rtlaunch.core import forwarding

        try:
            told = os.read(self.signals, 16 * forwarding.SIGINFO_BYTES)
        except BlockingIOError:
            return  # the watcher's bell took it, and hands it over
        signals = forwarding.parse_signals(told)
        self.continues = any(signal.number == _signal.SIGCONT for signal in signals)
        for signal in signals:
            if signal.number == forwarding.SIGCHLD:
                self.on_child()
            elif self.sentry.wants_signal(signal.number):
                self.sentry.arm_now()
            elif self.is_meant(signal):
                self.forward(signal)

    def is_meant(self, signal: Signal) -> bool:
        """Tell whether the target is to get ``signal``, and has not got it already."""
        from rtlaunch.core import forwarding

        if not forwarding.is_for_target(signal, self.own_pid, self.leads_session):
            return False
        environ = self.handshake.facts.environ
        if not signal.sender_pid or not any(map(environ.get, forwarding.RANK_VARIABLES)):
            return True
        from rtlaunch.engine import jobs

        return not jobs.has_it_already(self.pid, signal.sender_pid, environ)

    def forward(self, signal: Signal) -> None:
        """Send the target what was sent to us, a queued value included (sigqueue(3))."""
        if self.ended:
            return
        try:
            permitted(self.pid, lambda: self.pass_on(signal))
        except ProcessLookupError:
            return
        except PermissionError as error:
            from rtlaunch.core.units import signal_name

            self.sentry.listener.step(
                f"cannot pass SIG{signal_name(signal.number)} on to {self.pid}: {error.strerror}"
            )

    def pass_on(self, signal: Signal) -> None:
        """Send ``signal`` as it came; ProcessLookupError, PermissionError."""
        if signal.code == libc.SI_QUEUE:
            info = libc.queued_siginfo(signal.number, signal.value)
            libc.rt_sigqueueinfo(self.pid, signal.number, info)
        else:
            os.kill(self.pid, signal.number)

    def kill(self, number: int) -> None:
        """Send the target a signal of our own.

        Where it is another user's, and we have no CAP_KILL, its tracer may still end it.
        """
        try:
            permitted(self.pid, lambda: self.sentry.kill(self.pid, number))
        except ProcessLookupError:
            return
        except PermissionError as error:
            if number == _signal.SIGKILL and self.injection and not self.injection.is_over:
                self.injection.end()
            else:
                self.sentry.listener.step(f"cannot signal {self.pid}: {error.strerror}")

    # ---- children

    def on_child(self) -> None:
        """Reap everybody: the target ends the run, orphans are only let go."""
        while not self.ended:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if found.si_pid == self.pid and found.si_code not in (os.CLD_STOPPED, os.CLD_TRAPPED):
                self.target_ended(found)
                return
            consume(found.si_pid)
            if found.si_pid == self.pid:
                trapped = found.si_code == os.CLD_TRAPPED
                status = found.si_status
                self.target_stopped(self.sentry.trapped(status) if trapped else status)

    def target_stopped(self, number: int) -> None:
        """Go on with an injection; else see to it that the shell sees its job stop."""
        injection = self.injection
        if injection is None or injection.is_over:
            self.stop_with_target(number)
            return
        try:
            if injection.on_stop(number):
                from rtlaunch.engine import tracing

                tracing.on_exec(self, injection)
            elif number >> 8:
                self.stop_with_target(number & 0xFF)
        except ProcessLookupError:
            return  # killed meanwhile; SIGCHLD tells of it

    def stop_with_target(self, number: int) -> None:
        """Stop with the target where the terminal stopped it, so that the shell sees its job stop.

        Who continues the group continues us; the target is continued again
        only if it is not yet.
        """
        if number not in TERMINAL_STOPS or os.getpid() == 1 or not proc.has_controlling_terminal():
            return
        if self.is_continued():
            return
        os.kill(self.own_pid, _signal.SIGSTOP)
        if self.stands():
            self.kill(_signal.SIGCONT)
        self.drop_pending_continue()

    def is_continued(self) -> bool:
        """Tell whether we are to go on already: a stop would throw that away (kernel/signal.c)."""
        return self.continues or _signal.SIGCONT in _signal.sigpending()

    def stands(self) -> bool:
        """Tell whether the target is stopped yet; a traced one that was continued waits for us."""
        state = self.sentry.state()
        if state != "t":
            return state in "T?"  # before go its books are not open yet
        return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None

    def drop_pending_continue(self) -> None:
        """Throw away the SIGCONT that woke us: it went to the whole group."""
        _signal.sigtimedwait([_signal.SIGCONT], 0)

    def target_ended(self, found: os.waitid_result) -> None:
        """Take the last counts of the zombie, reap it, and say who ended it."""
        self.on_channel()
        self.sentry.ended()
        from rtlaunch.engine import ending

        ending.reap(self.pid, self.outcome.rusage)
        self.outcome.time.ended_ns = time.monotonic_ns()
        self.ended = True
        ending.settle(self, found)

    def exit_status(self) -> int:
        """Return the target's own code, or 128 + N if signal N ended it."""
        end = self.outcome.exit
        return SIGNAL_EXIT_BASE + end.signal if end.signal is not None else end.code or 0

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found from fork to end and did not refuse."""
        return (*self.handshake.accepted, *self.sentry.findings)


def consume(pid: int) -> None:
    """Take a child's state change off the kernel's list: reap an orphan, note a stop."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOHANG)
