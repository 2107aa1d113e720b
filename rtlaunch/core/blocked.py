"""A thread that is stopped inside a system call: whom to stop best, and how the call goes on.

Most calls are restarted by the kernel itself once the registers are as they were (-ERESTARTSYS
and its like in the result). Some fail with EINTR even if no signal came: signal(7), "Interruption
of system calls by stop signals". Those are made anew here, with what is left of their time.

Pure: texts and numbers in, registers out. Who stops the thread is :mod:`rtlaunch.engine.attach`.
"""

from __future__ import annotations

from rtlaunch.core.record import Record
from rtlaunch.core.tracee import Registers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EINTR = 4
ERESTARTNOINTR = 513  # include/linux/errno.h: made anew by the kernel, whatever comes
ERESTARTNOHAND = 514  # ... unless a handler runs

MILLISECONDS, TIMESPEC, TIMEVAL, UNTIMED = "ms", "timespec", "timeval", ""
NS_PER_US, NS_PER_MS, NS_PER_S = 10**3, 10**6, 10**9
TIMESPEC_BYTES = 16  # and a struct timeval, of 64-bit words


class Timed(Record):
    """How long a call may block: which argument says so, and how; ``UNTIMED`` if none does."""

    form: str = UNTIMED
    argument: int = 0


_UNTIMED = Timed()

# Calls that give EINTR after a mere stop: by number, for each architecture. Transfers do so on a
# socket with SO_RCVTIMEO or SO_SNDTIMEO, whose time begins anew.
ANEW: dict[str, Mapping[int, Timed]] = {
    "x86_64": {
        232: Timed(MILLISECONDS, 3),  # epoll_wait
        281: Timed(MILLISECONDS, 3),  # epoll_pwait
        441: Timed(TIMESPEC, 3),  # epoll_pwait2
        128: Timed(TIMESPEC, 2),  # rt_sigtimedwait
        220: Timed(TIMESPEC, 3),  # semtimedop
        208: Timed(TIMESPEC, 4),  # io_getevents
        333: Timed(TIMESPEC, 4),  # io_pgetevents
        # semop, io_uring_enter, read, write, readv, writev, connect, accept, accept4, sendto,
        # recvfrom, sendmsg, recvmsg
        **dict.fromkeys((65, 426, 0, 1, 19, 20, 42, 43, 288, 44, 45, 46, 47), _UNTIMED),
    },
    "i386": {
        256: Timed(MILLISECONDS, 3),  # epoll_wait
        319: Timed(MILLISECONDS, 3),  # epoll_pwait
        # epoll_pwait2, rt_sigtimedwait and its 64-bit form, ipc, semtimedop_time64, io_getevents,
        # io_uring_enter, read, write, readv, writev, socketcall, connect, accept4, sendto, sendmsg,
        # recvfrom, recvmsg
        **dict.fromkeys(
            (441, 177, 421, 117, 420, 247, 426, 3, 4, 145, 146, 102, 362, 364, 369, 370, 371, 372),
            _UNTIMED,
        ),
    },
    "aarch64": {
        22: Timed(MILLISECONDS, 3),  # epoll_pwait
        441: Timed(TIMESPEC, 3),  # epoll_pwait2
        137: Timed(TIMESPEC, 2),  # rt_sigtimedwait
        192: Timed(TIMESPEC, 3),  # semtimedop
        4: Timed(TIMESPEC, 4),  # io_getevents
        292: Timed(TIMESPEC, 4),  # io_pgetevents
        # semop, io_uring_enter, read, write, readv, writev, connect, accept, accept4, sendto,
        # recvfrom, sendmsg, recvmsg
        **dict.fromkeys((193, 426, 63, 64, 65, 66, 203, 202, 242, 206, 207, 211, 212), _UNTIMED),
    },
}

# Calls for which the kernel itself has written what is left of their time to where it came from
# (fs/select.c, poll_select_finish), before the stop: select, pselect6, ppoll; pselect6, ppoll.
WRITTEN_BACK: dict[str, Mapping[int, Timed]] = {
    "x86_64": {23: Timed(TIMEVAL, 4), 270: Timed(TIMESPEC, 4), 271: Timed(TIMESPEC, 2)},
    "i386": {413: Timed(TIMESPEC, 4), 414: Timed(TIMESPEC, 2)},
    "aarch64": {},
}


class Call(Record):
    """What /proc/PID/task/TID/syscall says of a thread that sleeps; ``number`` -1 in no call."""

    number: int
    arguments: tuple[int, ...]
    sp: int
    pc: int


class Thread(Record):
    """A thread as it is found: its state's letter, its call if it sleeps in one, real-time or not.

    ``cpu`` is the one that it ran on last.
    """

    tid: int
    state: str
    call: Call | None
    realtime: bool
    cpu: int


_FIELDS = 9  # number, six arguments, sp, pc
_OUTSIDE = 3  # -1, sp, pc


def parse_call(text: str) -> Call | None:
    """Parse /proc/PID/task/TID/syscall (proc(5)); None where the thread runs."""
    words = text.split()
    if len(words) not in (_FIELDS, _OUTSIDE):
        return None
    numbers = [int(word, 0) for word in words]
    return Call(numbers[0], tuple(numbers[1:-2]), numbers[-2], numbers[-1])


