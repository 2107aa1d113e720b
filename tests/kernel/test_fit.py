"""``rtlaunch fit``: the program runs as it would, and what it will take locked is told beforehand.

What is predicted of an unlocked run is held against the kernel's books of a locked one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests import books, launching
from tests.host import wait_until
from tests.kernel import fitting
from tests.kernel.fitting import MIB, PYTHON, STANDING_PYTHON, fit, measuring, recommended
from tests.kernel.processes import adopting
from tests.kernel.terminal import LAST, SHELLS, STOP, Job, terminal
from tests.launching import EIGHT_MIB
from tests.skips import skip
from tests.standing import standing

KIB = 1 << 10
WITHIN = 0.03  # of the prediction; what was seen is below 0.7 %
SPARE = 128 * KIB  # what any program uses of its stack before main(), and the frames themselves


def threaded(targets, *more: str) -> list[object]:
    """A program of known needs: 8 threads, each 100 KiB deep, main 300, a heap of 4 MiB."""
    return [targets / "fitted", "m300", "d100", "t8", "h4096", *more]


# --- it runs as it would ---------------------------------------------------------------------


@pytest.mark.parametrize(("word", "code"), [("x0", 0), ("x7", 7), ("u15", 143), ("u11", 139)])
def test_the_exit_code_is_the_programs(rtlaunch, targets, word, code):
    """Its own, or 128 + N; what was measured is told all the same."""
    ran, found = fit(rtlaunch, "--", targets / "fitted", word)
    assert ran.code == found["exit_code"] == code


def test_its_streams_are_its_own(rtlaunch):
    """What was measured is on stderr, for people, and nothing of it on stdout."""
    process = rtlaunch.start("fit", "--", "sh", "-c", "echo out; echo err >&2")
    out, err = process.communicate(timeout=30)
    assert out == "out\n"
    assert err.startswith("err\nrtlaunch: measured sh, unlocked, for ")
    assert "current,future,onfault" in err


def test_nothing_is_locked_while_it_is_measured(rtlaunch, targets):
    """A program that may not lock can be measured: no byte of it is."""
    with measuring(rtlaunch, "--", *threaded(targets, "r")) as held:
        assert books.locked_bytes(held.pid) == 0
        assert held.process.poll() is None


def test_after_the_time_it_is_told_to_end(rtlaunch):
    """--for: SIGTERM, and the status is what the program makes of it."""
    script = "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"
    ran, found = fit(rtlaunch, "--for", "300ms", "--", "sh", "-c", script)
    assert (ran.code, ran.out) == (3, "bye\n")
    assert found["stopped"] is True
    assert found["run_ns"] >= 300_000_000


def test_a_program_that_ends_before_that_is_not_waited_for(rtlaunch):
    """--for is the most, not the least."""
    ran, found = fit(rtlaunch, "--for", "50s", "--", "true")
    assert (ran.code, found["stopped"]) == (0, False)


def test_signals_reach_it_with_their_value(rtlaunch, targets):
    """It is traced, and feels nothing of it: sigqueue's value arrives."""
    with measuring(rtlaunch, "--", targets / "fitted", "r") as held:
        for value in (17, 23):
            subprocess.run(
                ["kill", "-s", "USR1", "-q", str(value), str(held.process.pid)], check=True
            )
            assert held.process.stdout.readline() == f"told {value}\n"


def test_it_can_be_stopped_and_continued(rtlaunch, targets):
    """SIGSTOP stops it, SIGCONT lets it go on."""
    with measuring(rtlaunch, "--", targets / "fitted", "r") as held:
        os.kill(held.pid, signal.SIGSTOP)
        wait_until(lambda: books.status(held.pid)["State"][0] in "tT", "it does not stop")
        os.kill(held.pid, signal.SIGCONT)
        wait_until(lambda: books.status(held.pid)["State"][0] == "S", "it does not go on")
        held.process.stdin.close()
        assert held.process.wait(10) == 0


