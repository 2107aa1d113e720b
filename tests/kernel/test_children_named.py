"""--children GLOB locks the children that run what it names; who did the work is told at last."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.kernel.detached import written
from tests.kernel.injecting import build

PRINT_LOCKED = "grep VmLck /proc/self/status"
# Uses CPU time as long as its argument says, in seconds.
BURN = "import time; e = time.process_time() + {}\nwhile time.process_time() < e: pass"
BURNING = f"/usr/bin/python3 -I -S -c '{BURN.format(0.4)}'"


def locked_in(out):
    """Return each VmLck that was printed, in kB."""
    return [int(line.split()[1]) for line in out.splitlines() if line.startswith("VmLck:")]


def found(report, code):
    return [finding for finding in report["findings"] if finding["code"] == code]


@pytest.fixture
def worker(tmp_path):
    """grep under another name."""
    return shutil.copy(shutil.which("grep"), tmp_path / "worker-1")


PATTERNS = {
    "worker-*": (True, False),
    "worker-[0-9]": (True, False),
    "*/worker-1": (True, False),
    "grep": (False, True),
    "/usr/*": (False, True),
    "worker-1,grep": (True, True),
    "nobody": (False, False),
    "all": (True, True),
    "none": (False, False),
}


@pytest.mark.parametrize(("children", "meant"), PATTERNS.items())
def test_children_are_locked_by_their_executable(rtlaunch, worker, children, meant):
    """Two children of one program, as the kernel has them: each locked or not by its path."""
    line = f"{worker} VmLck /proc/self/status; {PRINT_LOCKED}; exit 0"
    ran = rtlaunch.run("--children", children, "--", "sh", "-c", line)
    assert (ran.code, ran.report["verdict"]) == (0, "clean")
    assert tuple(kilobytes > 0 for kilobytes in locked_in(ran.out)) == meant


def test_grandchildren_are_meant_too(rtlaunch, worker):
    """Whoever inherits the channel is asked what it runs."""
    line = f"sh -c '{worker} VmLck /proc/self/status; true'; exit 0"
    ran = rtlaunch.run("--children", "worker*", "--", "sh", "-c", line)
    assert [kilobytes > 0 for kilobytes in locked_in(ran.out)] == [True]


def test_a_script_is_its_interpreter(rtlaunch, tmp_path):
    """What the kernel runs for a script is the interpreter: its own name matches nothing."""
    script = tmp_path / "worker.sh"
    script.write_text("#!/bin/dash\ngrep VmLck /proc/$$/status\n")
    script.chmod(0o755)
    for children, locked in (("worker*", False), ("dash", True)):
        ran = rtlaunch.run("--children", children, "--", "bash", "-c", f"{script}; exit 0")
        assert [kilobytes > 0 for kilobytes in locked_in(ran.out)] == [locked]


def test_a_static_child_runs_unlocked(rtlaunch, room, targets):
    """No shim is in it, and no child is traced: as the page says."""
    static = build("static", "started", room)
    line = f"{static} {room}/record & sleep 0.3; kill $!; exit 0"
    ran = rtlaunch.run("--children", "all", "--", "sh", "-c", line)
    assert (ran.code, (room / "record").read_text().split()[1]) == (0, "0")


def test_the_plan_says_whom(rtlaunch):
    """By the pattern."""
    ran = subprocess.run(
        rtlaunch.words("plan", "--children", "worker*", "--", "true"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the program and its children that run worker*" in ran.stdout


# ---- who did the work


@pytest.mark.parametrize("mode", ["supervise", "exec"])
def test_work_in_a_child_is_said(rtlaunch, tmp_path, mode):
    """A script that starts the program and waits for it: warned of, with both times."""
    report = tmp_path / "report.json"
    words = ("--mode", mode, "--report", report, "--", "sh", "-c", f"{BURNING}; exit 3")
    process = rtlaunch.start(*words)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    whole = written(report)
    (warning,) = found(whole, "work-in-child")
    assert warning["values"]["children_seconds"] >= 0.4 > warning["values"]["own_seconds"]
    assert (whole["lock"]["ok"], whole["verdict"]) == (True, "clean")
    if mode == "supervise":
        assert "warning [work-in-child]: the children of sh used 0." in err
        assert "--children all -- sh -c" in err


@pytest.mark.parametrize("children", ["all", "sh"])
def test_work_in_a_child_that_only_forked_is_said(rtlaunch, children):
    """No loader runs in it: whoever asked for it to be locked hears that nothing was."""
    line = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); exit 3"
    ran = rtlaunch.run("--children", children, "--", "sh", "-c", line)
    assert (ran.code, ran.report["lock"]["children_locked"]) == (3, 0)
    (warning,) = found(ran.report, "work-in-child")
    assert f"--children {children} locks what it execs" in warning["why"]
    advice = "rtlaunch lock PID" if children == "all" else "--children all -- sh -c"
    assert advice in ran.err.partition("try now:")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), f"exec {BURNING}"),
        ((), "true; exit 0"),
        (("--children", "python3*"), f"{BURNING}; exit 0"),
        (("--children", "all"), f"{BURNING}; exit 0"),
        (("--lock", "none"), f"{BURNING}; exit 0"),
    ],
)
def test_else_nothing_is_said(rtlaunch, options, line):
    """Where the program itself worked, its helpers did little, or children were thought of."""
    ran = rtlaunch.run(*options, "--", "sh", "-c", line)
    assert (ran.code, found(ran.report, "work-in-child")) == (0, [])
