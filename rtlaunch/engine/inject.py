"""Locking from outside: the target stopped by ptrace at its exec, and made to lock itself.

For programs that no loader runs for, or that drop what a loader is told. The states, in order:

    seized    traced, running towards its exec (our own child code)
    at exec   stopped in the new image, before its first instruction
    locked    its stack touched, mlockall done; the launcher reads its books
    gone      as it was at exec, and traced by nobody
    followed  as it was at exec, and traced still, until it is at the exec of another

What is changed of it, registers and signal mask, is put back before it goes; if we die until
then, the kernel kills it (PTRACE_O_EXITKILL). Signals that arrive meanwhile wait in the kernel,
their siginfo whole. It leaves nothing in the target, but for a descriptor that an exec closes
where nothing else would tell of one, and decides nothing: who is injected into is the plan's
business, and who is followed :mod:`rtlaunch.engine.chain`'s.
Why it goes about it in this way is told in docs/decisions/0041 and 0043.
"""

from __future__ import annotations

import _signal
import os
import time
from errno import EINVAL

from rtlaunch.core import protocol, tracee
from rtlaunch.core.proc import parse_status
from rtlaunch.core.protocol import Message
from rtlaunch.core.tracee import errno_of
from rtlaunch.linux import proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import NoReturn

    from rtlaunch.core.tracee import Registers

SEIZED, AT_EXEC, LOCKED, GONE = "seized", "at exec", "locked", "gone"
FOLLOWED = "followed"

