"""Where descriptors, memory, processes or devices are scarce: a run, or a refusal by its code."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.kernel.programs import need_root
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launching import Launcher, Ran

MODES = ("supervise", "exec")
NOT_OURS = 64_123  # a user who runs nothing else: RLIMIT_NPROC counts what a user has
NO_DEVICES = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh")


REFUSED = ("launch-failed", "proc-missing", "shim-silent")  # the last: its loader had too few


def assert_runs_or_is_refused(ran: Ran, marker: str) -> None:
    """See that the program ran to its end, or never did, and one code says why."""
    assert "Traceback" not in ran.err
    if ran.code == 125:
        assert ran.out == ""
        assert any(f"[{code}]" in ran.err for code in REFUSED), ran.err
    else:
        assert (ran.code, ran.out) == (3, marker)


@pytest.mark.parametrize("mode", MODES)
def test_too_few_descriptors_are_refused_by_name(rtlaunch: Launcher, mode: str) -> None:
    """With each limit from the first that lets the interpreter begin: a run or a refusal."""
    command = ("/bin/sh", "-c", "echo ran; exit 3")
    for most in range(5, 18):
        rtlaunch.prefix = ["prlimit", f"--nofile={most}:{most}"]
        ran = rtlaunch.run("--mode", mode, "--", *command)
        if mode == "exec" and ran.code == 3:  # it may have lost its watch, which says so
            assert "Traceback" not in ran.err
            continue
        assert_runs_or_is_refused(ran, "ran\n")


def test_the_watch_leaves_descriptors_for_the_next_image(rtlaunch: Launcher) -> None:
    """Where perf would take the last of them, faults are counted and each image is still locked."""
    for most in range(12, 26):
        rtlaunch.prefix = ["prlimit", f"--nofile={most}:{most}"]
        ran = rtlaunch.run("--", "env", "sh", "-c", "exit 3")
        assert (ran.code, ran.report["lock"]["ok"]) == (3, True), (most, ran.err)


def test_too_little_memory_is_refused_by_name(rtlaunch: Launcher) -> None:
    """With any address space that has room for a few modules: a run or a refusal."""
    seen = set()
    python = os.path.join(os.path.dirname(rtlaunch.program), "python3")
    probe = (python, "-ISc", "import ctypes, json; bytearray(1 << 20)")
    for most in range(9 << 20, 24 << 20, 1 << 19):
        limit = ["prlimit", f"--as={most}:{most}"]
        if subprocess.run([*limit, *probe], check=False, capture_output=True).returncode:
            continue
        rtlaunch.prefix = limit
        ran = rtlaunch.run("--", "/bin/sh", "-c", "echo ran; exit 3")
        seen.add(ran.code)
        assert "Traceback" not in ran.err
        assert (ran.code, ran.out) in ((3, "ran\n"), (125, "")), (most, ran.err)
    assert 3 in seen


@pytest.mark.parametrize("mode", MODES)
def test_too_few_processes_are_refused_once(as_user: Callable[[str], Launcher], mode: str) -> None:
    """Whichever fork fails, one process says so."""
    need_root()
    launcher = as_user("root")
    who = ["setpriv", f"--reuid={NOT_OURS}", f"--regid={NOT_OURS}", "--clear-groups"]
    for most in range(1, 6):
        launcher.prefix = [*who, "prlimit", f"--nproc={most}:{most}"]
        run = launcher.start("--lock=current", "--mode", mode, "--", "/bin/sh", "-c", "exit 3")
        _, err = run.communicate(timeout=20)
        assert run.returncode in (3, 125)
        assert err.count("refused [") == (run.returncode == 125)
        assert "Traceback" not in err


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("closed", ["", "<&- >&- 2>&-"])
def test_no_devices_are_needed(rtlaunch: Launcher, mode: str, closed: str) -> None:
    """In a chroot without /dev, with standard streams or without them."""
    need_root()
    if subprocess.run([*NO_DEVICES, "true"], capture_output=True, check=False).returncode:
        skip("no-mount")
    rtlaunch.prefix = [*NO_DEVICES, "sh", "-c", f'exec "$@" {closed}', "sh"]
    ran = rtlaunch.run("--mode", mode, "--", "/bin/sh", "-c", "exit 3")
    assert (ran.code, ran.err) == (3, "")


@pytest.mark.parametrize(
    "words",
    ["plan -- true", "plan --json -- true", "plan --as env -- /bin/true", "check", "hugepages",
     "explain", "--help", "--version"],
)  # fmt: skip
def test_a_closed_output_is_no_success(rtlaunch: Launcher, words: str) -> None:
    """What was asked for went nowhere: 125, as for a full disk, and no traceback."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *rtlaunch.words(*words.split())],
        stderr=subprocess.PIPE, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (125, "")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_report_to_a_closed_stream_is_refused(rtlaunch: Launcher, number: int) -> None:
    """What we keep there in its place takes nothing, so that no report seems to have arrived."""
    words = rtlaunch.words("--report", f"fd:{number}", "--", "echo", "ran")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {number}>&-', "sh", *words],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (125, "")


def test_a_limit_that_is_too_small_for_what_precedes_the_program_is_told(
    as_user: Callable[[str], Launcher],
) -> None:
    """The address space of --limit as binds our own child too: the step that failed is named."""
    need_root()
    launcher = as_user("root")
    for most in range(8, 20):
        words = ("--limit", f"as={most}M", "--user", "nobody", "--timer-slack", "10us")
        ran = launcher.run(*words, "--", "/bin/true")
        assert "Traceback" not in ran.err
        assert ran.code == 0 or (ran.code == 125 and "refused [" in ran.err), (most, ran.err)