def test_as_a_job_it_stops_and_goes_on(targets, tmp_path):
    """Ctrl-Z stops both, and SIGCONT for rtlaunch alone lets the program go on, traced or not."""
    path = ":".join(map(str, [launching.stub().parent, targets, os.environ["PATH"]]))
    environ = {**os.environ, "PATH": path, "PS1": "$ ", "TERM": "dumb", "ENV": ""}
    with adopting(), terminal(SHELLS["bash"], env=environ, cwd=tmp_path) as shell:
        shell.lines.upto("$ ")
        shell.type(f"rtlaunch fit -- signals {LAST}\n")
        job = Job(shell)
        shell.type(STOP)
        shell.lines.upto("Stopped")
        assert job.states() in (("T", "t"), ("T", "T"))
        os.kill(job.rtlaunch, signal.SIGCONT)
        job.wait_for("S", "S")


def test_killed_it_ends(rtlaunch, targets):
    """SIGKILL ends it, tracer or not; its last look is the one before."""
    with measuring(rtlaunch, "--", *threaded(targets, "r")) as held:
        os.kill(held.pid, signal.SIGKILL)
        out, _ = held.process.communicate(timeout=10)
    assert held.process.returncode == 128 + signal.SIGKILL
    assert fitting.parted(out)[1]["threads"]["stacks"] == 8


# --- what it saw -----------------------------------------------------------------------------


def test_depths_and_counts_are_the_programs(rtlaunch, targets):
    """Main stack, threads and their stacks, the heap: as deep and as many as it made them."""
    _, found = fit(rtlaunch, "--", *threaded(targets))
    assert 300 * KIB <= found["main_stack"]["depth_bytes"] < 300 * KIB + SPARE
    threads = found["threads"]
    assert (threads["most"], threads["stacks"], threads["default_stacks"]) == (9, 8, 8)
    assert 100 * KIB <= threads["default_depth_bytes"] < 100 * KIB + SPARE
    assert 4 * MIB <= found["heap_bytes"] < 4.5 * MIB
    assert (found["allocator"], found["runtime"]) == ("glibc", None)


def test_a_program_of_a_few_milliseconds_is_measured(rtlaunch, targets):
    """What it has when it ends is seen, however short it lived."""
    _, found = fit(rtlaunch, "--", targets / "fitted", "b20480", "h4096")
    assert found["end_seen"] is True
    assert found["needs"]["current,future"]["locked_bytes"] > 24 * MIB
    assert found["heap_bytes"] >= 4 * MIB


def test_what_was_given_back_at_once_is_counted(rtlaunch, targets):
    """Between two looks the kernel's own high-water mark misses nothing."""
    _, found = fit(rtlaunch, "--", targets / "fitted", "g20480")
    assert found["needs"]["current,future"]["locked_bytes"] > 20 * MIB


def test_memory_for_huge_pages_is_named(rtlaunch, targets):
    """Large, private, anonymous and in use: where it is and how much."""
    _, found = fit(rtlaunch, "--", targets / "fitted", "b8192")
    (candidate,) = found["huge_page_candidates"]
    assert 8 * MIB <= candidate["resident_bytes"] <= candidate["size_bytes"] < 8.5 * MIB
    _, found = fit(rtlaunch, "--", targets / "fitted", "b1024")
    assert found["huge_page_candidates"] == []


def test_children_are_counted_for_the_container_alone(rtlaunch):
    """They are not locked, and they are in the same cgroup."""
    code = "import os, time\nif os.fork(): os.wait()\nelse: x = b'x' * (20 << 20); time.sleep(0.6)"
    _, found = fit(rtlaunch, "--", PYTHON, "-c", code)
    assert found["children_bytes"] > 20 * MIB
    need = found["recommended"]
    assert need["container_need_bytes"] > need["resident_bytes"] + 20 * MIB
    assert need["locked_bytes"] < 30 * MIB


def test_the_last_image_of_a_chain_is_measured(rtlaunch, targets, tmp_path):
    """A script that exec()s: its threads' stacks are not ours to set, and are counted as they are.

    They begin with the limit that the shim has restored for the shell.
    """
    script = tmp_path / "start"
    script.write_text(f'#!/bin/sh\nexec {targets}/fitted "$@"\n')
    script.chmod(0o755)
    ran, found = fit(rtlaunch, "--", script, "t8", "h4096", "x5")
    assert (ran.code, ran.err) == (5, "")
    assert found["threads"]["default_stacks"] == 8
    assert found["needs"]["current,future"]["locked_bytes"] > 8 * EIGHT_MIB
    assert "--thread-stack" not in recommended(found)


