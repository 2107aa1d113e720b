"""System calls in the name of a process that already runs: one thread stopped for them, briefly.

A lock is of the whole process, so that one thread is enough, and the others run on. The states of
that thread, in order:

    chosen    runs, or sleeps in the call that it notices least to be stopped in
    stopped   seized and interrupted; nothing of it changed
    steered   signals blocked, registers ours; one system call after the other
    gone      as it was, but for what is left of its time; traced by nobody

A child of ours in a session of its own does it: who ends rtlaunch, even by SIGKILL, ends nobody in
the middle. If the child itself is killed while it steers, the thread goes on with our registers
and the process dies: docs/decisions/0042. The child must not wait for anything but that thread.
"""

from __future__ import annotations

import _signal
import os

from rtlaunch.core import blocked
from rtlaunch.core.blocked import Thread
from rtlaunch.core.findings import Finding
from rtlaunch.core.proc import parse_status
from rtlaunch.engine.steering import Made, Steering, Stuck, Unfit, is_32_bit, machine_of
from rtlaunch.linux import libc, proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtlaunch.engine.steering import Wish

REALTIME = (1, 2, 6)  # SCHED_FIFO, SCHED_RR, SCHED_DEADLINE
SECCOMP_FILTER = 2
MOST_TRIED = 4
HIGHEST_PRIORITY = 99


def make_calls(pid: int, starttime: int, wishes: Sequence[Wish]) -> Made | Finding:
    """Make system calls, (name, arguments) each, in the name of ``pid``; say what came of them.

    ``starttime`` is that of /proc/PID/stat, so that a recycled number is not taken for it. The rest
    is not begun once one fails.
    """
    stuck: list[int] = []
    while True:
        came = _trace_aside(pid, starttime, wishes, tuple(stuck))
        if isinstance(came, Made) or "stuck" not in came.values or len(stuck) + 1 == MOST_TRIED:
            return came
        stuck.append(int(str(came.values["stuck"])))


