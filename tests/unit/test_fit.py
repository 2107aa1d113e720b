"""What is made of samples: peaks, needs, recommendations, and how they are shown and written."""

from __future__ import annotations

import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import fit, fitting, proc, settings
from rtlaunch.core.options import CLI, Fitted, LimitDemand, Options
from rtlaunch.core.profile import read_profile
from rtlaunch.core.record import replace
from rtlaunch.report import fit as report

KIB, MIB = 1 << 10, 1 << 20
PAGE = 4096
TOP = 0x7F0000000000


def mapping(start: int, size: int, **fields: object) -> proc.Mapping:
    known = {"perms": "rw-p", "offset": 0, "dev": "00:00", "inode": 0, "path": "", **fields}
    return proc.Mapping(start=start, end=start + size, **known)


def status(**fields: int) -> proc.Status:
    return proc.Status(
        name="x", state="S", pid=1, ppid=0, uids=(0,) * 4, gids=(0,) * 4, **fields
    )  # fmt: skip


def sample(**fields: object) -> fit.Sample:
    known = {
        "mapped": 10 * MIB, "locked": 10 * MIB, "populated": 8 * MIB, "resident": 5 * MIB,
        "threads": 1, "main_stack": 132 * KIB, "main_depth": 12 * KIB,
    }  # fmt: skip
    return fit.Sample(**{**known, **fields})


def stacks(count: int, depth: int = 20 * KIB, default: bool = True) -> tuple[fit.Stack, ...]:
    return tuple(fit.Stack(TOP + at, 2 * MIB, depth, default) for at in range(count))


def course(*samples: fit.Sample) -> fit.Course:
    made = fit.Course()
    for each in samples:
        made.add(each)
    return made


CHOICE = fitting.Choice(prefault=True, usual_stack=8 * MIB, thread_stack=2 * MIB, arenas=1)


def advise(found: fit.Course, choice: fitting.Choice = CHOICE, runtime: str = "", **options):
    return fitting.advise(found, Options(**options), choice, runtime)


# --- looking ---------------------------------------------------------------------------------


def look(*mappings: proc.Mapping, **place: object) -> fit.Sample:
    known = {"page": PAGE, "thread_stack": 8 * MIB, **place}
    return fit.look(status(vm_size=1, threads=1), mappings, fit.Place(**known))


def test_what_no_access_is_allowed_to_is_locked_and_not_in_memory():
    """PROT_NONE is charged whole, and has no page."""
    seen = look(mapping(0, 8 * MIB), mapping(TOP, 64 * MIB, perms="---p"))
    assert (seen.locked, seen.populated, seen.resident) == (72 * MIB, 8 * MIB, 0)


def test_what_mlock_passes_over_is_neither():
    """Huge pages are counted on their own."""
    seen = look(
        mapping(0, 4 * MIB, flags=frozenset(("ht",))), mapping(TOP, PAGE, path="[vsyscall]")
    )
    assert (seen.locked, seen.populated, seen.huge) == (0, 0, 4 * MIB)


def test_no_page_of_a_file_is_beyond_its_end():
    """A mapping of 1 MiB of a file of 100 bytes has one page."""
    seen = look(mapping(0, MIB, inode=7, path="/file"), file_bytes=lambda mapping: 100)
    assert (seen.locked, seen.populated) == (MIB, PAGE)


GUARD = {"perms": "---p"}


def test_a_default_stack_is_known_by_size_and_guard():
    """Its depth is what was touched of it; what has another size is not the default's."""
    usual = mapping(TOP + PAGE, 8 * MIB, rss=PAGE)
    own = mapping(TOP + 16 * MIB + PAGE, MIB, rss=3 * PAGE)
    seen = look(
        mapping(TOP, PAGE, **GUARD), usual, mapping(TOP + 16 * MIB, PAGE, **GUARD), own,
        lowest=lambda start, end: end - 5 * PAGE if end == usual.end else None,
    )  # fmt: skip
    assert [(one.size, one.depth, one.default) for one in seen.stacks] == [
        (8 * MIB + PAGE, 5 * PAGE, True),
        (MIB + PAGE, 3 * PAGE, False),
    ]
    assert seen.anonymous == 0


