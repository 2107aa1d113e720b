"""Headroom: a lock that leaves no room for a thread is warned of, and the warning is true.

Under MCL_FUTURE a thread's whole stack is charged when it is mapped. Without CAP_IPC_LOCK and
with less left of the limit, pthread_create fails in a program that ran well until then.
"""

from __future__ import annotations

import errno
import re

import pytest

from tests import books
from tests.standing import standing

MIB = 1 << 20
STACK = 8 * MIB  # RLIMIT_STACK, which is a default thread's stack
NEAR = 64 << 10  # what a main stack takes differs by some pages from run to run
EAGAIN = f"errno {errno.EAGAIN}"


@pytest.fixture
def limited(as_user):
    """A user without the capability, under given limits."""

    def make(memlock, stack=STACK):
        launcher = as_user("limited")
        limits = [f"--memlock={memlock}:{memlock}", f"--stack={stack}:{stack}"]
        launcher.prefix = ["prlimit", *limits, *launcher.prefix[2:]]
        return launcher

    return make


def headroom_finding(report):
    found = [one for one in report["findings"] if one["code"] == "memlock-headroom"]
    assert len(found) <= 1
    return found[0] if found else None


def test_too_little_headroom_is_told_with_numbers(limited, targets):
    """What is left is limit less VmLck to the byte, and stands beside what a thread takes."""
    with standing(limited(8 * MIB), "--", targets / "waiter", before_main=True) as held:
        left = 8 * MIB - books.locked_bytes(held.pid)
        held.tell("")
        ran = held.end()
    values = headroom_finding(ran.report)["values"]
    assert (values["headroom_bytes"], values["thread_stack_bytes"]) == (left, STACK)
    assert values["needed_bytes"] == 8 * MIB - left + STACK
    assert (ran.report["lock"]["ok"], ran.report["lock"]["headroom_bytes"]) == (True, left)
    assert re.search(
        rf"warning \[memlock-headroom\]: waiter is locked, with {left / MIB:.1f} MiB left of "
        r"RLIMIT_MEMLOCK 8 MiB; a thread's stack takes 8 MiB",
        ran.err,
    )


def test_the_warning_names_a_knob(limited):
    """The message says what to turn."""
    err = limited(8 * MIB).run("--", "true").err
    assert "--thread-stack 1M" in err
    assert "rtlaunch explain memlock-headroom" in err


def test_a_thread_really_fails(limited, targets):
    """The program that was warned of starts, locked, and dies at its first thread: EAGAIN."""
    with standing(limited(8 * MIB), "--", targets / "waiter") as held:
        assert books.not_held(held.pid) == []
        assert held.ask("thread") == EAGAIN
        assert headroom_finding(held.end().report)


def test_the_knob_that_is_named_helps(limited, targets):
    """With --thread-stack 1M there is no warning, and the thread runs."""
    with standing(limited(8 * MIB), "--thread-stack", "1M", "--", targets / "waiter") as held:
        assert held.ask("thread") == "ran"
        assert headroom_finding(held.end().report) is None


@pytest.mark.parametrize(
    "words",
    [("--lock", "current"), ("--lock", "none")],
    ids=["current", "none"],
)
def test_without_future_there_is_nothing_to_warn_of(limited, targets, words):
    """What is not locked is not charged: no warning, and the thread runs."""
    with standing(limited(8 * MIB), *words, "--", targets / "waiter") as held:
        assert held.ask("thread") == "ran"
        assert headroom_finding(held.end().report) is None


def test_onfault_is_charged_all_the_same(limited, targets):
    """MCL_ONFAULT delays the pages, not the charge: the warning stands, and the thread fails."""
    words = ("--lock", "current,future,onfault", "--", targets / "waiter")
    with standing(limited(8 * MIB), *words) as held:
        assert held.ask("thread") == EAGAIN
        assert headroom_finding(held.end().report)


@pytest.mark.parametrize("user", ["root", "ambient"])
def test_the_capability_makes_room_for_any_thread(as_user, targets, user):
    """With CAP_IPC_LOCK no limit applies: no warning, headroom unlimited, and the thread runs."""
    with standing(as_user(user), "--", targets / "waiter") as held:
        assert held.ask("thread") == "ran"
        ran = held.end()
    assert headroom_finding(ran.report) is None
    assert ran.report["lock"]["headroom_bytes"] == "unlimited"


@pytest.mark.parametrize(("spare", "warned"), [(-NEAR, True), (NEAR, False)])
def test_the_border_is_one_stack(limited, targets, spare, warned):
    """A little less than a stack is warned of, and the thread fails; a little more is not."""
    stack = 2 * MIB
    with standing(limited(8 * MIB, stack), "--", targets / "waiter", before_main=True) as held:
        in_use = books.locked_bytes(held.pid)
    with standing(limited(in_use + stack + spare, stack), "--", targets / "waiter") as held:
        failed = held.ask("thread") == EAGAIN
        report = held.end().report
    assert (headroom_finding(report) is not None) is warned
    assert failed or not warned


def test_a_warning_starts_the_program(limited):
    """It is no refusal: the program runs, and the exit code is its own."""
    assert limited(8 * MIB).run("--", "sh", "-c", "exit 3").code == 3