def test_without_ptrace_it_is_measured_as_far_as_it_was_seen(rtlaunch, targets):
    """Where tracing is forbidden nothing else changes."""
    forbidding = f"""
import os, platform, sys
sys.path.insert(0, {str(os.getcwd())!r})
from tests.kernel import seccomp
seccomp.answer({{"x86_64": 101}}.get(platform.machine(), 117), seccomp.EPERM_ANSWER)
os.execv(sys.argv[1], sys.argv[1:])
"""
    rtlaunch.prefix = [sys.executable, "-c", forbidding]
    theirs, ours = os.pipe()
    try:
        ran, found = fit(rtlaunch, "--for", "400ms", "--", *threaded(targets, "r"), stdin=theirs)
    finally:
        os.close(theirs)
        os.close(ours)
    assert found["end_seen"] is False
    assert found["threads"]["most"] == 9
    assert ran.code == 143


# --- whose program it is ---------------------------------------------------------------------


def test_python_is_known(rtlaunch):
    """Its threads keep stacks that are deep enough for its own guard against recursion."""
    code = "import threading; t = threading.Thread(target=lambda: 0); t.start(); t.join()"
    _, found = fit(rtlaunch, "--", PYTHON, "-c", code)
    assert (found["allocator"], found["runtime"]) == ("glibc", "Python")
    assert found["recommended"]["thread_stack_bytes"] == 2 * MIB


def test_musl_is_given_nothing_that_it_would_refuse(rtlaunch, tmp_path):
    """Neither --arenas nor --thread-stack: both are refused for it."""
    compiler = shutil.which("musl-gcc")
    if not compiler:
        skip("no-musl")
    program = tmp_path / "fitted"
    subprocess.run([compiler, "-O1", "-o", program, fitting.SOURCE, "-pthread"], check=True)
    ran, found = fit(rtlaunch, "--", program, "t3", "h1024", "x4")
    assert (ran.code, found["allocator"]) == (4, "musl")
    assert found["threads"]["stacks"] == 3
    line = recommended(found)
    assert not {"--arenas", "--thread-stack"} & set(line)
    assert rtlaunch.run(*line).code == 4


# --- the prediction --------------------------------------------------------------------------


def subjects(targets) -> dict[str, list[object]]:
    """Programs that say ready and then stand still."""
    fitted = targets / "fitted"
    return {
        "threads": threaded(targets, "r"),
        "stacks-by-the-default": [fitted, "d40", "o4096", "t3", "r"],
        "one-thread": [fitted, "b4096", "r"],
        "python": list(STANDING_PYTHON),
    }


@pytest.mark.parametrize("name", ["threads", "stacks-by-the-default", "one-thread", "python"])
def test_what_is_predicted_is_what_the_locked_program_has(rtlaunch, targets, name):
    """VmLck and VmRSS of the line that is recommended, within 3 %, and limits within the half."""
    command = subjects(targets)[name]
    _, found = fit(rtlaunch, "--", *command)
    said = found["recommended"]
    with standing(rtlaunch, *recommended(found)) as held:
        locked, resident = books.locked_bytes(held.pid), fitting.resident(held.pid)
        ran = held.end()
    assert ran.report["lock"]["ok"] is True
    assert said["locked_bytes"] == pytest.approx(locked, rel=WITHIN)
    assert said["resident_bytes"] == pytest.approx(resident, rel=WITHIN)
    assert locked < said["memlock_bytes"] <= 1.5 * locked


@pytest.mark.parametrize("form", ["current", "future", "current,future", "current,future,onfault"])
def test_each_form_of_lock_is_told(rtlaunch, targets, form):
    """What the table says of a form is what the kernel charges for it."""
    command = threaded(targets, "r")
    _, found = fit(rtlaunch, "--lock", form, "--", *command)
    assert found["form"] == form
    with standing(rtlaunch, *recommended(found)) as held:
        locked, resident = books.locked_bytes(held.pid), fitting.resident(held.pid)
    said = found["needs"][form]
    assert said["locked_bytes"] == pytest.approx(locked, rel=WITHIN, abs=64 * KIB)
    assert said["resident_bytes"] == pytest.approx(resident, rel=0.1)