@pytest.mark.parametrize(("more", "usual"), [(-PAGE, True), (3 * PAGE, True), (MIB, False)])
def test_a_default_stack_may_be_joined_with_what_is_above(more, usual):
    """Linux 6.1 joins the first one with the loader's own memory; old ones are a page less."""
    seen = look(mapping(TOP, PAGE, **GUARD), mapping(TOP + PAGE, 8 * MIB + more))
    assert [one.default for one in seen.stacks] == [usual]


def test_a_guard_inside_of_the_mapping_is_known_too():
    """glibc since 2.42 installs it by madvise."""
    seen = look(mapping(TOP, 8 * MIB, flags=frozenset(("gu",))))
    assert seen.default_stacks == 1


def test_what_a_stack_pointer_points_into_is_a_stack():
    """Without a guard there is no other sign."""
    seen = look(mapping(TOP, MIB), pointers=(TOP + 100,))
    assert [(one.size, one.default) for one in seen.stacks] == [(MIB, False)]


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (8 * MIB + PAGE, 1),
        (8 * MIB + 2 * PAGE, 1),
        (16 * MIB + 3 * PAGE, 2),
        (8 * MIB, 0),
        (PAGE, 0),
    ],
)
def test_a_stack_in_the_making_is_one_already(size, count):
    """glibc maps it without access first, and the kernel joins it with the guard above."""
    assert look(mapping(TOP, size, **GUARD)).default_stacks == count


def test_a_reserve_below_is_no_guard():
    """The rest of an arena may lie right below other memory."""
    seen = look(mapping(TOP, 60 * MIB, **GUARD), mapping(TOP + 60 * MIB, MIB))
    assert (seen.stacks, seen.anonymous) == ((), MIB)


def test_an_arena_is_heap_as_far_as_it_is_in_use():
    """It begins at a multiple of 64 MiB, and the rest of these is reserved."""
    arena = mapping(64 * MIB, MIB)
    rest = mapping(65 * MIB, 63 * MIB, **GUARD)
    brk = mapping(0, 3 * MIB, path="[heap]")
    assert look(brk, arena, rest).heap == 4 * MIB
    assert look(brk, arena).heap == 3 * MIB


def test_a_candidate_for_huge_pages_has_a_whole_one_in_use():
    """2 MiB at the right address, and as much in memory."""
    whole = mapping(MIB, 4 * MIB, rss=3 * MIB)
    assert [one.start for one in look(whole).candidates] == [MIB]
    assert look(mapping(MIB, 2 * MIB, rss=2 * MIB)).candidates == ()
    assert look(mapping(0, 4 * MIB, rss=MIB)).candidates == ()


@pytest.mark.parametrize(
    ("paths", "known"),
    [
        (("/lib/libc.so.6",), ("glibc", "")),
        (("/lib/ld-musl-x86_64.so.1",), ("musl", "")),
        (("/lib/x86_64-linux-musl/libc.so",), ("musl", "")),
        (("/lib/libc.so.6", "/lib/libjemalloc.so.2"), ("jemalloc", "")),
        (("/lib/libc.so.6", "/usr/bin/python3.11"), ("glibc", "Python")),
        (("/jdk/lib/server/libjvm.so", "/lib/libc.so.6"), ("glibc", "JVM")),
        (("/app",), ("unknown", "")),
    ],
)
def test_the_mapped_files_tell_whose_it_is(paths, known):
    """Allocator and runtime."""
    assert fit.identify(paths) == known


# --- peaks and needs -------------------------------------------------------------------------


def test_the_peak_is_the_largest_look():
    """Not the last one."""
    found = course(sample(), sample(locked=30 * MIB, populated=25 * MIB), sample(locked=11 * MIB))
    assert fit.need(found, fit.Shape(2 * MIB), ("current", "future")) == fit.Need(
        30 * MIB, 25 * MIB
    )


def test_stacks_of_another_size_change_the_peak_and_which_it_is():
    """Many threads with little heap may be less, at a smaller stack, than few with much."""
    found = course(
        sample(),
        sample(locked=40 * MIB, populated=40 * MIB, stacks=stacks(16)),
        sample(locked=30 * MIB, populated=30 * MIB, stacks=stacks(1)),
    )
    small = fit.Shape(2 * MIB, thread_stack=256 * KIB)
    assert fit.whole(found, found.entry, small).locked == 30 * MIB - (2 * MIB - 256 * KIB)
    assert fit.whole(found, found.entry, fit.Shape(2 * MIB)).locked == 40 * MIB


