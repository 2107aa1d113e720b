"""Where the kernel does not let us trace the target, that is said by name before it runs."""

from __future__ import annotations

import errno
import json
import os
import subprocess

import pytest

from tests.kernel import seccomp
from tests.kernel.detached import EXEC, written
from tests.kernel.injecting import PTRACE, build
from tests.kernel.killing import can_trace
from tests.kernel.programs import need_root
from tests.skips import skip

ENOSYS_ANSWER = seccomp.EPERM_ANSWER & ~0xFFFF | errno.ENOSYS
ANSWERS = {"EPERM": seccomp.EPERM_ANSWER, "ENOSYS": ENOSYS_ANSWER, "death": seccomp.DEATH}
WAIVERS = [["--allow", "ptrace-denied"], ["--best-effort"]]


@pytest.fixture(scope="module")
def program(room):
    return build("static", "waiter", room)


def under_strace(rtlaunch, *words):
    """Run rtlaunch under ``strace -f``, which traces the target first; return it and its report."""
    if not can_trace():
        skip("no-strace")
    report = rtlaunch.report_path()
    command = ["strace", "-f", "-qq", "-o", os.devnull, *rtlaunch.words("--report", report, *words)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        out, err = process.communicate(timeout=30)
    return process, out, err, written(report)


def test_another_tracer_is_named(rtlaunch, program):
    """strace -f rtlaunch: there can be one tracer only, and this is who it is."""
    process, out, err, report = under_strace(rtlaunch, "--", program)
    assert (process.returncode, out) == (125, "")
    assert err.startswith(
        "rtlaunch: refused [ptrace-denied]: the program cannot be stopped at its exec: "
        f"process {process.pid} (strace) traces it already"
    )
    assert (report["verdict"], report["lock"]["ok"], report["lock"]["via"]) == (
        "refused", None, "ptrace",
    )  # fmt: skip
    (finding,) = report["findings"]
    assert (finding["code"], finding["values"]["tracer"]) == ("ptrace-denied", process.pid)


def test_in_exec_mode_the_refusal_of_a_tracer_is_125_too(rtlaunch, program):
    """It is the program's own parent that is to see it, as a unit's RestartPreventExitStatus."""
    process, out, err, _ = under_strace(rtlaunch, "--mode", "exec", "--", program)
    assert (process.returncode, out) == (125, "")
    assert "rtlaunch: refused [ptrace-denied]: " in err


@pytest.mark.parametrize("waiver", WAIVERS, ids=" ".join)
def test_another_tracer_may_be_allowed(rtlaunch, program, waiver):
    """Then the program runs, unlocked, at once, and that is said."""
    process, out, err, report = under_strace(rtlaunch, *waiver, "--", program, "3")
    assert (process.returncode, out.split()[0]) == (3, "ready")
    assert "ptrace-denied" in err
    assert (report["verdict"], report["lock"]["ok"]) == ("unlocked", False)
    (image,) = report["target"]["images"]
    assert image["locked"] is False
    assert "(strace) traces it already" in image["why"]


def test_a_dynamic_program_needs_no_tracing(rtlaunch):
    """Under strace -f a program that a preload reaches is locked as ever."""
    process, _, _, report = under_strace(rtlaunch, "--", "true")
    assert (process.returncode, report["lock"]["ok"]) == (0, True)


@pytest.mark.parametrize("action", ANSWERS.values(), ids=ANSWERS)
def test_a_filter_that_forbids_ptrace_is_named(rtlaunch, program, action):
    """EPERM, ENOSYS or death for ptrace(2): refused, and rtlaunch lives."""
    ran = rtlaunch.run("--", program, preexec_fn=lambda: seccomp.answer(PTRACE, action))
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("rtlaunch: refused [ptrace-denied]: ")
    assert "a seccomp filter is in force" in ran.err
    assert ran.report["verdict"] == "refused"


@pytest.mark.parametrize("waiver", WAIVERS, ids=" ".join)
def test_a_filter_may_be_allowed(rtlaunch, program, waiver):
    """The program runs without the lock; limits, watch and exit code are there."""
    ran = rtlaunch.run(
        *waiver, "--", program, "3", preexec_fn=lambda: seccomp.answer(PTRACE, seccomp.DEATH),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (ran.code, ran.report["verdict"]) == (3, "unlocked")
    assert ran.report["watch"]["after_arm"]["major"] is not None


def test_a_filter_that_spares_ptrace_is_no_hindrance(rtlaunch, program):
    """Any other filter: injected as ever."""
    ran = rtlaunch.run(
        "--", program, preexec_fn=lambda: seccomp.answer(1000, seccomp.EPERM_ANSWER),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)


# ---- what the injected calls meet ----

MLOCKALL = {"x86_64": 151}.get(os.uname().machine, 230)


@pytest.mark.parametrize(
    ("action", "name"), [(seccomp.EPERM_ANSWER, "EPERM"), (ENOSYS_ANSWER, "ENOSYS")]
)
def test_a_denied_lock_is_refused_as_with_the_shim(rtlaunch, program, action, name):
    """mlockall answered by a filter: lock-denied, with its errno."""
    ran = rtlaunch.run("--", program, preexec_fn=lambda: seccomp.answer(MLOCKALL, action))
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("rtlaunch: refused [lock-denied]: ")
    assert ran.report["lock"]["errno"] == name


def test_in_exec_mode_a_denied_lock_is_125_too(rtlaunch, program):
    """It exits with that where it stands, before its first instruction; no signal is seen."""
    report = rtlaunch.report_path()
    filtered = lambda: seccomp.answer(MLOCKALL, seccomp.EPERM_ANSWER)  # noqa: E731
    process = rtlaunch.start("--report", report, *EXEC, "--", program, preexec_fn=filtered)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (125, "")
    assert err.startswith("rtlaunch: refused [lock-denied]: ")
    found = written(report)
    assert (found["verdict"], found["exit"]["by"], found["exit"]["code"]) == (
        "refused", "rtlaunch", 125,
    )  # fmt: skip


def test_in_exec_mode_a_chain_that_may_not_end_there_is_125_too(rtlaunch, program):
    """setpriv, locked by its shim, becomes a static program that has no leave to lock."""
    need_root()
    less = ["prlimit", "--memlock=0:0", "setpriv", "--inh-caps=-all", "--bounding-set=-ipc_lock"]
    report = rtlaunch.report_path()
    process = rtlaunch.start("--report", report, *EXEC, "--", *less, program)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (125, "")
    assert err.startswith("rtlaunch: refused [memlock-")  # to its stderr, which was let go of at go
    found = written(report)
    assert found["verdict"] == "refused"
    assert [image["locked"] for image in found["target"]["images"]] == [True, True, False]


def test_death_by_a_filter_is_a_refusal(rtlaunch, program):
    """mlockall answered by SIGSYS: it died while it was being locked."""
    before = lambda: seccomp.answer(MLOCKALL, seccomp.DEATH)  # noqa: E731
    ran = rtlaunch.run("--", program, preexec_fn=before)
    assert (ran.code, ran.out) == (125, "")
    assert "died of SIGSYS while it was being locked" in ran.err


@pytest.mark.parametrize("name", ["madvise", "clock_gettime"])
def test_without_a_call_that_helps_the_stack_is_touched_less_or_otherwise(rtlaunch, program, name):
    """A filter on one of these two: locked all the same; the report says how much was touched."""
    number = {"madvise": 28, "clock_gettime": 228}[name]
    if os.uname().machine != "x86_64":
        skip("not-x86")
    ran = rtlaunch.run(
        "--", program, preexec_fn=lambda: seccomp.answer(number, seccomp.EPERM_ANSWER),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)
    assert (ran.report["lock"]["stack_bytes"] > 0) == (name == "madvise")


@pytest.mark.parametrize("waiver", [["--allow", "inject-failed"], ["--best-effort"]], ids=" ".join)
def test_an_injection_that_fails_may_be_allowed(rtlaunch, program, waiver):
    """strace has one request fail with EIO: the program runs as it stood at its exec."""
    ran = failing(rtlaunch, *waiver, "--", program, "3")
    assert (ran[0], ran[1].split()[0]) == (3, "ready")
    assert "inject-failed" in ran[2]
    assert (ran[3]["verdict"], ran[3]["target"]["images"][0]["locked"]) == ("unlocked", False)


def test_an_injection_that_fails_is_refused(rtlaunch, program):
    """By name, with what the kernel said."""
    code, out, err, report = failing(rtlaunch, "--", program)
    assert (code, out) == (125, "")
    assert err.startswith("rtlaunch: refused [inject-failed]: ")
    assert os.strerror(errno.EIO) in err
    assert report["verdict"] == "refused"


def failing(rtlaunch, *words):
    """Run rtlaunch with its sixth request, the first setting of registers, failing."""
    if not can_trace():
        skip("no-strace")
    report = rtlaunch.report_path()
    inject = ["-e", "trace=ptrace", "-e", "inject=ptrace:error=EIO:when=6"]
    command = ["strace", "-qq", "-o", os.devnull, *inject]
    done = subprocess.run(
        [*command, *rtlaunch.words("--report", report, *words)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr, json.loads(report.read_text())
