"""Stopping, reading and steering a process that we may trace (ptrace(2)).

One function per request, each an OSError with the kernel's errno: EPERM (yama, another tracer,
another user), ESRCH (gone, or not stopped). It keeps no state and decides nothing: the sequence is
:mod:`rtlaunch.engine.inject`'s. Every call must come from the thread that seized.
"""

from __future__ import annotations

import os

from rtlaunch.linux import libc

# include/uapi/linux/ptrace.h
CONT, DETACH, SYSCALL = 7, 17, 24
GETREGSET, SETREGSET = 0x4204, 0x4205
SEIZE, INTERRUPT, LISTEN = 0x4206, 0x4207, 0x4208
GETSIGMASK, SETSIGMASK = 0x420A, 0x420B
O_TRACESYSGOOD, O_TRACEEXEC, O_EXITKILL = 0x1, 0x10, 0x100000
EVENT_EXEC, EVENT_STOP = 4, 128
SYSCALL_STOP = 5 | 0x80  # SIGTRAP, marked by O_TRACESYSGOOD

NT_PRSTATUS = 1  # include/uapi/linux/elf.h: the general registers

SIGNAL_SET_BYTES = 8
MOST_REGISTER_BYTES = 512


def seize(pid: int, options: int) -> None:
    """Begin to trace ``pid`` without stopping it, with PTRACE_O_* options."""
    libc.ptrace(SEIZE, pid, 0, options)


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

    ``signal`` as for :func:`go_on`.
    """
    libc.ptrace(SYSCALL, pid, 0, signal)


def detach(pid: int, signal: int = 0) -> None:
    """Let a stopped tracee go for good."""
    libc.ptrace(DETACH, pid, 0, signal)


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
