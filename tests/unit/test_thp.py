"""--thp: the system's policy, the flag that does what was asked, and what is found."""

from __future__ import annotations

import pytest

from rtlaunch.core import plan, preflight, thp
from rtlaunch.core.asked_steps import SetThp
from rtlaunch.core.facts import Shape
from tests.unit.deciding import codes, facts, options

NEW, OLD = True, False


def known(system, new=NEW, disabled=0):
    shape = Shape(thp_system=system, thp_except_advised=new, thp_disabled=disabled)
    return facts(shape=shape)


def setting(word):
    """Return one of sysfs' lines with that word chosen."""
    return " ".join(f"[{one}]" if one == word else one for one in ("always", "madvise", "never"))


@pytest.mark.parametrize(
    ("enabled", "sizes", "policy"),
    [
        ("madvise", [], "madvise"),
        ("always", [], "always"),
        ("madvise", ["always [inherit] madvise never", setting("never")], "madvise"),
        ("always", ["always [inherit] madvise never"], "always"),
        ("never", [setting("madvise")], "madvise"),
        ("madvise", [setting("always"), setting("never")], "always"),
        ("madvise", [setting("never")], "never"),
        ("always", [setting("never"), setting("never")], "never"),
    ],
)
def test_the_loosest_size_is_the_systems_policy(enabled, sizes, policy):
    """Each size has its own setting, which may be that of all."""
    assert thp.system_policy(setting(enabled), sizes) == policy


def test_a_kernel_without_them_gives_none():
    """No file, no pages."""
    assert thp.system_policy("", []) == "never"


@pytest.mark.parametrize(
    ("asked", "system", "new", "flag"),
    [
        ("never", "always", OLD, (1, 0)),
        ("never", "never", NEW, (1, 0)),
        ("madvise", "always", NEW, (1, 2)),
        ("madvise", "madvise", NEW, (1, 2)),
        ("madvise", "madvise", OLD, (0, 0)),
        ("madvise", "always", OLD, None),
        ("madvise", "never", NEW, None),
    ],
)
def test_the_flag_that_does_it(asked, system, new, flag):
    """PR_SET_THP_DISABLE's arguments, None where nothing does."""
    assert thp.flag(asked, known(system, new)) == flag


@pytest.mark.parametrize(
    ("system", "said"), [("never", "gives huge pages to no"), ("always", "6.18")]
)
def test_what_cannot_be_had_is_refused_with_its_reason(system, said):
    """The knob is the same, the reason is not."""
    [finding] = preflight.of_thp(options(thp="madvise"), known(system, OLD))
    assert (finding.code, finding.refuses) == ("thp-unavailable", True)
    assert said in finding.what + finding.why


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ("current,future", ["thp-populated"]),
        ("future", ["thp-populated"]),
        ("current,future,onfault", []),
        ("current", []),
        ("none", []),
    ],
)
def test_the_trap_is_told_of_locks_that_populate(lock, expected):
    """What is mapped later comes in small pages, before it can be advised."""
    asked = options(thp="madvise", lock=lock)
    assert codes(preflight.of_thp(asked, known("madvise"))) == expected


def test_the_trap_is_no_news_to_who_wants_none():
    """never, and inherit."""
    assert list(preflight.of_thp(options(thp="never"), known("madvise"))) == []
    assert list(preflight.of_thp(options(), facts())) == []


def steps(asked, facts_known):
    found = preflight.findings(asked, facts_known)
    return [one for one in plan.make_plan(asked, facts_known, found) if isinstance(one, SetThp)]


def test_the_step_is_planned_once_and_said():
    """With the call's own arguments."""
    [step] = steps(options(thp="never"), known("always"))
    assert step.describe() == "transparent huge pages: none (PR_SET_THP_DISABLE 1, 0)"


@pytest.mark.parametrize(
    ("asked", "new", "disabled"), [("never", NEW, 1), ("madvise", NEW, 3), ("madvise", OLD, 0)]
)
def test_what_is_so_already_is_no_step(asked, new, disabled):
    """The flag that we inherited does it."""
    assert steps(options(thp=asked), known("madvise", new, disabled)) == []


def test_a_ban_that_was_inherited_is_taken_away():
    """madvise, on a system that has it and a kernel without the flag."""
    [step] = steps(options(thp="madvise"), known("madvise", OLD, 1))
    assert (step.disable, step.flags) == (0, 0)


def test_let_go_by_name_nothing_is_set():
    """--allow thp-unavailable."""
    assert steps(options(thp="madvise", allow="thp-unavailable"), known("never")) == []


@pytest.mark.parametrize(
    ("asked", "enabled", "found"),
    [("never", 0, "never"), ("never", 1, "always"), ("madvise", 1, "madvise"),
     ("madvise", 0, "never"), ("never", None, None)],
)  # fmt: skip
def test_the_books_decide_what_is_in_force(asked, enabled, found):
    """THP_enabled of /proc/PID/status; nothing is claimed of a kernel without it."""
    assert thp.policy_found(asked, "always", enabled) == found


def test_a_policy_that_is_not_in_force_refuses():
    """What was asked is not what holds."""
    assert thp.not_in_force("app", "never", "always").refuses