def test_a_stack_that_is_touched_grows():
    """By what the mapping does not have yet."""
    found = course(sample(main_stack=132 * KIB, main_depth=12 * KIB))
    touched = fit.Shape(2 * MIB, prefault=512 * KIB)
    assert fit.whole(found, found.entry, touched).locked == 10 * MIB + 512 * KIB - 120 * KIB


def test_what_no_look_saw_is_locked_and_filled_all_the_same():
    """VmPeak was more for a moment."""
    found = course(sample(mapped=10 * MIB))
    found.glance(status(vm_peak=13 * MIB, vm_hwm=6 * MIB))
    assert fit.whole(found, found.entry, fit.Shape(2 * MIB)) == fit.Need(13 * MIB, 11 * MIB)


def test_the_forms_differ_by_what_is_locked_and_read():
    """current: what main() finds; future: what comes later; onfault: only what is touched."""
    found = course(sample(), sample(locked=16 * MIB, populated=13 * MIB, resident=9 * MIB))
    told = fit.needs(found, fit.Shape(2 * MIB), fitting.FORMS)
    assert told == {
        "current,future": fit.Need(16 * MIB, 13 * MIB),
        "current,future,onfault": fit.Need(16 * MIB, 9 * MIB),
        "current": fit.Need(10 * MIB, 12 * MIB),
        "future": fit.Need(6 * MIB, 10 * MIB),
    }


def test_threads_that_ended_between_two_looks_have_left_their_stacks():
    """There were as many at one time."""
    assert course(sample(stacks=stacks(5))).threads == 6


# --- recommending ----------------------------------------------------------------------------


@given(st.integers(min_value=MIB, max_value=1 << 40))
def test_a_margin_is_an_eighth_and_never_a_third(need):
    """So that a quarter less than the limit is less than the need."""
    limit = fitting.with_margin(need)
    assert need + need // 8 <= limit <= need + need // 4
    assert limit * 3 // 4 < need


@given(st.integers(min_value=4 * MIB, max_value=1 << 40))
def test_a_quarter_less_memlock_is_less_than_the_need(need):
    """Rounding included."""
    said = advise(course(sample(locked=need, mapped=need)))
    assert said.memlock * 3 // 4 < said.need.locked < said.memlock


@pytest.mark.parametrize(
    ("depth", "runtime", "size"),
    [
        (4 * KIB, "", 256 * KIB),
        (200 * KIB, "", 448 * KIB),
        (4 * KIB, "Python", 2 * MIB),
        (4 * KIB, "Go", MIB),
        (3 * MIB, "", 6 * MIB),
        (5 * MIB, "", None),
    ],
)
def test_a_stack_is_twice_as_deep_as_seen_with_the_runtimes_floor(depth, runtime, size):
    """And nothing is recommended where that is the default."""
    found = course(sample(stacks=stacks(3, depth)))
    assert advise(found, runtime=runtime).thread_stack == size


def test_the_default_where_it_saves_nothing_is_counted_as_such():
    """Measured with 2 MiB, run with 8: 3 threads are charged 18 MiB more."""
    found = course(sample(stacks=stacks(3, 5 * MIB), locked=50 * MIB))
    assert advise(found).need.locked == 50 * MIB + 18 * MIB + (256 - 120) * KIB


def test_stacks_that_follow_the_default_by_a_rule_of_their_own_stay_as_measured():
    """The program may have asked for the default to choose its own."""
    found = course(sample(stacks=stacks(3, default=False)))
    assert advise(found).thread_stack == 2 * MIB
    assert advise(course(sample())).thread_stack is None


def test_what_was_given_is_not_recommended():
    """Neither stacks nor arenas."""
    choice = fitting.Choice(prefault=False, usual_stack=8 * MIB)
    said = advise(course(sample(stacks=stacks(3))), choice)
    assert (said.thread_stack, said.prefault, said.arenas) == (None, None, None)


def test_one_thread_needs_no_arenas():
    """There is one anyway."""
    assert advise(course(sample())).arenas is None
    assert advise(course(sample(threads=2))).arenas == 1


