"""What is put back into a thread that was stopped inside a system call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import blocked, tracee
from rtlaunch.core.blocked import Call, Thread
from rtlaunch.core.tracee import I386, X86_64, Registers

MS = 10**6


def registers(layout=X86_64, **named: int) -> Registers:
    values = [0] * layout.count
    for name, value in named.items():
        values[getattr(layout, name)] = value % (1 << 8 * layout.word_bytes)
    return Registers(layout, tuple(values))


# --- /proc/PID/task/TID/syscall --------------------------------------------------------------


def test_a_sleeper_shows_its_call():
    """Number, arguments, stack pointer and program counter, as proc(5) has them."""
    text = "232 0x4 0x7ff0 0x1 0xffffffff 0x0 0x8 0x7ffce496fc78 0x7faf5a85c2ad\n"
    call = blocked.parse_call(text)
    assert call == Call(232, (4, 0x7FF0, 1, 0xFFFFFFFF, 0, 8), 0x7FFCE496FC78, 0x7FAF5A85C2AD)


@pytest.mark.parametrize("text", ["running\n", ""])
def test_a_thread_that_runs_shows_none(text):
    """There is no call to tell of."""
    assert blocked.parse_call(text) is None


def test_a_thread_that_faults_is_in_no_call():
    """-1 means blocked, and in no system call."""
    assert blocked.parse_call("-1 0x7ffc 0x55e0\n") == Call(-1, (), 0x7FFC, 0x55E0)


# --- whom to stop ----------------------------------------------------------------------------


def test_who_is_harmed_least_is_stopped_first():
    """A restartable sleep, then running, then EINTR without a time, with one, and state D."""
    read_timer = Call(35, (0,) * 6, 0, 0)  # nanosleep
    forever = Call(232, (0, 0, 0, 0xFFFFFFFF, 0, 0), 0, 0)
    timed = Call(232, (0, 0, 0, 100, 0, 0), 0, 0)
    order = [
        Thread(9, "S", read_timer, False, 0),
        Thread(3, "S", read_timer, True, 0),
        Thread(4, "R", None, False, 0),
        Thread(5, "S", forever, False, 0),
        Thread(6, "S", timed, False, 0),
        Thread(1, "D", read_timer, False, 0),
    ]
    mixed = [*order[3:], *order[:3]]
    found = sorted(mixed, key=lambda thread: blocked.by_harm("x86_64", thread))
    assert found == order


def test_a_time_behind_a_null_pointer_has_no_end():
    """sigtimedwait without a timeout waits for ever."""
    assert not blocked.is_timed("x86_64", Call(128, (0,) * 6, 0, 0))
    assert blocked.is_timed("x86_64", Call(128, (0, 0, 0x7FFC, 0, 0, 0), 0, 0))


# --- registers -------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "number"), [(X86_64, 232), (I386, 256)])
def test_a_call_that_fails_for_the_stop_alone_is_made_anew(layout, number):
    """EINTR of epoll_wait becomes what makes the kernel call it once more."""
    found = registers(layout, original=number, result=-blocked.EINTR)
    assert blocked.to_make_anew(found) == blocked.Timed(blocked.MILLISECONDS, 3)
    assert blocked.made_anew(found).result == -blocked.ERESTARTNOINTR


@pytest.mark.parametrize(
    ("number", "result"),
    [
        (232, 0),  # it was ready
        (232, -9),  # EBADF
        (35, -516),  # nanosleep: the kernel's own restart
        (3, -4),  # close(2) has closed already
        (-1, -4),  # in no call
    ],
)
def test_every_other_result_is_left_as_it_is(number, result):
    """Only calls that do nothing before they fail with EINTR are made again."""
    assert blocked.to_make_anew(registers(original=number, result=result)) is None


def test_an_argument_is_changed_and_nothing_else():
    """The rest of the registers stays."""
    before = registers(original=232, sp=0x7FFC)
    after = blocked.with_argument(before, 3, 17)
    assert blocked.argument(after, 3) == 17
    differing = [at for at in range(27) if before.values[at] != after.values[at]]
    assert differing == [X86_64.arguments[3]]


def test_what_is_put_back_is_what_was_read():
    """Registers survive being parsed and packed."""
    raw = bytes(range(216))
    parsed = tracee.parse_registers(raw)
    assert parsed is not None
    assert tracee.pack_registers(parsed) == raw


# --- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "slept_ns", "left"),
    [(2000, 0, 2000), (2000, 1, 2000), (2000, 700 * MS, 1300), (5, 9 * MS, 0),
     (0xFFFFFFFF, 5, 0xFFFFFFFF)],
)  # fmt: skip
def test_what_is_left_of_milliseconds_is_rounded_up(value, slept_ns, left):
    """Never too early; -1 has no end."""
    assert blocked.left_ms(value, slept_ns) == left


@given(st.integers(0, 2**62), st.integers(0, 10**9 - 1), st.integers(0, 2**62))
def test_what_is_left_of_a_timespec_is_exact(seconds, ns, slept_ns):
    """Nanoseconds stay below a second, and nothing goes below zero."""
    raw = seconds.to_bytes(8, "little") + ns.to_bytes(8, "little")
    left = blocked.left_timespec(raw, slept_ns)
    found = [int.from_bytes(left[at : at + 8], "little") for at in (0, 8)]
    assert found[1] < 10**9
    assert found[0] * 10**9 + found[1] == max(0, seconds * 10**9 + ns - slept_ns)


def test_what_is_left_of_a_timeval_is_rounded_up_and_carried():
    """A timeval counts microseconds, and never a million of them."""
    raw = (1).to_bytes(8, "little") + (999_999).to_bytes(8, "little")
    left = blocked.left_timespec(raw, 1_000_000_999, blocked.TIMEVAL)
    assert [int.from_bytes(left[at : at + 8], "little") for at in (0, 8)] == [0, 999_999]
    assert blocked.left_timespec(raw, 0, blocked.TIMEVAL) == raw


def test_what_the_kernel_wrote_back_is_known_by_the_result():
    """ppoll that is to be restarted has its remaining time in memory; one that ended has not."""
    stopped = registers(original=271, result=-blocked.ERESTARTNOHAND)
    assert blocked.written_back(stopped) == blocked.Timed(blocked.TIMESPEC, 2)
    assert blocked.written_back(registers(original=271, result=0)) is None


def test_how_often_a_thread_slept_is_read():
    """Only the voluntary switches count, and an unknown number is no 0."""
    text = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t7\n"
    assert blocked.parse_sleeps(text) == 150
    assert blocked.parse_sleeps("nonvoluntary_ctxt_switches:\t7\n") == -1


def test_the_last_moment_on_a_cpu_is_read_in_ns():
    """/proc/PID/sched has milliseconds with six decimals."""
    text = (
        "cat (1, #threads: 1)\n-----\nse.exec_start   :      17711415.593036\nse.vruntime : 3.5\n"
    )
    assert blocked.parse_exec_start(text) == 17711415593036
    assert blocked.parse_exec_start("nothing") is None


# --- restartable sequences -------------------------------------------------------------------


@pytest.mark.parametrize(("pc", "abort"), [(0xFFF, None), (0x1000, 0x9000), (0x101F, 0x9000),
                                           (0x1020, None)])  # fmt: skip
def test_a_thread_inside_a_sequence_goes_to_its_abort_handler(pc, abort):
    """From its start up to its commit, and not after."""
    words = (0, 0x1000, 0x20, 0x9000)
    critical = b"".join(word.to_bytes(8, "little") for word in words)
    assert blocked.abort_of(critical, pc) == abort