def _trace_aside(
    pid: int, starttime: int, wishes: Sequence[Wish], stuck: tuple[int, ...]
) -> Made | Finding:
    """Let a child trace, in a session of its own, passing over threads that are ``stuck``."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        _be_tracer(writer, pid, starttime, wishes, stuck)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    if not raw:
        return _failed(pid, "the process that traced it was killed")
    import json

    said = json.loads(raw)
    if "what" in said:
        return Finding(said["code"], said["what"], said["why"], said["values"])
    return Made(said["tid"], tuple(said["results"]), tuple(said["call_ns"]), said["stopped_ns"])


def _be_tracer(
    writer: int, pid: int, starttime: int, wishes: Sequence[Wish], stuck: tuple[int, ...]
) -> None:
    """Trace, write what came of it, and leave; the kernel lets go of whatever is still seized."""
    import json

    came: Made | Finding
    try:
        os.setsid()
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        try:
            came = _trace(pid, starttime, wishes, stuck)
        except Exception as error:  # whatever it is: it was let go, and somebody must be told
            came = _failed(pid, repr(error))
        said = {name: getattr(came, name) for name in type(came)._fields}
        if isinstance(came, Finding):
            said["code"] = came.code
        os.write(writer, json.dumps(said).encode())
    finally:
        os._exit(0)


def _trace(
    pid: int, starttime: int, wishes: Sequence[Wish], stuck: tuple[int, ...]
) -> Made | Finding:
    """Try one thread after the other, the one that is harmed least first."""
    try:
        vdso = proc.read_vdso(pid)
        options = _seize_options(pid)
        threads = [thread for thread in _threads(pid) if thread.tid not in stuck]
        _get_ahead_of(pid, threads)
    except OSError as error:
        return refused(pid, error)
    if stuck and not threads:
        return _failed(pid, f"no thread of it stops: nothing can wake it ({_words(stuck)})")
    machine = "i386" if is_32_bit(vdso[1]) else machine_of(vdso[1])
    problem: OSError | None = None
    for thread in sorted(threads, key=lambda one: blocked.by_harm(machine, one))[:MOST_TRIED]:
        try:
            return Steering(pid, thread, vdso, options).make(starttime, wishes)
        except (Stuck, PermissionError) as error:
            problem = error
            break
        except OSError as error:
            problem = error
    return refused(pid, problem or ProcessLookupError())


def _words(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _threads(pid: int) -> list[Thread]:
    """Return all threads as they are now; what ends meanwhile is left out."""
    found = []
    for tid in proc.thread_ids(pid):
        try:
            stat = proc.StatReader(pid, tid)
            now = stat.read()
            stat.close()
        except (FileNotFoundError, ProcessLookupError):
            continue
        call = _call_of(pid, tid)
        found.append(Thread(tid, now.state, call, now.policy in REALTIME, now.processor))
    return found


def _call_of(pid: int, tid: int) -> blocked.Call | None:
    """Return the call that a thread sleeps in; None as well where the kernel has no such file."""
    try:
        return blocked.parse_call(proc.read_text(pid, f"task/{tid}/syscall"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def _get_ahead_of(pid: int, threads: Sequence[Thread]) -> None:
    """Be scheduled before every thread of ``pid``, where we may: it stands still until we act."""
    if libc.prctl(libc.PR_GET_SECCOMP) == SECCOMP_FILTER:
        return  # systemd's ~@resources may kill us for it
    highest = 0
    for thread in threads:
        if thread.realtime:
            highest = max(highest, proc.StatReader(pid, thread.tid).read().rt_priority)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(min(highest + 1, HIGHEST_PRIORITY)))
    except OSError:  # not ours to have; the stop may last longer then
        return


def _seize_options(pid: int) -> int:
    """Return how to seize: a seccomp filter, which could kill for a call of ours, suspended.

    Where that is denied (CAP_SYS_ADMIN) a filter is borne if we live under as many ourselves: a
    container's own.
    """
    theirs = parse_status(proc.read_text(pid, "status"))
    if not theirs.seccomp:
        return ptrace.O_TRACESYSGOOD
    ours = parse_status(proc.read_text(os.getpid(), "status"))
    if not ours.seccomp:
        return ptrace.O_TRACESYSGOOD | ptrace.O_SUSPEND_SECCOMP
    if theirs.seccomp == SECCOMP_FILTER and theirs.seccomp_filters <= ours.seccomp_filters:
        return ptrace.O_TRACESYSGOOD
    raise Unfit(
        0, "a seccomp filter that we do not live under could kill it for mlockall; from outside of "
        "any filter, with CAP_SYS_ADMIN, it can be suspended"
    )  # fmt: skip


# --- refusals --------------------------------------------------------------------------------


def refused(pid: int, error: OSError) -> Finding:
    """Return the finding for a process that could not be stopped, or not be made to enter."""
    if isinstance(error, (FileNotFoundError, ProcessLookupError)):
        return gone(pid, str(error.strerror or "it ended"))
    if _has_ended(pid):  # for which ptrace has EPERM, and the vdso's pages EIO
        return gone(pid, "it ended")
    if isinstance(error, PermissionError):
        return _denied(pid, error)
    if isinstance(error, Stuck):
        return _failed(pid, str(error.strerror), stuck=error.errno)
    return _failed(pid, str(error.strerror or error))


def _has_ended(pid: int) -> bool:
    """Tell whether nothing of ``pid`` is left but what its parent may collect."""
    try:
        return proc.StatReader(pid).read().state in "ZX"
    except OSError:
        return True


def gone(pid: int, how: str) -> Finding:
    """Return the finding for a process that is not, or no more."""
    return Finding(
        "process-missing", f"process {pid}: {how}", why="there is nothing to lock",
        values={"pid": pid},
    )  # fmt: skip


def _failed(pid: int, what: str, **more: object) -> Finding:
    return Finding(
        "attach-failed",
        f"process {pid} could not be made to lock itself: {what}",
        why="a system call in its name is made by one of its threads, with its vdso",
        values={"pid": pid, **more},
    )


def _denied(pid: int, error: OSError) -> Finding:
    """Say which rule of ptrace(2) forbids it, as far as the books show."""
    try:
        status = parse_status(proc.read_text(pid, "status"))
    except OSError:
        return gone(pid, "it ended")
    yama, tracer = _yama(), _tracer(pid)
    if tracer:
        what = f"pid {tracer} traces it already"
    elif os.geteuid() and status.uids[1] != os.geteuid():
        what = f"it belongs to user {status.uids[1]}, and we are {os.geteuid()}"
    elif os.geteuid() and yama:
        what = f"kernel.yama.ptrace_scope is {yama}"
    else:
        what = "it is not dumpable, has more capabilities than we, or a security module forbids it"
    return Finding(
        "attach-denied",
        f"process {pid} may not be traced: {what}",
        why="only ptrace(2) can lock another process",
        values={"pid": pid, "errno": error.errno, "tracer": tracer, "ptrace_scope": yama},
    )


def _tracer(pid: int) -> int:
    """Return who traces any thread of ``pid``, 0 if nobody does."""
    for tid in proc.thread_ids(pid):
        try:
            status = parse_status(proc.read_text(pid, f"task/{tid}/status"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status.tracer:
            return status.tracer
    return 0


def _yama() -> int:
    """Return kernel.yama.ptrace_scope, 0 without yama."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0