def anew(machine: str, number: int) -> Timed | None:
    """Return how call ``number`` is timed if a mere stop makes it fail with EINTR, else None."""
    return ANEW[machine].get(number)


def is_timed(machine: str, call: Call) -> bool:
    """Tell whether a call of :data:`ANEW` ends by itself."""
    how = anew(machine, call.number)
    if how is None or how.form == UNTIMED:
        return False
    value = call.arguments[how.argument]
    return value & 1 << 31 == 0 if how.form == MILLISECONDS else value != 0


def by_harm(machine: str, thread: Thread) -> tuple[int, bool, int]:
    """Return the sorting key for whom to stop: who loses least comes first.

    A sleeper in a call that the kernel itself restarts notices nothing. Real-time threads come
    after their like, threads that may not stop at all for long (state D) last.
    """
    if thread.state in "DZX":
        rank = 4
    elif thread.call is None or thread.call.number < 0:
        rank = 1
    elif anew(machine, thread.call.number) is None:
        rank = 0
    else:
        rank = 3 if is_timed(machine, thread.call) else 2
    return rank, thread.realtime, thread.tid


# --- registers -------------------------------------------------------------------------------


def in_call(registers: Registers) -> int:
    """Return the number of the call that the thread was stopped in, -1 for none (x86)."""
    layout = registers.layout
    if layout.original < 0:
        return -1
    value = registers.values[layout.original]
    return -1 if value == (1 << 8 * layout.word_bytes) - 1 else value


def to_make_anew(registers: Registers) -> Timed | None:
    """Return how the call is timed that fails with EINTR for the stop alone; None if none does."""
    if registers.result != -EINTR:
        return None
    return anew(registers.layout.machine, in_call(registers))


def written_back(registers: Registers) -> Timed | None:
    """Return where the kernel has left what remains of the call's time; None if nowhere."""
    if registers.result != -ERESTARTNOHAND:
        return None
    return WRITTEN_BACK[registers.layout.machine].get(in_call(registers))


def made_anew(registers: Registers) -> Registers:
    """Return the registers with which the kernel makes the call once more (x86)."""
    return changed(registers, registers.layout.result, -ERESTARTNOINTR)


def argument(registers: Registers, index: int) -> int:
    """Return an argument of the call."""
    return registers.values[registers.layout.arguments[index]]


def with_argument(registers: Registers, index: int, value: int) -> Registers:
    """Return the registers with another argument."""
    return changed(registers, registers.layout.arguments[index], value)


def changed(registers: Registers, index: int, value: int) -> Registers:
    """Return the registers with one of them changed."""
    values = list(registers.values)
    values[index] = value % (1 << 8 * registers.layout.word_bytes)
    return Registers(registers.layout, tuple(values))


# --- what is left of a time ------------------------------------------------------------------


def left_ms(value: int, slept_ns: int) -> int:
    """Return what is left of a time in ms, rounded up; a negative one has no end and stays."""
    if value & 1 << 31:
        return value
    return max(0, -(-((value & 0x7FFFFFFF) * NS_PER_MS - slept_ns) // NS_PER_MS))


def left_timespec(raw: bytes, slept_ns: int, form: str = TIMESPEC) -> bytes:
    """Return what is left of a struct timespec, or timeval, of 64-bit words."""
    unit_ns = NS_PER_US if form == TIMEVAL else 1
    seconds, parts = (int.from_bytes(raw[at : at + 8], "little", signed=True) for at in (0, 8))
    left_units = -(-max(0, seconds * NS_PER_S + parts * unit_ns - slept_ns) // unit_ns)
    left = divmod(left_units, NS_PER_S // unit_ns)
    return b"".join(part.to_bytes(8, "little", signed=True) for part in left)


def parse_exec_start(text: str) -> int | None:
    """Return when a thread last ran, in ns of its CPU's own clock (/proc/PID/task/TID/sched)."""
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if name.strip() == "se.exec_start":
            whole, _, fraction = value.strip().partition(".")
            return int(whole) * NS_PER_MS + int(fraction.ljust(6, "0")[:6] or 0)
    return None


def parse_sleeps(text: str) -> int:
    """Return how often a thread went to sleep by itself (/proc/PID/task/TID/status); -1 unknown."""
    _, found, rest = text.partition("\nvoluntary_ctxt_switches:")
    return int(rest.split(None, 1)[0]) if found else -1


# --- restartable sequences (rseq(2), include/uapi/linux/rseq.h) ------------------------------

RSEQ_CS_OFFSET = 8
RSEQ_CS_BYTES = 32


def abort_of(critical: bytes, pc: int) -> int | None:
    """Return where a thread at ``pc`` must go on if that is inside the critical section, else None.

    The kernel sends it there when it is preempted; it cannot know of a stop under another pc.
    """
    start, length, abort = (int.from_bytes(critical[at : at + 8], "little") for at in (8, 16, 24))
    return abort if 0 <= pc - start < length else None
