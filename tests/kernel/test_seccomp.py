"""Under a seccomp filter, as services and containers have one: refused by name, or said."""

from __future__ import annotations

import errno
import os

import pytest

from rtlaunch.linux.libc import NUMBERS
from tests import books
from tests.kernel import seccomp
from tests.standing import standing

PERF = NUMBERS[os.uname().machine]["perf_event_open"]
MLOCKALL = {"x86_64": 151}.get(os.uname().machine, 230)
ENOSYS_ANSWER = seccomp.EPERM_ANSWER & ~0xFFFF | errno.ENOSYS

ANSWERS = {"EPERM": seccomp.EPERM_ANSWER, "ENOSYS": ENOSYS_ANSWER, "death": seccomp.DEATH}


def filtered(number, action):
    """Return what puts the filter on the launcher, and so on its target."""
    return lambda: seccomp.answer(number, action)


# ---- mlockall ----


@pytest.mark.parametrize(
    ("action", "name"),
    [(seccomp.EPERM_ANSWER, "EPERM"), (ENOSYS_ANSWER, "ENOSYS")],
    ids=["EPERM", "ENOSYS"],
)
def test_a_denied_lock_is_refused(rtlaunch, tmp_path, action, name):
    """mlockall answered by an errno, though limit and rights permit it: the filter is named."""
    marker = tmp_path / "marker"
    ran = rtlaunch.run("--", "touch", marker, preexec_fn=filtered(MLOCKALL, action))
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith(
        f"rtlaunch: refused [lock-denied]: touch: mlockall failed with {name} though limit and "
        "capabilities permit it: a seccomp filter is in force"
    )
    assert (ran.report["verdict"], ran.report["lock"]["errno"]) == ("refused", name)


def test_a_denied_lock_may_be_allowed(rtlaunch):
    """--allow lock-denied: the program runs unlocked, which is said, and its code is its own."""
    words = ("--allow", "lock-denied", "--", "sh", "-c", "grep VmLck /proc/$$/status; exit 4")
    ran = rtlaunch.run(*words, preexec_fn=filtered(MLOCKALL, seccomp.EPERM_ANSWER))
    assert (ran.code, ran.out.split()) == (4, ["VmLck:", "0", "kB"])
    assert "not locked: " in ran.err
    assert (ran.report["lock"]["ok"], ran.report["verdict"]) == (False, "unlocked")


def test_death_by_the_filter_is_a_refusal(rtlaunch, tmp_path):
    """mlockall answered by SIGSYS: died before main(), with signal and cause; not 128 + 31."""
    marker = tmp_path / "marker"
    ran = rtlaunch.run("--", "touch", marker, preexec_fn=filtered(MLOCKALL, seccomp.DEATH))
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith(
        "rtlaunch: refused [died-before-go]: touch died of SIGSYS while it was being locked: "
        "a seccomp filter kills it for one of the calls that locking takes"
    )
    assert [finding["code"] for finding in ran.report["findings"]] == ["died-before-go"]
    assert (ran.report["exit"]["by"], ran.report["exit"]["signal"]) == ("rtlaunch", "SIGSYS")


def test_without_a_lock_the_filter_does_not_matter(rtlaunch):
    """--lock none never makes the call."""
    ran = rtlaunch.run("--lock", "none", "--", "true", preexec_fn=filtered(MLOCKALL, seccomp.DEATH))
    assert ran.code == 0


# ---- perf ----


@pytest.mark.parametrize("action", ANSWERS.values(), ids=ANSWERS)
def test_without_perf_faults_are_counted(rtlaunch, targets, action):
    """perf_event_open denied, or deadly: the target is locked all the same, faults counted."""
    with standing(rtlaunch, "--", targets / "waiter", preexec_fn=filtered(PERF, action)) as held:
        assert books.not_held(held.pid) == []
        ran = held.end()
    watch = ran.report["watch"]
    assert (ran.code, ran.report["lock"]["ok"], ran.report["verdict"]) == (0, True, "clean")
    assert (watch["source"], watch["after_arm"]["major"]) == ("proc", 0)
    assert watch["lost"] is None


@pytest.mark.parametrize("action", [seccomp.EPERM_ANSWER, seccomp.DEATH], ids=["EPERM", "death"])
def test_why_there_is_no_perf_is_said(rtlaunch, action):
    """watch.why names the filter; -v says it on stderr, and without -v nothing does."""
    words, before = ("--", "true"), filtered(PERF, action)
    ran = rtlaunch.run(*words, preexec_fn=before)
    assert "seccomp filter is in force" in ran.report["watch"]["why"]
    assert ran.err == ""
    loud = rtlaunch.run("-v", *words, preexec_fn=before)
    assert "note [watch-degraded]: " in loud.err
    assert [one["code"] for one in loud.report["findings"]] == ["watch-degraded"]


def test_an_exec_past_the_shim_is_noticed_without_perf(rtlaunch):
    """In a container that forbids perf env -i, not followed, does not pass for locked either."""
    forbidden = filtered(PERF, seccomp.EPERM_ANSWER)
    words = ("--allow", "exec-unfollowed", "--", "env", "-i", "/bin/sleep", "0.3")
    ran = rtlaunch.run(*words, preexec_fn=forbidden)
    assert ran.report["watch"]["source"] == "proc"
    assert ran.report["lock"]["ok"] is False
    codes = [finding["code"] for finding in ran.report["findings"]]
    assert codes == ["watch-degraded", "exec-unannounced"]