def test_the_diet_is_part_of_it(rtlaunch, targets):
    """8 threads by default are charged 64 MiB of stacks alone; with what is recommended 2."""
    command = threaded(targets, "r")
    _, found = fit(rtlaunch, "--", *command)
    assert found["recommended"]["thread_stack_bytes"] == 256 * KIB
    assert found["recommended"]["arenas"] == 1
    with standing(rtlaunch, "--", *command) as held:
        assert books.locked_bytes(held.pid) > 5 * found["recommended"]["locked_bytes"]


def test_what_was_given_stays(rtlaunch, targets):
    """An option of the user's is measured with, and is in the line as it was typed."""
    given = ("--thread-stack", "1M", "--prefault-stack=128K", "--nice", "3", "--arenas", "2")
    _, found = fit(rtlaunch, *given, "--", *threaded(targets))
    assert found["threads"]["default_stack_bytes"] == MIB
    said = found["recommended"]
    assert (said["thread_stack_bytes"], said["arenas"], said["prefault_stack_bytes"]) == (None,) * 3
    line = recommended(found)
    options = dict(zip(line[: line.index("--") : 2], line[1 : line.index("--") : 2], strict=True))
    options.pop("--memlock", None)
    wanted = {"--thread-stack": "1M", "--prefault-stack": "128K", "--nice": "3", "--arenas": "2"}
    assert options == wanted


# --- the limits that it recommends -----------------------------------------------------------


def test_the_line_runs_without_privileges_and_not_with_a_quarter_less(as_user, targets):
    """A user with the recommended limit and no CAP_IPC_LOCK; with less it is refused at once."""
    user = as_user("limited")
    _, found = fit(user, "--", targets / "fitted", "d40", "t3", "h1024")
    said = found["recommended"]
    assert said["memlock_bytes"] <= EIGHT_MIB
    line = recommended(found)
    assert "--memlock" in line
    user.prefix = fitting.may_lock(said["memlock_bytes"])
    ran = user.run(*line)
    assert (ran.code, ran.report["verdict"]) == (0, "clean")
    user.prefix = fitting.may_lock(said["memlock_bytes"] * 3 // 4)
    ran = user.run(*line)
    assert (ran.code, ran.report["findings"][0]["code"]) == (125, "limit-raise")
    assert ran.report["target"]["pid"] is None


def test_the_profile_says_the_same(as_user, targets):
    """--write: the line has the profile, and its budget refuses what is a quarter less."""
    user = as_user("limited")
    os.chown(user.folder, 65534, 65534)
    path = user.folder / "fitted.toml"
    words = ("--write", path, "--", targets / "fitted", "d40", "t3", "h1024")
    _, found = fit(user, *words)
    line = recommended(found)
    assert line[:3] == ["--profile", str(path), "--"]
    memlock = found["recommended"]["memlock_bytes"]
    user.prefix = fitting.may_lock(memlock)
    ran = user.run(*line)
    assert (ran.code, ran.report["verdict"]) == (0, "clean")
    assert ran.report["options"]["thread-stack"] == {"value": "256K", "from": "profile"}
    user.prefix = fitting.may_lock(memlock * 3 // 4)
    ran = user.run(*line)
    assert (ran.code, ran.report["findings"][0]["code"]) == (125, "memlock-budget")


def test_where_a_capability_makes_the_limit_needless_it_is_no_demand(rtlaunch):
    """Root with CAP_IPC_LOCK that cannot raise the limit: the line starts where it was printed."""
    _, found = fit(rtlaunch, "--", PYTHON, "-c", "pass")
    assert found["recommended"]["memlock_bytes"] > EIGHT_MIB
    ran = rtlaunch.run(*recommended(found))
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--for", "0s"), "--for 0s: nothing is measured in no time"),
        (("--for", "soon"), "--for: 'soon' is no time"),
        (("--write", "/nowhere/at/all.toml"), "--write /nowhere/at/all.toml: No such file"),
        (("--write", "/tmp"), "--write /tmp: Is a directory"),
        (("--fro", "1s"), "did you mean --for?"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(rtlaunch, words, told):
    """Named, 125, and the program did not start."""
    ran, found = fit(rtlaunch, *words, "--", "echo", "started")
    assert (ran.code, ran.out, found) == (125, "", {})
    assert told in ran.err


def test_a_command_that_is_none_is_refused_as_in_a_launch(rtlaunch):
    """127, by name."""
    ran, found = fit(rtlaunch, "--", "no-such-program")
    assert (ran.code, found) == (127, {})
    assert "command-not-found" in ran.err
