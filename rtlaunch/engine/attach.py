"""System calls in the name of a process that already runs: one thread stopped for them, briefly.

A lock is of the whole process, so that one thread is enough, and the others run on. The states of
that thread, in order:

    chosen    runs, or sleeps in the call that it notices least to be stopped in
    stopped   seized and interrupted; nothing of it changed
    steered   signals blocked, registers ours; one system call after the other
    gone      as it was, but for what is left of its time; traced by nobody

A child of ours in a session of its own does it: who ends rtlaunch, even by SIGKILL, ends nobody in
the middle. If the child itself is killed while it steers, the thread goes on with our registers
and the process dies: docs/decisions/0031. The child must not wait for anything but that thread.
"""

from __future__ import annotations

import _signal
import os
import time

from rtlaunch.core import blocked, tracee
from rtlaunch.core.blocked import MILLISECONDS, TIMESPEC, Thread
from rtlaunch.core.findings import Finding
from rtlaunch.core.proc import parse_status
from rtlaunch.core.record import Record
from rtlaunch.linux import libc, proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rtlaunch.core.tracee import Registers

REALTIME = (1, 2, 6)  # SCHED_FIFO, SCHED_RR, SCHED_DEADLINE
SECCOMP_FILTER = 2
ALL_BLOCKED = b"\xff" * ptrace.SIGNAL_SET_BYTES
PATIENCE_S = 1.0  # for one thread to stop: one in vfork(2), or on a dead disk, does not
MOST_TRIED = 4
HIGHEST_PRIORITY = 99
SCRATCH_BYTES = 1024  # below the stack pointer, and more than any red zone

Wish = tuple[str, tuple[int | bytes, ...]]  # bytes are put on the stack, and their address given


class Made(Record):
    """What came of it: each call's result (-errno where it failed) and time, and the stop's."""

    tid: int
    results: tuple[int, ...]
    call_ns: tuple[int, ...]
    stopped_ns: int


class Unfit(OSError):
    """The thread cannot be made to enter the kernel for us; says why. Nothing was changed."""


class Stuck(Unfit):
    """The thread does not stop. It would once it can, so that who seized it must leave first."""


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

    try:
        os.setsid()
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        came = _trace(pid, starttime, wishes, stuck)
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
    machine = "i386" if _is_32_bit(vdso[1]) else _machine(vdso[1])
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


def _machine(vdso: bytes) -> str:
    """Return the architecture by the ELF header of the vdso (e_machine)."""
    return "aarch64" if vdso[18:20] == b"\xb7\x00" else "x86_64"


def _is_32_bit(vdso: bytes) -> bool:
    return vdso[4:5] == b"\x01"


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
        os.sched_setscheduler(
            0, os.SCHED_FIFO, os.sched_param(min(highest + 1, HIGHEST_PRIORITY))
        )
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


