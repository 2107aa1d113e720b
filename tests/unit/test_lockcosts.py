"""What each form of --lock costs, in words."""

from __future__ import annotations

import itertools

import pytest

from rtlaunch.core.lockcosts import costs
from rtlaunch.core.steps import Lock

MIB = 1 << 20
FORMS = [
    flags
    for count in range(4)
    for flags in itertools.combinations(("current", "future", "onfault"), count)
    if flags != ("onfault",)
]


def test_no_two_forms_cost_the_same():
    """Seven forms, seven texts."""
    texts = [costs(flags, 8 * MIB) for flags in FORMS]
    assert len(FORMS) == len(set(texts)) == 7


@pytest.mark.parametrize("flags", FORMS)
def test_the_charge_is_told_of_future_alone(flags):
    """What is mapped later is charged whole, with the size of a thread's stack."""
    text = " ".join(costs(flags, 3 * MIB))
    assert ("a thread costs its stack of 3 MiB" in text) is ("future" in flags)


def test_the_lock_of_the_plan_tells_its_own():
    """The step and the table say the same."""
    flags = ("current", "future")
    assert Lock(flags, 0, "none").costs(MIB) == costs(flags, MIB)