def test_huge_pages_are_added_to_the_limit_alone():
    """VmLck is without them."""
    with_huge, without = advise(course(sample(huge=64 * MIB))), advise(course(sample()))
    assert with_huge.need == without.need
    assert with_huge.memlock > without.memlock + 64 * MIB


def test_mlockall_is_held_against_all_that_is_mapped():
    """Also what it does not lock: mm/mlock.c compares total_vm."""
    assert advise(course(sample(mapped=20 * MIB))).need.locked == 20 * MIB


def test_nothing_is_locked_with_lock_none():
    """And no limit is needed."""
    said = advise(course(sample()), lock=())
    assert (said.memlock, said.need.locked, said.form) == (0, 0, ("none",))


def test_a_container_holds_launcher_children_and_the_kernels_share():
    """Each of them is in the same cgroup."""
    alone = advise(course(sample())).container_need
    assert alone > 8 * MIB + fitting.LAUNCHER_BYTES
    assert advise(course(sample(others=5 * MIB))).container_need == alone + 5 * MIB


# --- showing and writing ---------------------------------------------------------------------


def found_of(options: Options = Options(), **fields: object) -> fitting.Found:  # noqa: B008
    seen = course(sample(threads=4, stacks=stacks(3)))
    known = {
        "command": ("./app", "it's"), "line": ("rtlaunch", "--", "./app", "it's"), "path": "",
        "course": seen, "advice": fitting.advise(seen, options, CHOICE, ""), "allocator": "glibc",
        "runtime": "", "default_stack": 2 * MIB, "run_ns": 1_234_000_000, "traced": True,
        "stopped": False, "ended": 0,
    }  # fmt: skip
    return fitting.Found(**{**known, **fields})


def resolved(text: str) -> Options:
    """Read a profile as a launch does."""
    return settings.resolve({}, {}, read_profile(tomllib.loads(text), "/p.toml")).options


def test_a_profile_says_what_was_given_and_recommended_and_measured():
    """Read again it is the same options, with the table of what was measured."""
    given = Options(
        nice=3, allow=("limit-raise",), no_new_privs=True, cpu_list=(0, 2),
        limit=(LimitDemand("nofile", 100, 200),), origin={"nice": CLI},
    )  # fmt: skip
    found = found_of(given)
    wanted = fitting.chosen(given, found.advice)
    text = fitting.profile_text(found, wanted, "Measured.")
    got = resolved(text)
    need = found.advice.need
    assert got.fitted == Fitted(need.locked, need.resident, 4)
    assert (got.thread_stack, got.prefault_stack, got.arenas) == (256 * KIB, 256 * KIB, 1)
    assert replace(got, origin={}, fitted=None) == replace(wanted, origin={}, fitted=None)
    assert tomllib.loads(text)["command"] == ["./app", "it's"]


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_survives_a_profile(text):
    """Quotes, backslashes, control characters."""
    assert tomllib.loads(f"x = {fitting.in_toml(text)}") == {"x": text}


def test_bytes_that_are_no_text_do_not():
    """TOML is UTF-8; an argument need not be."""
    with pytest.raises(ValueError, match="surrogates"):
        fitting.in_toml("\udcff")


def test_the_line_is_shown_as_a_shell_takes_it():
    """Quoted, for people and in JSON."""
    found = found_of()
    shown = next(line for line in report.lines(found) if "./app" in line and "--" in line)
    assert shlex.split(shown) == list(found.line)
    assert shlex.split(report.as_dict(found)["recommended"]["line"]) == list(found.line)


def test_a_run_that_failed_is_said_to_be_one():
    """What it needs may not be what it needs."""
    assert "a run that failed" in report.lines(found_of(ended=1))[0]
    assert "--thread-stack inherit" in report.lines(found_of(ended=139))[0]
    usual = report.lines(found_of(ended=139, default_stack=8 * MIB))[0]
    assert "a run that failed" in usual
    assert "a run that failed" not in report.lines(found_of(ended=143, stopped=True))[0]


def test_limits_are_told_with_their_needs_and_margins():
    """By the units that systemd, docker and ulimit take."""
    found = found_of()
    text = "\n".join(report.lines(found))
    memlock = found.advice.memlock
    for wanted in (
        f"LimitMEMLOCK={memlock >> 10}K",
        f"memlock={memlock}",
        f"ulimit -l {memlock >> 10}",
    ):
        assert wanted in text