STOPPING = (_signal.SIGSTOP, _signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
ALL_BLOCKED = b"\xff" * ptrace.SIGNAL_SET_BYTES

FOLLOWING = ptrace.O_TRACEEXEC | ptrace.O_TRACESYSGOOD
UNPROVEN = FOLLOWING | ptrace.O_EXITKILL  # nobody is left to run unlocked

MCL_ALL, MCL_ONFAULT = 7, 4
MADV_POPULATE_WRITE = 23  # Linux 5.14
CLOCK_MONOTONIC = 1
PR_SET_PDEATHSIG = 1
F_SETFD, FD_CLOEXEC = 2, 1
BELOW_STACK = 256  # a red zone has 128 bytes


class NoCall(OSError):
    """The target cannot be made to enter the kernel; says why."""


class Injection:
    """One image of the target, on its way from exec to its first instruction.

    It speaks with the handshake as a shim's conversation does: ``lock`` answers an order with a
    record, and ``say`` takes the verdict. OSError from the kernel's refusals, ProcessLookupError
    where the target died.
    """

    is_target = True
    way = "ptrace"
    kept = False
    notifying = False
    stack_at_exec: int | None = None  # --thread-stack is the shim's alone
    stack_restored = 0

    def __init__(
        self,
        pid: int,
        sock: _socket.socket | None = None,
        witness: tuple[int, int] | None = None,
    ) -> None:
        """Trace ``pid``; ``sock`` is our end of what tells of its exec, ``witness`` names its.

        Without them it is an image that was proven, and is followed to its exec.
        """
        self.pid = pid
        self.sock = sock
        self._witness = witness
        self._descriptor = -1
        self.ready: tuple[int, int] | None = None  # of the socket on which it says READY=1
        self.state = SEIZED if sock else FOLLOWED
        self.stays = False  # whether it is followed once it goes
        self.entered_ns = 0
        self.deathsig: int | None = None
        self._before: Registers | None = None
        self._mask: bytes | None = None
        self._was_stopped = False
        self._entry = 0
        self._page = os.sysconf("SC_PAGE_SIZE")
        ptrace.seize(pid, UNPROVEN if sock else FOLLOWING)

    @property
    def is_over(self) -> bool:
        """Whether the target runs on untraced."""
        return self.state == GONE

    @property
    def can_keep(self) -> bool:
        """Whether it has a descriptor that an exec of its would close."""
        return self._descriptor >= 0

    # ---- seized, followed

    def on_stop(self, stop: int) -> bool:
        """Let it run on from a stop (si_status of waitid(2)); True when it is that of the exec."""
        event, signal = stop >> 8, stop & 0xFF
        if event == ptrace.EVENT_EXEC:
            self._arrive()
            return True
        if event == ptrace.EVENT_STOP and signal in STOPPING:
            ptrace.listen(self.pid)
        else:
            ptrace.go_on(self.pid, 0 if event else signal)
        return False

    def _arrive(self) -> None:
        """Stand at an exec: what was known of the image before is no more."""
        if self.state == FOLLOWED:
            ptrace.set_options(self.pid, UNPROVEN)
            self.sock = self._witness = self._before = self._mask = self.deathsig = None
            self._descriptor, self.kept = -1, False
            self.stack_at_exec, self.stack_restored = None, 0
        self.state = AT_EXEC
        self.entered_ns = time.monotonic_ns()

    # ---- at exec

    def lock(self, order: Message) -> Message:
        """Do what the order says, in the target's name; return the record of it."""
        self._take()
        if order.stack_limit:
            self._restore_stack(order.stack_limit)
        low, touched = self._prefault(order)
        began = time.monotonic_ns()
        flags, error = order.flags & MCL_ALL, 0
        if flags:
            error = errno_of(self._call("mlockall", flags))
        if error == EINVAL and flags & MCL_ONFAULT:  # before Linux 4.4
            flags &= ~MCL_ONFAULT
            error = errno_of(self._call("mlockall", flags))
        ended = time.monotonic_ns()
        if order.flags & protocol.DEATHSIG:
            self.deathsig = order.error
        self.state = LOCKED
        return Message(
            protocol.RECORD,
            flags=flags,
            error=error,
            time_ns=ended,
            stack_low=low,
            stack_bytes=touched,
            lock_ns=ended - began,
        )

    def _take(self) -> None:
        """Keep what will be changed, block all signals, find the way into the kernel.

        It is still inside execve, whose result would overwrite the number of our first call: so
        out of that first.
        """
        self._mask = ptrace.signal_mask(self.pid)
        ptrace.set_signal_mask(self.pid, ALL_BLOCKED)
        self._to_system_call()
        before = tracee.parse_registers(ptrace.registers(self.pid))
        if before is None:
            raise NoCall(0, "its registers are of no architecture that is known here")
        self._before = before
        start, code = proc.read_vdso(self.pid)
        at = tracee.find_instruction(code, before.layout)
        if at < 0:
            raise NoCall(0, "its vdso has no instruction that enters the kernel")
        self._entry = start + at
        if self._witness:
            self._descriptor = proc.descriptor_of(self.pid, self._witness)

    def _restore_stack(self, limit: int) -> None:
        """Give the stack limit back. Its C library has not read it yet: that is its threads'."""
        from rtlaunch.core.threadstack import as_limit
        from rtlaunch.linux import rlimit

        rlimit.put_soft_of(self.pid, "stack", as_limit(limit))
        self.stack_at_exec = as_limit(limit)

    def _prefault(self, order: Message) -> tuple[int, int]:
        """Touch the main stack below its pointer as far as told; return the lowest page and bytes.

        One write at the bottom makes the kernel grow the mapping; the pages between are populated.
        """
        assert self._before is not None
        sp, page = self._before.sp, self._page
        top = sp & -page
        bottom = max(sp - order.stack_bytes, order.stack_low, page) & -page
        if not order.stack_bytes or bottom >= top:
            return top, 0
        if errno_of(self._call("clock_gettime", CLOCK_MONOTONIC, bottom)):
            return top, 0
        if errno_of(self._call("madvise", bottom, top - bottom, MADV_POPULATE_WRITE)):
            for each in range(bottom, top, page):
                self._call("clock_gettime", CLOCK_MONOTONIC, each)
        return bottom, sp - bottom

    def _call(self, name: str, *arguments: int, gives: int = 0) -> int:
        """Make one system call in the target; return its result, -errno where it failed.

        ``gives`` is the number that the kernel gives back where it succeeded.
        """
        assert self._before is not None
        wanted = tracee.for_call(self._before, self._entry, name, arguments)
        ptrace.set_registers(self.pid, tracee.pack_registers(wanted))
        self._to_system_call()  # entered
        self._to_system_call()  # left
        now = tracee.parse_registers(ptrace.registers(self.pid))
        if now is None or now.pc != self._entry + len(now.layout.instruction):
            raise NoCall(0, f"{name} was not made")
        if now.result > 0 and now.result != gives:
            self._end_by_filter(name)
        return now.result

    def _end_by_filter(self, name: str) -> NoReturn:
        """Let a target end that a seccomp filter kills for a call; no other gives a number back.

        It has left the call as it came to it, and dies of SIGSYS before any instruction.
        """
        pending = parse_status(proc.read_text(self.pid, "status")).sig_pnd
        if pending >> _signal.SIGSYS - 1 & 1:
            ptrace.go_on(self.pid)
            ptrace.wait_stop(self.pid)
        raise NoCall(0, f"{name} was answered by a number that the kernel does not give")

    def _to_system_call(self) -> None:
        """Let it run to where it enters or leaves the next system call.

        What cannot be blocked is given to it on the way. SIGSTOP stops the process, and not this
        thread as long as we do not let it (PTRACE_LISTEN): it will stand once it is detached,
        unless SIGCONT came first (kernel/ptrace.c, __ptrace_unlink).
        """
        signal = 0
        while True:
            ptrace.to_system_call(self.pid, signal)
            stop = ptrace.wait_stop(self.pid)
            if stop == ptrace.SYSCALL_STOP:
                return
            self._was_stopped |= stop >> 8 == ptrace.EVENT_STOP
            signal = 0 if stop >> 8 else stop

    # ---- locked

    def notify(self, _: _socket.socket) -> Message:
        """Say READY=1 in its name, on the socket that it was handed; return NOTIFIED.

        The words stand below its stack pointer for the time of one write(2): nothing of its own
        is there before its first instruction.
        """
        assert self._before is not None
        fd = proc.descriptor_of(self.pid, self.ready) if self.ready else -1
        words, at = protocol.READY.encode(), self._before.sp - BELOW_STACK
        kept = proc.read_memory(self.pid, at, len(words))
        proc.write_memory(self.pid, at, words)
        error = errno_of(self._call("write", fd, at, len(words), gives=len(words)))
        proc.write_memory(self.pid, at, kept)
        if fd >= 0:
            self._call("close", fd)
        return Message(protocol.NOTIFIED, error=error, time_ns=time.monotonic_ns())

    def say(self, verdict: Message) -> None:
        """Let the target go on GO; a target that is refused waits to be killed."""
        if verdict.kind != protocol.GO:
            return
        if self.deathsig is not None:
            self._call("prctl", PR_SET_PDEATHSIG, self.deathsig)
        if verdict.flags & protocol.KEEP:
            self._call("fcntl", self._descriptor, F_SETFD, FD_CLOEXEC)
        elif self._descriptor >= 0:
            self._call("close", self._descriptor)
        self.let_go()

    def leave(self, code: int) -> bool:
        """Have it exit with ``code`` where it stands; False where it cannot be made to."""
        if self.state not in (AT_EXEC, LOCKED):
            return False
        try:
            if self._before is None:
                self._take()
            self._call("exit_group", code)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False  # a filter answered for the kernel

    def end(self) -> None:
        """Kill it, whoever it is by now."""
        ptrace.kill(self.pid)
        self.state = GONE

    def let_go(self) -> None:
        """Put back what was changed of the target, and let it run untraced."""
        if self._before is not None:
            ptrace.set_registers(self.pid, tracee.pack_registers(self._before))
        if self._mask is not None:
            ptrace.set_signal_mask(self.pid, self._mask)
        if self.stays:
            self.follow()
            return
        ptrace.detach(self.pid)
        self.state = GONE

    def follow(self) -> None:
        """Let the target run, traced for its next exec alone.

        Where it was stopped meanwhile it is asked at once whether it still is: :meth:`on_stop`.
        """
        ptrace.set_options(self.pid, FOLLOWING)
        if self._was_stopped:
            ptrace.interrupt(self.pid)
            self._was_stopped = False
        ptrace.go_on(self.pid)
        self.state = FOLLOWED
