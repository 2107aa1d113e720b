"""The machine's settings and what it really lets us lock, for ``rtlaunch check``.

The only file that imports psutil, and only inside a function: its import costs
two bare interpreters. Everything is read, nothing changed; a file that is not
there is None. Judging is :mod:`rtlaunch.core.hostcheck`'s.
"""

from __future__ import annotations

import mmap
import os
from errno import EIO

from rtlaunch.core.hostcheck import COMFORT_BYTES, HostFacts, LockTrial
from rtlaunch.linux import libc, perf
from rtlaunch.linux.memory import cgroup_limits, read_number, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

THP = "/sys/kernel/mm/transparent_hugepage/enabled"
KSM = "/sys/kernel/mm/ksm/run"
FAIR_SERVER = "/sys/kernel/debug/sched/fair_server/cpu0/runtime"
NODES = "/sys/devices/system/node"


def sysctl(name: str) -> int | None:
    """Return a kernel setting such as ``vm.swappiness``; None where this kernel has none."""
    return read_number("/proc/sys/" + name.replace(".", "/"))


def memory() -> dict[str, Any]:
    """Return memory and swap in bytes, by the names of HostFacts; empty without psutil or /proc."""
    try:
        import psutil

        whole, swap = psutil.virtual_memory(), psutil.swap_memory()
    except (ImportError, OSError, RuntimeError):
        return {}
    return {
        "memory_bytes": whole.total,
        "available_bytes": whole.available,
        "swap_bytes": swap.total,
        "swap_used_bytes": swap.used,
    }


def numa_nodes() -> int | None:
    """Return how many NUMA nodes there are; None where this kernel does not say."""
    try:
        names = os.listdir(NODES)
    except OSError:
        return None
    return sum(name.startswith("node") and name[4:].isdigit() for name in names)


def watch_error() -> str | None:
    """Open and close the watch's events on ourselves; return why it cannot be, None if it can."""
    pid, cpus = os.getpid(), tuple(sorted(os.sched_getaffinity(0)))
    try:
        perf.open_events((pid,), cpus, False).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def try_lock(least_bytes: int, prepare: Callable[[], None]) -> LockTrial:
    """Lock memory in a forked child, once ``prepare`` ran there, and return how far it came.

    The child locks future mappings with MCL_ONFAULT: each is charged against
    RLIMIT_MEMLOCK as it would be, and takes no memory. OSError of ``prepare``
    ends the trial before it began; any other error of the child's is a
    ChildProcessError here.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(writer, least_bytes, prepare)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        reached = [int(word) for word in pipe.read().split()]
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise ChildProcessError(f"the child that tries the lock ended with status {status:#x}")
    signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    lockall, least, comfort = [*reached, None, None, None][:3]
    return LockTrial(least_bytes, lockall, least, comfort, signal)


def _child(writer: int, least_bytes: int, prepare: Callable[[], None]) -> None:
    """Be the child of the trial: never return."""
    status = 1
    try:
        code, _ = _errno_of(prepare)
        if not code:
            _lock_in_steps(writer, least_bytes)
        status = 0
    finally:
        os._exit(status)


def _lock_in_steps(writer: int, least_bytes: int) -> None:
    """Try each step until one fails, and tell the errno of each."""
    steps: tuple[Callable[[], object], ...] = (
        lambda: libc.mlockall(libc.MCL_FUTURE | libc.MCL_ONFAULT),
        lambda: mmap.mmap(-1, least_bytes),
        lambda: mmap.mmap(-1, COMFORT_BYTES),
    )
    kept = []
    for step in steps:
        code, result = _errno_of(step)
        kept.append(result)  # a mapping that is let go is locked no more
        os.write(writer, b"%d " % code)
        if code:
            return


def _errno_of(step: Callable[[], object]) -> tuple[int, object]:
    try:
        return 0, step()
    except OSError as error:
        return error.errno or EIO, None


def read_facts(**more: Any) -> HostFacts:
    """Return every setting of the machine; ``more`` are the fields that are no setting."""
    return HostFacts(
        kernel=os.uname().release,
        thp=read_text(THP),
        cgroups=cgroup_limits(),
        compact_unevictable=sysctl("vm.compact_unevictable_allowed"),
        numa_balancing=sysctl("kernel.numa_balancing"),
        numa_nodes=numa_nodes(),
        ksm_run=read_number(KSM),
        rt_runtime_us=sysctl("kernel.sched_rt_runtime_us"),
        rt_period_us=sysctl("kernel.sched_rt_period_us"),
        fair_server_ns=read_number(FAIR_SERVER),
        perf_paranoid=sysctl("kernel.perf_event_paranoid"),
        watch_error=watch_error(),
        **memory(),
        **more,
    )


def seccomp_filter() -> bool:
    """Tell whether a seccomp filter is in force for us (the Seccomp line of /proc/self/status)."""
    return "\nSeccomp:\t2\n" in (read_text("/proc/self/status") or "")
