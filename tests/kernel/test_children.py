"""Children: untouched under --children none, locked under all, never taken for the target."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest

from tests.kernel.detached import written
from tests.kernel.processes import status
from tests.kernel.programs import need_root
from tests.skips import skip

PRINT_LOCKED = "grep VmLck /proc/self/status"


def locked_in(out):
    """Return every VmLck, in kB, that was printed."""
    return [int(kilobytes) for kilobytes in re.findall(r"VmLck:\s*(\d+) kB", out)]


def test_a_child_is_not_locked_by_default(anybody):
    """--children none: a program that the target starts sees itself unlocked."""
    ran = anybody.run("--", "sh", "-c", f"{PRINT_LOCKED}; echo end")
    assert (ran.code, locked_in(ran.out)) == (0, [0])
    assert ran.report["lock"]["children_locked"] is None
    assert len(ran.report["target"]["images"]) == 1


def test_a_child_is_locked_on_demand(anybody):
    """--children all: the child, and the child's child, are locked; the report counts neither."""
    line = f"sh -c '{PRINT_LOCKED}; echo end'; {PRINT_LOCKED}; echo end"
    ran = anybody.run("--children", "all", "--", "sh", "-c", line)
    assert ran.code == 0
    assert len(locked_in(ran.out)) == 2
    assert all(locked_in(ran.out))
    assert (len(ran.report["target"]["images"]), ran.report["lock"]["ok"]) == (1, True)


def test_many_children_at_once_are_all_locked(rtlaunch):
    """Forty at the same time, each locked before its main()."""
    line = f"for child in $(seq 40); do {PRINT_LOCKED} & done; wait"
    ran = rtlaunch.run("--children", "all", "--", "sh", "-c", line)
    assert (ran.code, len(locked_in(ran.out)), 0 in locked_in(ran.out)) == (0, 40, False)
    assert ran.report["lock"]["children_locked"] == 41  # seq too


def test_a_forked_child_is_the_programs_own_business(rtlaunch):
    """A fork without exec is not locked (mlockall(2)), and nobody is told of it."""
    read = "while read line; do case $line in VmLck*) echo $line;; esac; done </proc/self/status"
    line = f"({read}); echo end"
    ran = rtlaunch.run("--children", "all", "--", "sh", "-c", line)
    assert (ran.code, locked_in(ran.out), ran.report["findings"]) == (0, [0], [])


def test_a_child_that_cannot_be_locked_is_a_warning(as_user):
    """Under 8 MiB a larger helper runs on, unlocked; a warning names it; the target is fine."""
    line = "/usr/bin/python3 -c 'print(1 + 1)'; echo alive"
    ran = as_user("limited").run("--children", "all", "--", "sh", "-c", line)
    assert (ran.code, ran.out) == (0, "2\nalive\n")
    assert re.search(r"warning \[child-unlocked\]: the child python3\[\d+\] runs unlocked", ran.err)
    found = [one for one in ran.report["findings"] if one["code"] == "child-unlocked"]
    assert [one["values"]["errno"] for one in found] == [12]
    assert (ran.report["lock"]["ok"], ran.report["verdict"]) == (True, "clean")


def test_a_flood_of_such_children_is_a_few_warnings(as_user):
    """Thirty helpers that cannot be locked are not thirty warnings."""
    line = "for child in $(seq 30); do /usr/bin/python3 -I -S -c pass; done"
    ran = as_user("limited").run("--children", "all", "--", "sh", "-c", line)
    assert ran.code == 0
    assert 1 <= ran.err.count("[child-unlocked]") <= 10


def test_a_child_of_the_same_number_is_not_the_target(rtlaunch, tmp_path):
    """In a pid namespace within ours a child has the target's very number: it stays unlocked."""
    need_root()
    child = f"echo child $$; exec {PRINT_LOCKED}"
    inside = f"for one in 1 2 3 4 5 6; do sh -c '{child}'; done; echo end"
    target = 'echo target $$; exec unshare --pid --fork sh -c "$0"'
    outer = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    ours = rtlaunch.words("--report", tmp_path / "report.json", "--", "sh", "-c", target, inside)
    done = subprocess.run([*outer, *ours], capture_output=True, text=True, check=False, timeout=30)
    if "unshare failed" in done.stderr:
        skip("no-mount")
    assert done.returncode == 0, done.stderr
    (number,) = re.findall(r"target (\d+)", done.stdout)
    assert number in re.findall(r"child (\d+)", done.stdout)
    assert locked_in(done.stdout) == [0] * 6


def test_a_child_that_outlives_the_target_does_not_hold_us(rtlaunch, tmp_path):
    """A program that forks and leaves ends the run; what it left behind goes on by itself."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    line = f"(read line; echo $line; echo end) <{fifo} & echo started"
    process = rtlaunch.start("--", "sh", "-c", line)
    assert process.stdout.readline() == "started\n"
    assert process.wait(timeout=10) == 0
    fifo.write_text("late\n")
    out, err = process.communicate(timeout=10)
    assert out == "late\nend\n"
    assert err.startswith("rtlaunch: warning [daemonized]: sh has ended and goes on in a fork")


@pytest.mark.parametrize("children", ["none", "all"])
def test_a_childs_death_is_not_the_targets(rtlaunch, children):
    """A child that is killed, or fails, leaves the target's exit code alone."""
    line = "sh -c 'kill -KILL $$'; false; exit 7"
    ran = rtlaunch.run("--children", children, "--", "sh", "-c", line)
    assert (ran.code, ran.report["exit"]["code"], ran.report["exit"]["signal"]) == (7, 7, None)


DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
print(os.getpid(), flush=True)
for fd in (0, 1, 2): os.close(fd)
time.sleep(60)
"""


@pytest.mark.parametrize("mode", ["supervise", "exec"])
def test_a_program_that_becomes_a_daemon_is_told_of(rtlaunch, mode):
    """It goes on in a fork, which has no lock: a warning with its PID, and the way to lock it."""
    report = rtlaunch.report_path()
    options = ("--mode", mode, "--report", report)
    process = rtlaunch.start(*options, "--", "/usr/bin/python3", "-c", DAEMON)
    daemon = int(process.stdout.readline())
    try:
        _, err = process.communicate(timeout=20)
        assert status(daemon, "VmLck") == "0 kB"
        found = written(report)
        (warning,) = found["findings"]
        assert (process.returncode, warning["code"]) == (0, "daemonized")
        assert warning["values"]["pids"] == [daemon]
        if mode == "supervise":
            assert f"try now: rtlaunch lock {daemon}" in err
        assert rtlaunch_lock(rtlaunch, daemon) == 0
        assert status(daemon, "VmLck") != "0 kB"
    finally:
        os.kill(daemon, signal.SIGKILL)


def rtlaunch_lock(rtlaunch, pid):
    """Do what the warning says; return the exit code."""
    return subprocess.run(rtlaunch.words("lock", pid), capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    "line",
    [
        "sleep 1 >/dev/null 2>&1 & exit 0",
        "(: $(sleep 0.02); exec sleep 1) >/dev/null 2>&1 & exit 0",
        "(sleep 1; true) >/dev/null 2>&1 & kill -TERM $$",
        "(sleep 0.1; true) & wait",
    ],
    ids=["another program", "one in a moment", "of one that is killed", "one that it waits for"],
)
def test_what_else_is_left_is_no_daemon(rtlaunch, line):
    """Nothing is said where the program did not go on by itself in a fork."""
    ran = rtlaunch.run("--", "sh", "-c", line)
    assert ran.report["findings"] == []
