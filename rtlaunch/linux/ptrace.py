"""Stopping, reading and steering a process that we may trace (ptrace(2)).

One function per request, each an OSError with the kernel's errno: EPERM (yama, another tracer,
another user), ESRCH (gone, or not stopped). It keeps no state and decides nothing: the sequence is
:mod:`rtlaunch.engine.inject`'s. Every call must come from the thread that seized.
"""

from __future__ import annotations

import _signal
import errno
import os
import sys
import time

from rtlaunch.linux import libc

# include/uapi/linux/ptrace.h
CONT, KILL, DETACH, SYSCALL = 7, 8, 17, 24
SETOPTIONS = 0x4200
GETREGSET, SETREGSET = 0x4204, 0x4205
SEIZE, INTERRUPT, LISTEN = 0x4206, 0x4207, 0x4208
GETSIGMASK, SETSIGMASK = 0x420A, 0x420B
GET_RSEQ_CONFIGURATION = 0x420F
GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211
O_TRACESYSGOOD, O_TRACEEXEC, O_EXITKILL = 0x1, 0x10, 0x100000
O_TRACEEXIT, O_SUSPEND_SECCOMP = 0x40, 0x200000
EVENT_EXEC, EVENT_EXIT, EVENT_STOP = 4, 6, 128
SYSCALL_STOP = 5 | 0x80  # SIGTRAP, marked by O_TRACESYSGOOD: into a system call, or out of it

NT_PRSTATUS = 1  # include/uapi/linux/elf.h: the general registers

SIGNAL_SET_BYTES = 8
MOST_REGISTER_BYTES = 512
RSEQ_CONFIGURATION_BYTES = 24
DISPATCH_CONFIG_BYTES = 32
LONG_SECONDS = 3600.0
_WALL = 0x40000000  # wait(2): threads as well, which end without a signal


def seize(pid: int, options: int) -> None:
    """Begin to trace ``pid`` without stopping it, with PTRACE_O_* options."""
    libc.ptrace(SEIZE, pid, 0, options)


def set_options(pid: int, options: int) -> None:
    """Set the PTRACE_O_* options of a stopped tracee."""
    libc.ptrace(SETOPTIONS, pid, 0, options)


def interrupt(pid: int) -> None:
    """Stop a process that was seized."""
    libc.ptrace(INTERRUPT, pid, 0, 0)


def go_on(pid: int, signal: int = 0) -> None:
    """Let a stopped tracee run, with the signal that it stopped for, or none."""
    libc.ptrace(CONT, pid, 0, signal)


def listen(pid: int) -> None:
    """Leave a tracee in its group stop, from which SIGCONT wakes it."""
    libc.ptrace(LISTEN, pid, 0, 0)


def to_system_call(pid: int, signal: int = 0) -> None:
    """Let a stopped tracee run to where it next enters or leaves a system call.

    Unlike a single step it sends no SIGTRAP, which would reset a handler where that is blocked.
    ``signal`` as for :func:`go_on`.
    """
    libc.ptrace(SYSCALL, pid, 0, signal)


def detach(pid: int, signal: int = 0) -> None:
    """Let a stopped tracee go for good."""
    libc.ptrace(DETACH, pid, 0, signal)


def kill(pid: int) -> None:
    """Kill a tracee, for which no permission to signal it is asked (kernel/ptrace.c)."""
    libc.ptrace(KILL, pid, 0, 0)


def registers(pid: int) -> bytes:
    """Read the general registers; how many bytes there are tells the tracee's own architecture."""
    return libc.ptrace_read(GETREGSET, pid, NT_PRSTATUS, MOST_REGISTER_BYTES, as_vector=True)


def set_registers(pid: int, values: bytes) -> None:
    """Write the general registers, as many bytes as :func:`registers` gave."""
    libc.ptrace_write(SETREGSET, pid, NT_PRSTATUS, values, as_vector=True)


def signal_mask(pid: int) -> bytes:
    """Read which signals are blocked: bit N-1 of the little-endian number is signal N."""
    return libc.ptrace_read(GETSIGMASK, pid, SIGNAL_SET_BYTES, SIGNAL_SET_BYTES)


def set_signal_mask(pid: int, mask: bytes) -> None:
    """Block the signals of ``mask``; SIGKILL and SIGSTOP cannot be."""
    libc.ptrace_write(SETSIGMASK, pid, SIGNAL_SET_BYTES, mask)


def wait_stop(pid: int) -> int:
    """Wait for the next stop of a tracee that is our child: its signal, and its event times 256.

    ProcessLookupError where it ended; it is not reaped.
    """
    try:
        found = os.waitid(os.P_PID, pid, os.WSTOPPED)
    except ChildProcessError:  # a zombie never stops again
        raise ProcessLookupError from None
    assert found is not None  # without WNOHANG
    return found.si_status


def rseq_area(pid: int) -> int:
    """Return where a tracee registered its restartable sequences (rseq(2)), 0 if it has not.

    OSError with EIO before Linux 5.13.
    """
    raw = libc.ptrace_read(
        GET_RSEQ_CONFIGURATION, pid, RSEQ_CONFIGURATION_BYTES, RSEQ_CONFIGURATION_BYTES
    )
    return int.from_bytes(raw[:8], sys.byteorder)


def dispatches_calls(pid: int) -> bool:
    """Tell whether a tracee's system calls become SIGSYS (PR_SET_SYSCALL_USER_DISPATCH).

    OSError with EIO before Linux 6.4.
    """
    raw = libc.ptrace_read(
        GET_SYSCALL_USER_DISPATCH_CONFIG, pid, DISPATCH_CONFIG_BYTES, DISPATCH_CONFIG_BYTES
    )
    return bool(int.from_bytes(raw[:8], sys.byteorder))


def await_stop(tid: int, seconds: float | None = None) -> int | None:
    """Wait for the next stop of any tracee: its signal, and its event times 256; None if late.

    SIGCHLD must be blocked, and not ignored. ProcessLookupError where it ended.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            found, status = os.waitpid(tid, os.WNOHANG | _WALL)
        except ChildProcessError as error:
            raise ProcessLookupError(error.errno, "it is traced no more") from error
        if found:
            if not os.WIFSTOPPED(status):
                raise ProcessLookupError(errno.ESRCH, "it ended")
            return status >> 8
        left = LONG_SECONDS if until is None else until - time.monotonic()
        if left <= 0:
            return None
        _signal.sigtimedwait((_signal.SIGCHLD,), left)
