"""The words for sizes, times, CPUs, signals, capabilities, limits: read, refused, written back."""

import os
import resource
import signal

import prctl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import units

PARSERS = [
    units.parse_count,
    units.parse_size,
    units.parse_time,
    units.parse_cpus,
    units.parse_signal,
    units.parse_capability,
    units.parse_rlimit_name,
    units.parse_rlimit_value,
    units.parse_policy,
]


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text() | st.text(alphabet="0123456789-,+KMGTnmus:=RTMINAX_"))
def test_any_text_is_read_or_refused_in_one_short_line(parse, text):
    """Whatever is typed, a parser answers with a value or a ValueError that fits a terminal."""
    try:
        parse(text)
    except ValueError as error:
        assert len(str(error)) < 400
        assert "\n" not in str(error)


# --- sizes and times -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("512K", 2**19), ("8m", 2**23), ("2G", 2**31), ("1T", 2**40),
     ("007", 7), ("9223372036854775807", 2**63 - 1)],
)  # fmt: skip
def test_sizes_are_binary(text, size):
    """K, M, G, T are powers of 1024, in either case; without a unit it is bytes."""
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "12Q", "-1", "+1", "1.5G", "1_000", " 1", "1 K", "0x10", "512KB", "٣", "1K\n"]
)
def test_what_is_no_size_is_refused_with_the_units(text):
    """The message quotes the text and says what a size looks like."""
    with pytest.raises(ValueError, match="is no size: use bytes, or K, M, G, T"):
        units.parse_size(text)


@pytest.mark.parametrize("text", ["9223372036854775808", "8388608T", "9" * 5000])
def test_a_size_past_the_kernels_largest_is_refused(text):
    """2^63 and more overflow an rlimit, however many digits it has."""
    with pytest.raises(ValueError, match=r"too large a size: the most is 2\^63-1"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "time_ns"), [("1ns", 1), ("50us", 50_000), ("10ms", 10**7), ("2s", 2 * 10**9)]
)
def test_times_are_nanoseconds(text, time_ns):
    """Each unit of the contract is read into nanoseconds."""
    assert units.parse_time(text) == time_ns


@pytest.mark.parametrize("text", ["", "5", "us", "-5ms", "1.5s", "5m", "5 s", "5S"])
def test_a_time_needs_a_whole_number_and_a_unit(text):
    """A bare number could be anything, so it is refused with the units that there are."""
    with pytest.raises(ValueError, match="is no time: use a whole number with ns, us, ms or s"):
        units.parse_time(text)


@given(st.integers(0, units.LARGEST))
def test_a_size_that_was_written_is_read_back(size):
    """spell_size loses nothing."""
    assert units.parse_size(units.spell_size(size)) == size


@given(st.integers(0, units.LARGEST))
def test_a_time_that_was_written_is_read_back(time_ns):
    """spell_time loses nothing."""
    assert units.parse_time(units.spell_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (2**19, "512 KiB"), (2**23, "8 MiB"),
     (603928 * 1024, "589.8 MiB"), (-1, "unlimited")],
)  # fmt: skip
def test_sizes_in_messages_have_binary_units(size, shown):
    """A person reads KiB, MiB, GiB; no limit is the word for it."""
    assert units.format_size(size) == shown


@pytest.mark.parametrize(
    ("time_ns", "shown"),
    [(0, "0 ns"), (50_000, "50 us"), (1_500_000, "1.5 ms"), (2 * 10**9, "2 s")],
)
def test_times_in_messages_have_the_largest_unit_that_they_fill(time_ns, shown):
    """A person reads 1.5 ms, not 1500000 ns."""
    assert units.format_time(time_ns) == shown


def test_a_limit_in_a_message_has_its_own_unit():
    """Bytes for memlock, a count for nofile, and no limit is not -1 to a person."""
    assert units.format_limit("memlock", 2**23) == "8 MiB"
    assert units.format_limit("nofile", 1024) == "1024"
    assert units.format_limit("nofile", -1) == "unlimited"


@pytest.mark.parametrize("text", ["", "x", "1_0", "٣", "--5", "5-", "20", "-21", "9" * 30])
def test_an_integer_out_of_range_is_refused_with_the_range(text):
    """The message has both ends."""
    with pytest.raises(ValueError, match="is no nice value: use a whole number from -20 to 19"):
        units.parse_integer(text, -20, 19, "nice value")


# --- CPUs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", (0,)), ("0,2-3", (0, 2, 3)), ("3,1-2,2", (1, 2, 3)), ("5-5", (5,))]
)
def test_a_cpu_list_is_ascending_and_without_repeats(text, cpus):
    """Numbers and ranges, in any order, become each CPU once."""
    assert units.parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", ",", "0,", "1-", "-1", "3-2", "a", "0-9999999999", "8192"])
def test_what_is_no_cpu_list_is_refused(text):
    """An empty item, a range backwards, a CPU no kernel can have: none of it is guessed at."""
    with pytest.raises(ValueError, match=r"CPU|empty item"):
        units.parse_cpus(text)


