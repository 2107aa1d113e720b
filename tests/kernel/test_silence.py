"""Images that cannot be proven: no word from the shim, or books that are closed to us.

Each is refused by its name, and each may be allowed by that name: then it runs, its exit code is
its own, and nothing claims that it was locked.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.kernel.programs import compile_source, true_at

LOADER = ("sh", "-c", "readlink -f $(ldd /bin/true | grep -o '/lib.*ld-linux[^ ]*')")
SAY_LOCKED = """
#include <stdio.h>
#include <string.h>
int main(void)
{
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "VmLck", 5) == 0)
            fputs(line, stdout);
    return 3;
}
"""
WAIVERS = ["--allow={}", "--best-effort"]


def codes(ran):
    return [finding["code"] for finding in ran.report["findings"]]


def assert_refused(ran, code):
    assert ran.code == 125
    assert f"rtlaunch: refused [{code}]: " in ran.err
    assert (ran.report["verdict"], ran.report["lock"]["ok"]) != ("clean", True)
    assert ran.report["exit"]["by"] == "rtlaunch"


def assert_allowed(ran, code, status):
    assert (ran.code, ran.report["exit"]["by"]) == (status, "target")
    assert f"allowed [{code}]: " in ran.err
    assert "not locked: " in ran.err
    assert (ran.report["lock"]["ok"], ran.report["verdict"]) == (False, "unlocked")
    assert code in codes(ran)


# ---- a program that never speaks ----


@pytest.fixture(scope="module")
def silent():
    """ld.so as the program: with --list it runs no constructor, and so no shim."""
    loader = subprocess.run(LOADER, capture_output=True, text=True, check=True).stdout.strip()
    return (loader, "--list", "/bin/true")


def test_a_program_that_never_speaks_is_refused(rtlaunch, silent):
    """It may have run, unlocked: that is no success."""
    assert_refused(rtlaunch.run("--", *silent), "shim-silent")


@pytest.mark.parametrize("waiver", WAIVERS)
def test_a_program_that_never_speaks_may_be_allowed(rtlaunch, silent, waiver):
    """Then its exit code counts."""
    ran = rtlaunch.run(waiver.format("shim-silent"), "--", *silent)
    assert_allowed(ran, "shim-silent", 0)


# ---- an image whose books are closed ----


@pytest.fixture
def closed(as_user):
    """A user, and a program that this user may execute but not read: it is not dumpable."""
    launcher = as_user("ambient")
    program = true_at(launcher.folder / "programs" / "closed")
    program.parent.chmod(0o755)
    program.chmod(0o711)
    return launcher, ("sh", "-c", f"exec {program}")


def test_an_image_with_closed_books_is_refused(closed):
    """It announced itself and may well be locked; nobody can tell, and lock.ok does not."""
    launcher, command = closed
    ran = launcher.run("--", *command)
    assert_refused(ran, "proof-unreadable")
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, None]
    assert ran.report["lock"]["ok"] is False


@pytest.mark.parametrize("waiver", WAIVERS)
def test_an_image_with_closed_books_may_be_allowed(closed, waiver):
    """Then it runs, not proven."""
    launcher, command = closed
    ran = launcher.run(waiver.format("proof-unreadable"), "--", *command)
    assert_allowed(ran, "proof-unreadable", 0)


# ---- an image that no shim can be in ----


@pytest.fixture(scope="module")
def static(room):
    program = compile_source("cc", "-static", SAY_LOCKED, room / "static")
    return shutil.copy(program, room / "copy")


def test_a_static_program_is_refused(rtlaunch, static):
    """Under --via preload, by what it is, before it starts."""
    ran = rtlaunch.run("--via", "preload", "--", static)
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("rtlaunch: refused [target-static]: ")


@pytest.mark.parametrize("waiver", WAIVERS)
def test_a_static_program_may_be_allowed(rtlaunch, static, waiver):
    """It runs without the shim, sees itself unlocked, and the report has its limits and faults."""
    ran = rtlaunch.run(waiver.format("target-static"), "--via", "preload", "--", static)
    assert_allowed(ran, "target-static", 3)
    assert ran.out.split() == ["VmLck:", "0", "kB"]


def test_a_static_program_on_the_way_is_said(rtlaunch, static):
    """exec()ed by one that is locked and, by leave, not followed: no shim announced it."""
    ran = rtlaunch.run("--allow", "exec-unfollowed", "--", "sh", "-c", f"exec {static}")
    assert (ran.code, ran.out.split()) == (3, ["VmLck:", "0", "kB"])
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, False]
    assert (ran.report["lock"]["ok"], codes(ran)) == (False, ["exec-unannounced"])


@pytest.mark.parametrize("nofile", [1000, 100, 20])
def test_a_small_limit_of_descriptors_is_no_exec(rtlaunch, nofile):
    """What tells of an exec without perf is kept below --limit nofile, not lost: nothing exec'd."""
    ran = rtlaunch.run("--watch=proc", "--limit", f"nofile={nofile}", "--", "/bin/sleep", "0.1")
    assert (ran.code, ran.report["verdict"]) == (0, "clean"), ran.err


def test_a_limit_that_the_program_lowers_is_no_exec(rtlaunch):
    """The same for the next image, whose limit the first one set."""
    script = "ulimit -n 50; exec /bin/sleep 0.1"
    ran = rtlaunch.run("--watch=proc", "--", "/bin/sh", "-c", script)
    assert (ran.code, ran.report["verdict"]) == (0, "clean"), ran.err
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, True]
