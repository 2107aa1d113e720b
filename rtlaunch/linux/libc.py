"""System calls that Python has no function for.

One function per kernel operation; each raises OSError with the kernel's errno
and the call's name. It decides nothing and keeps no state.

The only file that knows ctypes, and of that only the C module: the layer in
Python on top of it takes three times as long to import, before the target may
run, and all that is needed of it is one function of the C library.
"""

from __future__ import annotations

import _ctypes
import errno
import os
import sys

from rtlaunch.core.elf import host_machine

# System call numbers: asm/unistd_64.h (x86_64), asm-generic/unistd.h (the others).
_GENERIC = {
    "fcntl": 25,
    "rt_sigqueueinfo": 138,
    "rt_tgsigqueueinfo": 240,
    "setresuid": 147,
    "setfsuid": 151,
    "setfsgid": 152,
    "prctl": 167,
    "ptrace": 117,
    "mlockall": 230,
    "signalfd4": 74,
    "perf_event_open": 241,
    "sched_setattr": 274,
    "pidfd_send_signal": 424,
}
NUMBERS = {
    "x86_64": {
        "fcntl": 72,
        "rt_sigqueueinfo": 129,
        "rt_tgsigqueueinfo": 297,
        "setresuid": 117,
        "setfsuid": 122,
        "setfsgid": 123,
        "prctl": 157,
        "ptrace": 101,
        "mlockall": 151,
        "signalfd4": 289,
        "perf_event_open": 298,
        "sched_setattr": 314,
        "pidfd_send_signal": 424,
    },
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}
# By our own size: setarch(8) makes the kernel lie, a 32-bit interpreter has other numbers: none.
_HERE = NUMBERS.get(host_machine(os.uname().machine, 64 if sys.maxsize >> 32 else 32), {})

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # mlockall(2)

PR_SET_PDEATHSIG = 1  # prctl(2)
PR_SET_DUMPABLE = 4
PR_GET_SECCOMP, SECCOMP_MODE_FILTER = 21, 2
PR_SET_THP_DISABLE, PR_GET_THP_DISABLE = 41, 42
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2

PIDFD_SIGNAL_PROCESS_GROUP = 4  # pidfd_send_signal(2), Linux 6.9

PERF_FLAG_FD_CLOEXEC = 8  # perf_event_open(2)

SI_USER, SI_QUEUE, SI_SIGIO = 0, -1, -5  # sigaction(2)

# fcntl(2), asm-generic/fcntl.h
F_SETFL, F_SETSIG, F_SETOWN_EX = 4, 10, 15
F_OWNER_TID = 0
SFD_CLOEXEC, SFD_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK  # signalfd(2)


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """The C type; a bare Python int would be passed as a 32-bit int."""

    _type_ = "l"


class _Function(_ctypes.CFuncPtr):
    """A function that returns a long, and leaves its errno where get_errno() finds it."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_itself = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # dlopen(3) takes NULL
_syscall = _Function(_ctypes.dlsym(_itself, "syscall"))


def syscall(name: str, *args: int | bytes | None) -> int:
    """Make the system call ``name``; OSError, with ENOSYS where its number is not known here."""
    number = _HERE.get(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: no system call number for {os.uname().machine}")
    words = [_Long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = _syscall(_Long(number), *words)
    if result == -1:
        code = _ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """The C type char, of which buffers are made."""

    _type_ = "c"


def ptrace(request: int, pid: int, address: int, data: int) -> None:
    """Make a ptrace request that gives nothing back (ptrace(2))."""
    syscall("ptrace", request, pid, address, data)


def ptrace_read(request: int, pid: int, address: int, size: int, as_vector: bool = False) -> bytes:
    """Make a ptrace request that fills a buffer of ``size`` bytes; return what it wrote.

    ``as_vector``: the buffer is named by a struct iovec, which the kernel makes as long as what it
    wrote; else all of it is returned.
    """
    buffer = (_Byte * size)()
    where = _ctypes.addressof(buffer)
    if not as_vector:
        syscall("ptrace", request, pid, address, where)
        return bytes(buffer)
    vector = (_Long * 2)(where, size)
    syscall("ptrace", request, pid, address, _ctypes.addressof(vector))
    return bytes(buffer)[: vector[1]]


def ptrace_write(
    request: int, pid: int, address: int, values: bytes, as_vector: bool = False
) -> None:
    """Make a ptrace request that takes a buffer, named by a struct iovec or directly."""
    buffer = (_Byte * len(values))(*values)
    where = _ctypes.addressof(buffer)
    vector = (_Long * 2)(where, len(values))
    syscall("ptrace", request, pid, address, _ctypes.addressof(vector) if as_vector else where)


def prctl(option: int, *args: int) -> int:
    """Operate on this thread or process (prctl(2)); missing arguments are 0."""
    return syscall("prctl", option, *(*args, 0, 0, 0, 0)[:4])


def has_seccomp_filter() -> bool:
    """Tell whether a seccomp filter is in force for this thread (prctl(2), PR_GET_SECCOMP)."""
    return prctl(PR_GET_SECCOMP) == SECCOMP_MODE_FILTER


def raise_ambient(cap: int) -> None:
    """Raise one ambient capability; EPERM unless it is permitted and inheritable (prctl(2))."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap)


