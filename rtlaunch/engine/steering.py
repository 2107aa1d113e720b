"""One thread of a process that runs already: stopped, made to enter the kernel, and put back.

It knows how a thread is left as if nothing had been: docs/decisions/0042. Who is stopped, and in
which process of ours all this is done, is :mod:`rtlaunch.engine.attach`'s. Whatever fails, the
thread is let go as it was.
"""

from __future__ import annotations

import os
import time

from rtlaunch.core import blocked, tracee
from rtlaunch.core.blocked import MILLISECONDS, TIMESPEC, Thread
from rtlaunch.core.proc import parse_stat
from rtlaunch.core.record import Record
from rtlaunch.linux import proc, ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rtlaunch.core.tracee import Registers

ALL_BLOCKED = b"\xff" * ptrace.SIGNAL_SET_BYTES
PATIENCE_S = 1.0  # for one thread to stop: one in vfork(2), or on a dead disk, does not
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
        self.looked_ns = 0
        self.asleep_since_ns = 0
        self.sleeps = -1

    def make(self, starttime: int, wishes: Sequence[Wish]) -> Made:
        """Stop the thread, make the calls, let it go on; OSError where that cannot be."""
        self.looked_ns = time.monotonic_ns()
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
        machine, call = machine_of(self.vdso[1]), self.thread.call
        now = time.monotonic_ns()
        if is_32_bit(self.vdso[1]) or call is None or not blocked.is_timed(machine, call):
            return now
        everywhere = os.sched_getaffinity(0)
        try:
            self.sleeps = self._sleeps()
            stat = parse_stat(proc.read_text(self.pid, f"task/{self.tid}/stat"))
            os.sched_setaffinity(0, (stat.processor,))
            time.sleep(0.0001)  # to be put on that CPU anew, which sets our own moment
            here = blocked.parse_exec_start(proc.read_text(os.getpid(), "sched"))
            now = time.monotonic_ns()
            there = blocked.parse_exec_start(proc.read_text(self.pid, f"task/{self.tid}/sched"))
        except OSError:
            return now
        finally:
            os.sched_setaffinity(0, everywhere)
        return now if here is None or there is None else now - max(0, here - there)

    def _sleeps(self) -> int:
        """Return how often it has gone to sleep so far."""
        return blocked.parse_sleeps(proc.read_text(self.pid, f"task/{self.tid}/status"))

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
                break
            ptrace.go_on(self.tid, stop & 0xFF)
        if self.sleeps >= 0 and self._sleeps() != self.sleeps + 1:  # but for this stop
            self.asleep_since_ns = self.looked_ns  # it has been awake meanwhile

    def _look(self) -> Registers:
        """Return its registers, having found the way into the kernel; Unfit where there is none."""
        before = tracee.parse_registers(ptrace.registers(self.tid))
        if before is None:
            raise Unfit(0, "its registers are of no architecture that is known here")
        if _known(ptrace.dispatches_calls, self.tid):
            raise Unfit(0, "its system calls are dispatched to itself (as under Wine)")
        start, code = self.vdso
        at = tracee.find_instruction(code, before.layout)
        if at < 0 or is_32_bit(code) != (before.layout is tracee.I386):
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
            ptrace.to_system_call(self.tid)
            stop = ptrace.await_stop(self.tid) or 0
            if stop == ptrace.SYSCALL_STOP:
                return
            if stop >> 8 == 0:
                self.held.append(stop & 0xFF)

    # ---- gone

    def _mended(self, before: Registers) -> Registers:
        """Return what it goes on with, which is what was, but for the times of a call.

        A call that fails for our stop alone is made anew, unless a signal waits that the program
        catches: then EINTR is meant. A thread that was stopped inside a restartable sequence is
        sent to its abort handler, as the kernel would do.
        """
        if blocked.in_call(before) < 0:
            return self._out_of_sequence(before)
        try:
            written = blocked.written_back(before)
            if written:
                self._write_back(before, written)
            how = blocked.to_make_anew(before)
            if how is None or self._is_signalled():
                return before
            return blocked.made_anew(self._shortened(before, how))
        except OSError:  # it ends
            return before

    def _write_back(self, before: Registers, how: blocked.Timed) -> None:
        """Shorten, by the stop, what the kernel has written back of a call's time."""
        address = blocked.argument(before, how.argument)
        if address:
            stopped_ns = time.monotonic_ns() - self.began_ns
            raw = proc.read_memory(self.pid, address, blocked.TIMESPEC_BYTES)
            left = blocked.left_timespec(raw, stopped_ns, how.form)
            proc.write_memory(self.pid, address, left)

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


def machine_of(vdso: bytes) -> str:
    """Return the architecture by the ELF header of the vdso (e_machine)."""
    return "aarch64" if vdso[18:20] == b"\xb7\x00" else "x86_64"


def is_32_bit(vdso: bytes) -> bool:
    """Tell whether the vdso is that of a 32-bit program (ELFCLASS32)."""
    return vdso[4:5] == b"\x01"


def _known(ask: Callable[[int], int], tid: int) -> int:
    """Ask what older kernels do not know; a no then."""
    try:
        return ask(tid)
    except OSError:
        return 0