@given(st.sets(st.integers(0, units.LAST_CPU), min_size=1))
def test_a_cpu_list_that_was_written_is_read_back(cpus):
    """format_cpus loses nothing."""
    assert units.parse_cpus(units.format_cpus(cpus)) == tuple(sorted(cpus))


# --- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("member", list(signal.Signals), ids=lambda member: member.name)
def test_every_signal_of_this_machine_is_known_by_its_name(member):
    """The table has the kernel's numbers."""
    assert units.parse_signal(member.name) == member.value


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("term", 15), ("SIGTERM", 15), ("15", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63),
     ("RTMAX", 64), ("64", 64), ("POLL", 29)],
)  # fmt: skip
def test_signals_are_read_by_name_and_number(text, number):
    """With SIG or without, in either case, real-time ones by their offset."""
    assert units.parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "32", "33", "65", "-1", "SIG", "RTMIN+31", "RTMIN-1", "RTMAX-31", "1.5", "²"]
)
def test_what_is_no_signal_is_refused(text):
    """Nor are 32 and 33 signals for us: the C library's threads have them."""
    with pytest.raises(ValueError, match="is no signal: use a name such as TERM"):
        units.parse_signal(text)


def test_a_signal_that_was_mistyped_is_suggested():
    """Two letters swapped are one mistake."""
    with pytest.raises(ValueError, match=r"did you mean TERM\?"):
        units.parse_signal("TREM")


@pytest.mark.parametrize("number", [*range(1, 32), *range(34, 65)])
def test_a_signals_name_is_read_back(number):
    """Each signal has one name, and that name is the signal."""
    assert units.parse_signal(units.signal_name(number)) == number


# --- capabilities, limits, policies ----------------------------------------------------------


def test_there_are_the_41_capabilities_of_the_kernel():
    """CAP_CHECKPOINT_RESTORE, 40, is the last of them."""
    assert len(units.CAPABILITIES) == 41
    assert units.CAPABILITY_NUMBERS["checkpoint_restore"] == 40


def test_capabilities_have_the_numbers_that_python_prctl_has():
    """Two tables of different authors agree."""
    theirs = {
        name.removeprefix("CAP_").lower(): value
        for name, value in vars(prctl).items()
        if name.startswith("CAP_") and name.removeprefix("CAP_").lower() in units.CAPABILITIES
    }
    assert len(theirs) > 30
    assert theirs == {name: units.CAPABILITY_NUMBERS[name] for name in theirs}


@pytest.mark.parametrize("text", ["ipc_lock", "IPC_LOCK", "CAP_IPC_LOCK", "cap_ipc_lock"])
def test_a_capability_is_read_with_and_without_its_prefix(text):
    """Both spellings of the contract, in either case."""
    assert units.parse_capability(text) == "ipc_lock"


def test_an_unknown_capability_is_refused_with_the_near_name():
    """The message names the one that was probably meant."""
    with pytest.raises(ValueError, match=r"did you mean ipc_lock\?"):
        units.parse_capability("CAP_IPC_LOK")


def test_the_bits_of_a_mask_are_named():
    """CapEff of /proc/PID/status in words; a bit newer than the table keeps its number."""
    assert units.capability_names(1 << 14 | 1 << 23 | 1 << 50) == ("ipc_lock", "sys_nice", "cap_50")


def test_limits_have_the_kernels_numbers():
    """All 16, as the resource module of this machine has them."""
    assert len(units.RLIMITS) == 16
    for name, number in units.RLIMIT_NUMBERS.items():
        if name != "locks":  # RLIMIT_LOCKS does nothing since Linux 2.4.25; Python left it out
            assert getattr(resource, f"RLIMIT_{name.upper()}") == number


def test_unlimited_is_what_the_resource_module_calls_it():
    """A parsed value can be handed to setrlimit as it is."""
    assert units.parse_rlimit_value("unlimited") == units.UNLIMITED == resource.RLIM_INFINITY


def test_policies_have_the_kernels_numbers():
    """As the os module of this machine has them."""
    for name, number in units.SCHED_POLICIES.items():
        assert getattr(os, f"SCHED_{name.upper()}") == number


def test_deadline_is_refused_with_its_reason():
    """It is a policy, but not one that can be given to any program."""
    with pytest.raises(ValueError, match="runtime and a period, and forbids fork"):
        units.parse_policy("deadline")


# --- near names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meant"),
    [("memlok", "memlock"), ("mmelock", "memlock"), ("mem", "memlock"), ("modes", "mode"),
     ("xyzzy", ""), ("", ""), ("m", "")],
)  # fmt: skip
def test_the_near_name_is_the_one_that_was_meant(word, meant):
    """One mistake in three letters, or the beginning of a single name; else nothing."""
    assert units.near(word, ["memlock", "mode", "report"]) == meant


@given(st.text(max_size=8), st.text(max_size=8))
def test_the_distance_of_two_words_is_the_same_both_ways(one, other):
    """It is 0 for equal words alone, and never more than the longer word's length."""
    distance = units.distance(one, other)
    assert distance == units.distance(other, one)
    assert (distance == 0) == (one == other)
    assert distance <= max(len(one), len(other))
