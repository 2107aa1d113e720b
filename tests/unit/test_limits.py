"""What becomes of each resource limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.limits import Limit, ask_for, at_most, demand, impossible
from rtlaunch.core.units import UNLIMITED

MIB = 1 << 20
EIGHT = Limit(8 * MIB, 8 * MIB)
LIMITS = st.one_of(st.just(UNLIMITED), st.integers(0, 1 << 40))


def test_inherit_changes_nothing():
    """``inherit`` is no change at all."""
    assert ask_for("memlock", "inherit", EIGHT, True) is None


def test_max_raises_soft_to_hard():
    """Without CAP_SYS_RESOURCE the hard limit is the most."""
    change = ask_for("memlock", "max", Limit(64, 8 * MIB), False)
    assert change is not None
    assert change.after == Limit(8 * MIB, 8 * MIB)


def test_max_raises_hard_where_it_may():
    """With CAP_SYS_RESOURCE both become unlimited."""
    change = ask_for("memlock", "max", EIGHT, True)
    assert change is not None
    assert change.after == Limit(UNLIMITED, UNLIMITED)


@given(LIMITS, LIMITS)
def test_max_is_never_impossible(soft, hard):
    """Failing to raise is no error: the lock is the judge."""
    change = ask_for("core", "max", Limit(soft, hard), False)
    assert change is not None
    assert impossible(change, False) is None


def test_a_size_below_the_hard_limit_leaves_that_alone():
    """A demand moves the hard limit only if it must."""
    change = ask_for("memlock", MIB, EIGHT, False)
    assert change is not None
    assert change.after == Limit(MIB, 8 * MIB)
    assert impossible(change, False) is None


@pytest.mark.parametrize("asked", [9 * MIB, UNLIMITED])
def test_a_size_above_the_hard_limit_is_a_demand_that_fails(asked):
    """It is refused with both values, unless CAP_SYS_RESOURCE is held."""
    change = ask_for("memlock", asked, EIGHT, False)
    assert change is not None
    finding = impossible(change, False)
    assert finding is not None
    assert finding.code == "limit-raise"
    assert "8 MiB" in finding.what
    assert impossible(change, True) is None


def test_soft_above_hard_is_refused_even_to_root():
    """setrlimit(2) has it EINVAL."""
    finding = impossible(demand("nofile", 2048, 1024, Limit(20000, 20000)), True)
    assert finding is not None
    assert "2048" in finding.what
    assert "1024" in finding.what


@given(LIMITS, LIMITS)
def test_limits_compare_with_unlimited_above_all(one, other):
    """Of two limits one is at most the other; both only if they are equal."""
    assert at_most(one, other) or at_most(other, one)
    assert (at_most(one, other) and at_most(other, one)) == (one == other)