class Steering:
    """One thread, from its seizure until it goes on."""

    def __init__(self, pid: int, thread: Thread, vdso: tuple[int, bytes], options: int) -> None:
        self.pid = pid
        self.tid = thread.tid
        self.thread = thread
        self.vdso = vdso
        self.options = options
        self.held: list[int] = []
        self.entry = 0
        self.began_ns = 0
        self.asleep_since_ns = 0

    def make(self, starttime: int, wishes: Sequence[Wish]) -> Made:
        """Stop the thread, make the calls, let it go on; OSError where that cannot be."""
        self.asleep_since_ns = self._asleep_since()
        self._seize()
        stat = proc.StatReader(self.pid)
        if stat.read().starttime != starttime:
            raise ProcessLookupError(3, "its number means another process now")
        self._stop()
        try:
            before = self._look()
        except OSError:
            ptrace.detach(self.tid)
            raise
        results, took = self._steer(before, wishes)
        stopped_ns = time.monotonic_ns() - self.began_ns
        for signal in self.held:
            os.kill(self.pid, signal)
        return Made(self.tid, tuple(results), tuple(took), stopped_ns)

    # ---- chosen

    def _asleep_since(self) -> int:
        """Return since when (CLOCK_MONOTONIC ns) it sleeps in a call whose time we must mend.

        Its last moment and ours are by one clock if on one CPU. Now, where that is not known.
        """
        machine, call = _machine(self.vdso[1]), self.thread.call
        now = time.monotonic_ns()
        if _is_32_bit(self.vdso[1]) or call is None or not blocked.is_timed(machine, call):
            return now
        everywhere = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, (self.thread.cpu,))
            time.sleep(0.0001)  # to be put on that CPU anew, which sets our own moment
            here = blocked.parse_exec_start(proc.read_text(os.getpid(), "sched"))
            now = time.monotonic_ns()
            there = blocked.parse_exec_start(proc.read_text(self.pid, f"task/{self.tid}/sched"))
        except OSError:
            return now
        finally:
            os.sched_setaffinity(0, everywhere)
        return now if here is None or there is None else now - max(0, here - there)

    def _seize(self) -> None:
        """Begin to trace it; PermissionError, or Unfit where only the suspension is denied."""
        try:
            ptrace.seize(self.tid, self.options)
        except PermissionError:
            if not self.options & ptrace.O_SUSPEND_SECCOMP:
                raise
            ptrace.seize(self.tid, ptrace.O_TRACESYSGOOD)
            raise Unfit(0, "its seccomp filter, which could kill it for mlockall, can only be "
                           "suspended with CAP_SYS_ADMIN") from None  # fmt: skip

    # ---- stopped

    def _stop(self) -> None:
        """Interrupt it, and wait; a signal that it stops for first is delivered."""
        until = time.monotonic() + PATIENCE_S
        while True:
            self.began_ns = time.monotonic_ns()
            ptrace.interrupt(self.tid)
            stop = ptrace.await_stop(self.tid, until - time.monotonic())
            if stop is None:
                raise Stuck(self.tid, f"thread {self.tid} does not stop: nothing can wake it")
            if stop >> 8 == ptrace.EVENT_STOP:
                return
            ptrace.go_on(self.tid, stop & 0xFF)

    def _look(self) -> Registers:
        """Return its registers, having found the way into the kernel; Unfit where there is none."""
        before = tracee.parse_registers(ptrace.registers(self.tid))
        if before is None:
            raise Unfit(0, "its registers are of no architecture that is known here")
        if _known(ptrace.dispatches_calls, self.tid):
            raise Unfit(0, "its system calls are dispatched to itself (as under Wine)")
        start, code = self.vdso
        at = tracee.find_instruction(code, before.layout)
        if at < 0 or _is_32_bit(code) != (before.layout is tracee.I386):
            raise Unfit(0, "its vdso has no instruction that enters the kernel in its mode")
        self.entry = start + at
        return before

    # ---- steered

    def _steer(self, before: Registers, wishes: Sequence[Wish]) -> tuple[list[int], list[int]]:
        """Make the calls; whatever comes, put registers and mask back and let it go."""
        mask = ptrace.signal_mask(self.tid)
        results: list[int] = []
        took: list[int] = []
        try:
            ptrace.set_signal_mask(self.tid, ALL_BLOCKED)
            for name, arguments in wishes:
                began = time.monotonic_ns()
                results.append(self._call(before, name, arguments))
                took.append(time.monotonic_ns() - began)
                if tracee.errno_of(results[-1]):
                    break
        finally:
            after = tracee.pack_registers(self._mended(before))
            ptrace.set_registers(self.tid, after)
            ptrace.set_signal_mask(self.tid, mask)
            ptrace.detach(self.tid)
        return results, took

    def _call(self, before: Registers, name: str, arguments: Sequence[int | bytes]) -> int:
        """Make one system call; return its result."""
        numbers = [self._placed(before, each) for each in arguments]
        wanted = tracee.for_call(before, self.entry, name, numbers)
        ptrace.set_registers(self.tid, tracee.pack_registers(wanted))
        self._await_call()
        self._await_call()
        now = tracee.parse_registers(ptrace.registers(self.tid))
        assert now is not None
        return now.result

    def _placed(self, before: Registers, value: int | bytes) -> int:
        """Return a number as it is, of bytes the address that they were written to."""
        if isinstance(value, int):
            return value
        proc.write_memory(self.pid, self._scratch(before), value)
        return self._scratch(before)

    @staticmethod
    def _scratch(before: Registers) -> int:
        """Return an address below the stack pointer and its red zone."""
        return (before.sp - SCRATCH_BYTES) & -blocked.TIMESPEC_BYTES

    def _await_call(self) -> None:
        """Let it run into the call, or out of it; a SIGSTOP, which no mask holds, is kept."""
        while True:
            ptrace.to_call(self.tid)
            stop = ptrace.await_stop(self.tid) or 0
            if stop == ptrace.CALL_STOP:
                return
            if stop >> 8 == 0:
                self.held.append(stop & 0xFF)

    # ---- gone

    def _mended(self, before: Registers) -> Registers:
        """Return what it goes on with: a call that fails for our stop alone is made anew.

        Not if a signal waits that the program catches: then EINTR is meant. A thread that was
        stopped inside a restartable sequence is sent to its abort handler, as the kernel would.
        """
        if blocked.in_call(before) < 0:
            return self._out_of_sequence(before)
        how = blocked.to_make_anew(before)
        try:
            if how is None or self._is_signalled():
                return before
            return blocked.made_anew(self._shortened(before, how))
        except OSError:  # it ends
            return before

    def _shortened(self, before: Registers, how: blocked.Timed) -> Registers:
        """Return the registers of the call with what is left of its time."""
        slept_ns = time.monotonic_ns() - self.asleep_since_ns
        if how.form == MILLISECONDS:
            left = blocked.left_ms(blocked.argument(before, how.argument) % (1 << 32), slept_ns)
            return blocked.with_argument(before, how.argument, left)
        address = blocked.argument(before, how.argument) if how.form == TIMESPEC else 0
        if not address:
            return before
        scratch = self._scratch(before)
        try:
            raw = proc.read_memory(self.pid, address, blocked.TIMESPEC_BYTES)
            proc.write_memory(self.pid, scratch, blocked.left_timespec(raw, slept_ns))
        except OSError:  # a stack of less than that: its time begins anew
            return before
        return blocked.with_argument(before, how.argument, scratch)

    def _is_signalled(self) -> bool:
        """Tell whether a signal is pending that has a handler and is not blocked."""
        text = proc.read_text(self.pid, f"task/{self.tid}/status")
        rows = dict(line.partition(":")[::2] for line in text.splitlines())
        pending, shared, masked, caught = (
            int(rows[name], 16) for name in ("SigPnd", "ShdPnd", "SigBlk", "SigCgt")
        )
        return bool((pending | shared) & caught & ~masked)

    def _out_of_sequence(self, before: Registers) -> Registers:
        """Return the registers, at the abort handler if it was inside a restartable sequence."""
        area = _known(ptrace.rseq_area, self.tid)
        if not area:
            return before
        try:
            pointer = proc.read_memory(self.pid, area + blocked.RSEQ_CS_OFFSET, 8)
            where = int.from_bytes(pointer, "little")
            critical = proc.read_memory(self.pid, where, blocked.RSEQ_CS_BYTES) if where else b""
        except OSError:
            return before
        abort = blocked.abort_of(critical, before.pc) if critical else None
        return before if abort is None else blocked.changed(before, before.layout.pc, abort)


def _known(ask: Callable[[int], int], tid: int) -> int:
    """Ask what older kernels do not know; a no then."""
    try:
        return ask(tid)
    except OSError:
        return 0


# --- refusals --------------------------------------------------------------------------------


def refused(pid: int, error: OSError) -> Finding:
    """Return the finding for a process that could not be stopped, or not be made to enter."""
    if isinstance(error, (FileNotFoundError, ProcessLookupError)):
        return gone(pid, str(error.strerror or "it ended"))
    if isinstance(error, PermissionError):
        return _denied(pid, error)
    if isinstance(error, Stuck):
        return _failed(pid, str(error.strerror), stuck=error.errno)
    return _failed(pid, str(error.strerror or error))


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
    yama = _yama()
    if status.tracer:
        what = f"pid {status.tracer} traces it already"
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
        values={"pid": pid, "errno": error.errno, "tracer": status.tracer, "ptrace_scope": yama},
    )


def _yama() -> int:
    """Return kernel.yama.ptrace_scope, 0 without yama."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0
