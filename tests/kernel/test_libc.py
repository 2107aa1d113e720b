"""The calls made by number: the kernel's own numbers, its errors, its signals with their value."""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
from pathlib import Path

import pytest

from rtlaunch.core import perfring
from rtlaunch.linux import libc
from tests.kernel.execve import in_child

HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
    "riscv64": "/usr/include/asm-generic/unistd.h",
}
PERF_HEADER = Path("/usr/include/linux/perf_event.h")
VALUE = -(2**31) + 7


def number(header: str, name: str) -> int | None:
    """Return a system call's number as a header of the C library has it."""
    found = re.search(rf"#define __NR(?:3264)?_{name}\s+(\d+)", Path(header).read_text())
    return int(found[1]) if found else None


def readable_headers() -> list[tuple[str, str]]:
    return [(machine, path) for machine, path in HEADERS.items() if Path(path).exists()]


def test_numbers_are_those_of_the_headers() -> None:
    """For each machine whose header is here, this one's among them."""
    headers = readable_headers()
    assert headers
    for machine, header in headers:
        for name, ours in libc.NUMBERS[machine].items():
            assert (machine, name, number(header, name)) == (machine, name, ours)


def test_types_of_perf_records_are_those_of_the_header() -> None:
    """linux/perf_event.h has each as an enumerator with its value."""
    text = PERF_HEADER.read_text()
    values = dict(re.findall(r"PERF_RECORD_(\w+)\s*=\s*(\d+),", text))
    ours = {
        "COMM": perfring.COMM,
        "EXIT": perfring.EXIT,
        "FORK": perfring.FORK,
        "SAMPLE": perfring.MAJOR,
        "MMAP": perfring.MMAP,
    }
    assert {name: int(values[name]) for name in ours} == ours


def test_an_error_has_the_kernels_number_and_the_calls_name() -> None:
    """Who reads it knows what was refused."""
    with pytest.raises(OSError, match="signalfd4: Invalid argument") as caught:
        libc.signalfd4(-1, 0, flags=1)
    assert caught.value.errno == errno.EINVAL


def test_a_call_without_a_number_is_not_guessed() -> None:
    """ENOSYS, as the kernel would say."""
    with pytest.raises(OSError, match="no system call number") as caught:
        libc.syscall("no_such_call")
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize("way", ["pid", "pidfd"])
def test_a_queued_signal_carries_its_value(way: str) -> None:
    """A real-time signal sent on arrives as SI_QUEUE with the sender's value, read by signalfd."""

    def received() -> tuple[int, int, int, int]:
        wanted = signal.SIGRTMIN + 3
        signal.pthread_sigmask(signal.SIG_BLOCK, [wanted])
        fd = libc.signalfd4(-1, 1 << (wanted - 1))
        info = libc.queued_siginfo(wanted, VALUE)
        if way == "pid":
            libc.rt_sigqueueinfo(os.getpid(), wanted, info)
        else:
            libc.pidfd_send_signal(os.pidfd_open(os.getpid()), wanted, info)
        raw = os.read(fd, 128)
        # struct signalfd_siginfo: signo, errno, code, pid, uid, fd, tid, band, overrun, trapno,
        # status, int, ptr
        fields = struct.unpack_from("=IiiIIiIIIIiiQ", raw)
        return fields[0] - wanted, fields[2], fields[3] - os.getpid(), fields[11]

    assert in_child(received) == (0, libc.SI_QUEUE, 0, VALUE)


def test_a_signal_without_a_value_reaches_its_process() -> None:
    """Through a pidfd, with no siginfo of ours."""
    child = os.fork()
    if not child:
        signal.pause()
    libc.pidfd_send_signal(os.pidfd_open(child), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_an_ambient_capability_that_is_not_inheritable_is_refused() -> None:
    """EPERM, before anything is changed."""
    with pytest.raises(PermissionError):
        libc.raise_ambient(14)