def set_thp_disable(disable: int, flags: int) -> None:
    """Disable transparent huge pages for this process, with flags; EINVAL if the kernel lacks them.

    python-prctl's own call passes no flags.
    """
    prctl(PR_SET_THP_DISABLE, disable, flags)


def get_thp_disable() -> int:
    """Return 0, or 1 with the flags that were set beside it (PR_GET_THP_DISABLE)."""
    return prctl(PR_GET_THP_DISABLE)


def mlockall(flags: int) -> None:
    """Lock this process's memory by MCL_* flags (mlockall(2)); EPERM, ENOMEM, EAGAIN, EINVAL."""
    syscall("mlockall", flags)


def perf_event_open(attr: bytes, pid: int, cpu: int) -> int:
    """Open an event of ``pid`` on ``cpu`` (-1: any) and return its close-on-exec descriptor."""
    return syscall("perf_event_open", attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)


def sched_setattr(attr: bytes) -> None:
    """Set the policy of the calling thread from a struct sched_attr; EINVAL, EPERM, E2BIG."""
    syscall("sched_setattr", 0, attr, 0)


def signalfd4(fd: int, mask: int, flags: int = SFD_CLOEXEC | SFD_NONBLOCK) -> int:
    """Make (``fd`` -1) or change a signalfd; bit N-1 of ``mask`` is signal N."""
    return syscall("signalfd4", fd, mask.to_bytes(8, sys.byteorder), 8, flags)


def queued_siginfo(signal: int, value: int) -> bytes:
    """Return the siginfo of sigqueue(3): SI_QUEUE, from us, carrying the 64-bit ``value``."""
    parts = (signal, 0, SI_QUEUE, 0, os.getpid(), os.getuid())
    head = b"".join((part & 2**32 - 1).to_bytes(4, sys.byteorder) for part in parts)
    word = (value & 2**64 - 1).to_bytes(8, sys.byteorder)
    return (head + word).ljust(128, b"\0")


def rt_sigqueueinfo(pid: int, signal: int, info: bytes) -> None:
    """Queue ``signal`` with its siginfo for a process; ESRCH, EPERM, EAGAIN (queue full)."""
    syscall("rt_sigqueueinfo", pid, signal, info)


def rt_tgsigqueueinfo(pid: int, tid: int, signal: int, info: bytes) -> None:
    """Queue ``signal`` with its siginfo for a thread; errors as rt_sigqueueinfo's."""
    syscall("rt_tgsigqueueinfo", pid, tid, signal, info)


def notify(fd: int, tid: int, signal: int) -> None:
    """Have ``signal`` sent to our thread ``tid`` when there is something to read; 0 for none.

    O_ASYNC. By fcntl(2)'s number: Python's module is a library that a launch has not loaded.
    """
    owner = F_OWNER_TID.to_bytes(4, sys.byteorder) + tid.to_bytes(4, sys.byteorder)
    syscall("fcntl", fd, F_SETOWN_EX, owner)
    syscall("fcntl", fd, F_SETSIG, signal)
    syscall("fcntl", fd, F_SETFL, os.O_ASYNC if signal else 0)


def pidfd_send_signal(pidfd: int, signal: int, info: bytes | None = None, flags: int = 0) -> None:
    """Send ``signal`` through a pidfd, with a siginfo if given: it never hits a recycled pid."""
    syscall("pidfd_send_signal", pidfd, signal, info, flags)
