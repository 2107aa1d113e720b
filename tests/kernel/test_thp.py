"""--thp: who gets transparent huge pages, by the kernel's books of a program that asks for them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from tests import books
from tests.host import compile_c
from tests.skips import skip
from tests.standing import standing

MIB = 1 << 20
BYTES = 64 * MIB
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ONFAULT = ("--lock", "current,future,onfault")
ABLE = pytest.mark.parametrize("user", ["root", "ambient"])  # to lock 64 MiB
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(autouse=True)
def advised_pages_are_to_be_had():
    """Huge pages for who advises: what a system gives that has them at all."""
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        skip("no-thp")


def huge_bytes(pid, address):
    """Return AnonHugePages of all that is mapped from an address on, up to BYTES."""
    total, within = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        bounds = words[0].split("-")
        if len(bounds) == 2:
            start, end = (int(bound, 16) for bound in bounds)
            within = start < address + BYTES and end > address
        elif within and words[0] == "AnonHugePages:":
            total += int(words[1]) * 1024
    return total


def advised(held):
    """Have 64 MiB mapped, advised and written; return how much of it is in huge pages."""
    return huge_bytes(held.pid, held.number(f"map {BYTES}"))


def codes(report):
    return [finding["code"] for finding in report["findings"]]


# ---- never


@ABLE
def test_never_gives_none_even_where_advised(as_user, targets, user):
    """AnonHugePages is 0, THP_enabled is 0, and the report has it read back."""
    with standing(as_user(user), "--thp", "never", *ONFAULT, "--", targets / "shaper") as held:
        assert advised(held) == 0
        assert books.status(held.pid)["THP_enabled"] == "0"
        ran = held.end()
    assert ran.report["thp"]["asked"] == ran.report["thp"]["after"] == "never"
    assert ran.report["thp"]["before"] in ("always", "madvise")
    assert codes(ran.report) == []


def test_never_outlasts_every_exec(rtlaunch, targets):
    """A chain of images has it to the end, a cleared environment included."""
    command = ("env", "-i", "/bin/sh", "-c", "grep THP_enabled /proc/self/status")
    assert rtlaunch.run("--thp", "never", "--", *command).out.split() == ["THP_enabled:", "0"]


def test_never_is_not_ours_afterwards(rtlaunch):
    """The launcher itself, and who started it, keep what they had."""
    rtlaunch.run("--thp", "never", "--", "true")
    assert books.status("self")["THP_enabled"] == "1"


UNDO = """
#include <sys/prctl.h>
__attribute__((constructor)) static void undo(void) { prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0); }
"""


def test_what_is_undone_before_main_is_found(rtlaunch, here):
    """A library's constructor takes the flag away again: refused, by the kernel's books."""
    (here / "undo.c").write_text(UNDO)
    compile_c(here / "undo.c", here / "undo.so", "-shared", "-fPIC")
    (here / "main.c").write_text("int main(void) { return 0; }\n")
    compile_c(here / "main.c", here / "app", "-Wl,--no-as-needed", str(here / "undo.so"))
    ran = rtlaunch.run("--thp", "never", "--", here / "app")
    assert ran.code == 125
    assert "refused [thp-unavailable]: --thp never is not in force for app" in ran.err


# ---- madvise


@ABLE
def test_madvise_gives_them_where_advised(as_user, targets, user):
    """All 64 MiB that were advised, with a lock that takes pages as they come."""
    with standing(as_user(user), "--thp", "madvise", *ONFAULT, "--", targets / "shaper") as held:
        assert advised(held) == BYTES
        ran = held.end()
    assert ran.report["thp"]["asked"] == ran.report["thp"]["after"] == "madvise"
    assert codes(ran.report) == []


def test_madvise_takes_a_ban_away_that_was_inherited(rtlaunch, targets):
    """Started by somebody who disabled them for himself, the program has them where it advises."""
    disable = lambda: libc.prctl(41, 1, 0, 0, 0)  # noqa: E731
    words = ("--thp", "madvise", *ONFAULT, "--", targets / "shaper")
    with standing(rtlaunch, *words, preexec_fn=disable) as held:
        assert advised(held) == BYTES
        assert held.end().report["thp"] == {
            "asked": "madvise", "before": "never", "after": "madvise",
        }  # fmt: skip


def test_inherit_leaves_a_ban_alone(rtlaunch, targets):
    """The default changes nothing, and measures nothing."""
    disable = lambda: libc.prctl(41, 1, 0, 0, 0)  # noqa: E731
    with standing(rtlaunch, *ONFAULT, "--", targets / "shaper", preexec_fn=disable) as held:
        assert advised(held) == 0
        ran = held.end()
    assert ran.report["thp"] == {"asked": None, "before": None, "after": None}


def test_madvise_is_the_programs_own_flag_where_the_kernel_has_it(rtlaunch):
    """PR_GET_THP_DISABLE in the program says 3: disabled, but for what is advised (Linux 6.18)."""
    if libc.prctl(41, 1, 2, 0, 0):
        skip("no-thp-flag")
    libc.prctl(41, 0, 0, 0, 0)
    program = "import ctypes; print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0))"
    ran = rtlaunch.run("--thp", "madvise", *ONFAULT, "--", "/usr/bin/python3", "-c", program)
    assert ran.out == "3\n"


# ---- the trap


def test_future_populates_before_the_program_can_advise(rtlaunch, targets):
    """0 of 64 MiB, against 64 with onfault: the warning has both, and says what helps."""
    with standing(rtlaunch, "--thp", "madvise", "--", targets / "shaper") as held:
        assert advised(held) == 0
        ran = held.end()
    assert codes(ran.report) == ["thp-populated"]
    assert "then advises, 0 come in huge pages; with onfault 64 MiB" in ran.err
    assert "--lock current,future,onfault" in ran.err


@pytest.mark.parametrize("lock", ["current", "none"])
def test_without_future_there_is_no_trap(rtlaunch, targets, lock):
    """What is not populated when it is mapped can still be advised."""
    with standing(rtlaunch, "--thp", "madvise", "--lock", lock, "--", targets / "shaper") as held:
        assert advised(held) == BYTES
        assert "thp-populated" not in codes(held.end().report)


def test_a_plain_launch_does_not_speak_of_it(rtlaunch):
    """Who did not ask for huge pages hears nothing of them."""
    assert rtlaunch.run("--", "true").err == ""


def test_plan_says_it_of_a_lock_that_populates(rtlaunch):
    """What the lock costs names it, with the number."""
    words = rtlaunch.words("plan", "--", "true")
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "madvise(MADV_HUGEPAGE) gets 0 of 64 MiB" in ran.stdout
