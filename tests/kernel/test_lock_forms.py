"""--lock in all its forms: what is locked and what is in memory, before main() and after it."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from tests import books
from tests.kernel import seccomp
from tests.standing import standing

MIB = 1 << 20
MLOCKALL = {"x86_64": 151}.get(os.uname().machine, 230)
MCL_ONFAULT = 4
UNTOUCHED = 200  # of the 256 pages of a MiB

# the form: (locked at main(), resident at main(), later memory locked, later memory resident)
FORMS = {
    "none": (False, False, False, False),
    "current": (True, True, False, False),
    "future": (False, False, True, True),
    "current,future": (True, True, True, True),
    "current,onfault": (True, False, False, False),
    "future,onfault": (False, False, True, False),
    "current,future,onfault": (True, False, True, False),
}


def before_main(held):
    """Return whether all is locked, whether nothing is, and whether all is in memory."""
    lockable = [each for each in books.smaps(held.pid) if each.lockable]
    return (
        all(each.locked for each in lockable),
        not any(each.locked for each in lockable),
        all(each.resident >= each.expected for each in lockable),
    )


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_at_main(anybody, targets, form):
    """Of what is mapped before main() all is locked or nothing, and resident as the form says."""
    locked, resident, *_ = FORMS[form]
    words = ("--lock", form, "--", targets / "waiter")
    with standing(anybody, *words, before_main=True) as held:
        everything, nothing, present = before_main(held)
        held.tell("")
        report = held.end().report
    assert (everything, nothing, present) == (locked, not locked, resident)
    assert report["lock"]["flags"] == ([] if form == "none" else form.split(","))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_mapped_later(anybody, targets, form):
    """A MiB that main() maps is locked and resident as the form says, and faults if it is not."""
    *_, locked, resident = FORMS[form]
    with standing(anybody, "--lock", form, "--", targets / "waiter") as held:
        address = held.number(f"mmap {MIB}")
        mapping = books.mapping_at(held.pid, address)
        faults = held.number(f"write {address:#x} {MIB}")
    assert mapping.locked is locked
    assert (mapping.resident == mapping.end - mapping.start) is resident
    assert (faults == 0) is resident
    assert resident or faults > UNTOUCHED


@pytest.mark.parametrize("form", [form for form in FORMS if form != "none"])
def test_the_stack_is_touched_under_every_form(rtlaunch, targets, form):
    """2 MiB of main stack are in memory, with onfault as well."""
    words = ("--lock", form, "--prefault-stack", "2M", "--", targets / "waiter")
    with standing(rtlaunch, *words) as held:
        assert books.stack(held.pid).resident >= 2 * MIB
        assert held.number(f"stack {2 * MIB - 16384}") == 0


@pytest.mark.parametrize("form", [form for form in FORMS if form != "none"])
def test_every_form_is_proven(rtlaunch, targets, form):
    """The proof agrees with each form: lock.ok, and no mapping to complain of."""
    report = rtlaunch.run("--lock", form, "--", "true").report
    assert (report["lock"]["ok"], report["lock"]["unlocked_mappings"]) == (True, [])


# ---- a kernel without MCL_ONFAULT


def old_kernel():
    """Answer mlockall with EINVAL where MCL_ONFAULT is among its flags."""
    answer = seccomp.EPERM_ANSWER & ~0xFFFF | errno.EINVAL
    seccomp.answer_with_bit(MLOCKALL, MCL_ONFAULT, answer)


ONFAULT = ("--lock", "current,future,onfault")


def test_without_onfault_all_is_locked_and_in_memory(rtlaunch, targets):
    """The same flags but that one: no page that was promised is missing."""
    words = (*ONFAULT, "--", targets / "waiter")
    with standing(rtlaunch, *words, preexec_fn=old_kernel) as held:
        assert books.not_held(held.pid) == []
        address = held.number(f"mmap {MIB}")
        assert held.number(f"write {address:#x} {MIB}") == 0


def test_without_onfault_the_report_has_the_real_flags(rtlaunch):
    """lock.flags is what was used, and a warning says so with the memory that it took."""
    ran = rtlaunch.run(*ONFAULT, "--", "true", preexec_fn=old_kernel)
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)
    assert ran.report["lock"]["flags"] == ["current", "future"]
    [finding] = ran.report["findings"]
    assert finding["code"] == "lock-onfault"
    assert finding["values"]["resident_bytes"] == ran.report["lock"]["resident_bytes"]
    assert (
        "warning [lock-onfault]: true is locked with current,future, without onfault: " in ran.err
    )


def test_a_lock_without_onfault_that_does_not_fit_is_refused_as_any(as_user):
    """The second try fails by the limit: the refusal is the limit's."""
    words = (*ONFAULT, "--memlock", "64K", "--allow", "memlock-budget", "--", "/usr/bin/true")
    ran = as_user("limited").run(*words, preexec_fn=old_kernel)
    assert ran.code == 125
    assert "[memlock-limit]" in ran.err


def test_onfault_where_it_is_known_is_onfault(rtlaunch):
    """Without the filter there is nothing to say."""
    ran = rtlaunch.run(*ONFAULT, "--", "true")
    assert (ran.err, ran.report["lock"]["flags"]) == ("", ["current", "future", "onfault"])


# ---- what plan says


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("none", "nothing is locked"),
        ("current", "what is mapped later is not locked"),
        ("future", "what is mapped at main(), code and libraries too, is not locked"),
        ("current,future", "a thread costs its stack of 8 MiB"),
        ("current,future,onfault", "what is mapped later faults once for each page"),
    ],
)
def test_plan_states_what_the_form_costs(rtlaunch, form, said):
    """`rtlaunch plan` has a sentence for each form."""
    words = rtlaunch.words("plan", "--lock", form, "--", "true")
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    costs = ran.stdout.partition("the lock costs:\n")[2].partition("\n\n")[0]
    assert said in costs


def test_the_cost_of_a_thread_is_that_of_its_stack(rtlaunch):
    """With --thread-stack the sentence has that size."""
    words = rtlaunch.words("plan", "--thread-stack", "256K", "--", "true")
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "a thread costs its stack of 256 KiB" in ran.stdout
