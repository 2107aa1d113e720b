"""Locking from outside: the target stopped by ptrace at its exec, and made to lock itself.

For programs that no loader runs for, or that drop what a loader is told. The states, in order:

    seized    traced, running towards its exec (our own child code)
    at exec   stopped in the new image, before its first instruction
    locked    its stack touched, mlockall done; the launcher reads its books
    gone      as it was at exec, and traced by nobody

What is changed of it, registers and signal mask, is put back before it goes; if we die, the kernel
kills it (PTRACE_O_EXITKILL). Signals that arrive meanwhile wait in the kernel, their siginfo whole.
It leaves nothing in the target and decides nothing: who is injected into is the plan's business.
"""

from __future__ import annotations

import _signal
import os
import time

from rtlaunch.core import protocol, tracee
from rtlaunch.core.findings import Finding
from rtlaunch.core.protocol import Message
from rtlaunch.core.tracee import errno_of
from rtlaunch.linux import proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.tracee import Registers

SEIZED, AT_EXEC, LOCKED, GONE = "seized", "at exec", "locked", "gone"

STOPPING = (_signal.SIGSTOP, _signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
ALL_BLOCKED = b"\xff" * ptrace.SIGNAL_SET_BYTES

MCL_ALL = 7
MADV_POPULATE_WRITE = 23  # Linux 5.14
CLOCK_MONOTONIC = 1
PR_SET_PDEATHSIG = 1
PAGE = 4096  # none is smaller


class NoCall(OSError):
    """The target cannot be made to enter the kernel; says why."""


class Injection:
    """One image of the target, on its way from exec to its first instruction.

    It speaks with the handshake as a shim's conversation does: ``lock`` answers an order with a
    record, and ``say`` takes the verdict. OSError from the kernel's refusals, ProcessLookupError
    where the target died.
    """

    GONE = GONE

    is_target = True
    kept = False
    can_keep = False  # no socket of ours is left in it

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.state = SEIZED
        self.entered_ns = 0
        self.deathsig: int | None = None
        self.held: list[int] = []
        self._before: Registers | None = None
        self._mask = ALL_BLOCKED
        self._entry = 0
        ptrace.seize(pid, ptrace.O_TRACEEXEC | ptrace.O_EXITKILL)

    # ---- seized

    def on_stop(self, stop: int) -> bool:
        """Deal with a stop (si_status of waitid(2)); True when it is that of the exec."""
        event, signal = stop >> 8, stop & 0xFF
        if self.state != SEIZED:
            return False
        if event == ptrace.EVENT_EXEC:
            self.state = AT_EXEC
            self.entered_ns = time.monotonic_ns()
            return True
        if event == ptrace.EVENT_STOP and signal in STOPPING:
            ptrace.listen(self.pid)
        else:
            ptrace.go_on(self.pid, 0 if event else signal)
        return False

    # ---- at exec

    def lock(self, order: Message) -> Message:
        """Do what the order says, in the target's name; return the record of it."""
        self._take()
        low, touched = self._prefault(order)
        began = time.monotonic_ns()
        flags, error = order.flags & MCL_ALL, 0
        if flags:
            error = errno_of(self._call("mlockall", flags))
        ended = time.monotonic_ns()
        if order.flags & protocol.DEATHSIG:
            self.deathsig = order.error
        self.state = LOCKED
        return Message(
            protocol.RECORD,
            error=error,
            time_ns=ended,
            stack_low=low,
            stack_bytes=touched,
            lock_ns=ended - began,
        )

    def _take(self) -> None:
        """Keep what will be changed, block all signals, find the way into the kernel."""
        self._mask = ptrace.signal_mask(self.pid)
        ptrace.set_signal_mask(self.pid, ALL_BLOCKED)
        # It is still inside execve, whose result would overwrite the number of our first call. A
        # step from there ends on the way out, before any instruction (kernel/entry/common.c).
        ptrace.step(self.pid)
        self._await_trap()
        before = tracee.parse_registers(ptrace.registers(self.pid))
        if before is None:
            raise NoCall(0, "its registers are of no architecture that is known here")
        self._before = before
        start, code = proc.read_vdso(self.pid)
        at = tracee.find_instruction(code, before.layout)
        if at < 0:
            raise NoCall(0, "its vdso has no instruction that enters the kernel")
        self._entry = start + at

    def _prefault(self, order: Message) -> tuple[int, int]:
        """Touch the main stack below its pointer as far as told; return the lowest page and bytes.

        One write at the bottom makes the kernel grow the mapping; the pages between are populated.
        """
        assert self._before is not None
        top = self._before.sp & -PAGE
        bottom = max(self._before.sp - order.stack_bytes, order.stack_low, PAGE) & -PAGE
        if not order.stack_bytes or bottom >= top:
            return top, 0
        if errno_of(self._call("clock_gettime", CLOCK_MONOTONIC, bottom)):
            return top, 0
        if errno_of(self._call("madvise", bottom, top - bottom, MADV_POPULATE_WRITE)):
            for page in range(bottom, top, PAGE):
                self._call("clock_gettime", CLOCK_MONOTONIC, page)
        return bottom, self._before.sp - bottom

    def _call(self, name: str, *arguments: int) -> int:
        """Make one system call in the target; return its result, -errno where it failed."""
        assert self._before is not None
        wanted = tracee.for_call(self._before, self._entry, name, arguments)
        ptrace.set_registers(self.pid, tracee.pack_registers(wanted))
        ptrace.step(self.pid)
        self._await_trap()
        now = tracee.parse_registers(ptrace.registers(self.pid))
        if now is None or now.pc == self._entry:
            raise NoCall(0, f"{name} was not entered")
        return now.result

    def _await_trap(self) -> None:
        """Wait for the end of a step; a stop signal that cannot be blocked is held for later."""
        while (stop := ptrace.wait_stop(self.pid)) != _signal.SIGTRAP:
            if stop >> 8 == 0:
                self.held.append(stop)
            ptrace.step(self.pid)

    # ---- locked

    def say(self, verdict: Message) -> None:
        """Let the target go on GO: as it was at its exec, and untraced."""
        if verdict.kind != protocol.GO or self._before is None:
            return
        if self.deathsig is not None:
            self._call("prctl", PR_SET_PDEATHSIG, self.deathsig)
        ptrace.set_registers(self.pid, tracee.pack_registers(self._before))
        ptrace.set_signal_mask(self.pid, self._mask)
        ptrace.detach(self.pid)
        self.state = GONE
        for signal in self.held:
            os.kill(self.pid, signal)


def denied(pid: int, error: OSError) -> Finding:
    """Return the finding for a child that may not be traced, with the tracer that is there."""
    tracer = _tracer(pid)
    what = f"pid {tracer} traces it already" if tracer else str(error.strerror or error)
    return Finding(
        "ptrace-denied",
        f"the program cannot be stopped at its exec: {what}",
        why="no preload reaches it, and only ptrace can lock it from outside",
        values={"errno": error.errno, "tracer": tracer},
    )


def failed(pid: int, error: OSError) -> Finding:
    """Return the finding for an injection that could not be made."""
    return Finding(
        "inject-failed",
        f"the program was stopped at its exec and could not be locked: {error.strerror or error}",
        why="a system call in its name is made with its registers and its vdso",
        values={"errno": error.errno, "pid": pid},
    )


def _tracer(pid: int) -> int:
    """Return who traces ``pid``, 0 if nobody does."""
    lines = proc.read_text(pid, "status").splitlines()
    found = next((line for line in lines if line.startswith("TracerPid:")), "TracerPid: 0")
    return int(found.split()[1])
