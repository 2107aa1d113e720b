"""rtlaunch check: what it says of this machine is what the kernel says, and it changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from rtlaunch.core.findings import CODES
from rtlaunch.core.hostcheck import COMFORT_BYTES
from rtlaunch.linux import host
from tests import launching

ENOMEM_OR_EAGAIN = (11, 12)


def check(launcher, *words: str, code: int | None = None) -> dict:
    """Run ``rtlaunch check --json WORDS`` and return its object."""
    process = launcher.start("check", "--json", *words)
    out, err = process.communicate(timeout=60)
    assert err == ""
    answer = json.loads(out)
    assert process.returncode == (0 if answer["would_start"] else 125)
    assert code is None or process.returncode == code
    return answer


def codes(answer: dict) -> set[str]:
    return {finding["code"] for finding in answer["findings"]}


def told(answer: dict) -> dict[str, str]:
    return {each["subject"]: each["text"] for each in answer["checks"]}


def setting(path: str) -> str:
    return Path(path).read_text().strip()


# --- who may lock ----------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["root", "ambient"])
def test_who_holds_ipc_lock_could_start_a_large_program(as_user, user):
    """With CAP_IPC_LOCK no limit stands against anything, and check says so."""
    answer = check(as_user(user), "--", "python3", code=0)
    assert "memlock-limit" not in codes(answer)
    assert told(answer)["privileges"].startswith("CAP_IPC_LOCK: no limit applies")


def test_eight_mib_are_not_enough_for_python(as_user):
    """A user with 8 MiB is told that python3 would be refused, by a lock that was really tried."""
    answer = check(as_user("limited"), "--", "python3", code=125)
    assert answer["refused_by"] == "memlock-limit"
    assert told(answer)["mlockall"].startswith("fails: ")


def test_eight_mib_are_enough_for_a_small_program(as_user):
    """The same user may start a small program, and is warned that its threads may fail."""
    answer = check(as_user("limited"), code=0)
    assert "memlock-headroom" in codes(answer)
    assert told(answer)["mlockall"] == "works up to 8 MiB"


def test_a_user_to_come_is_judged(as_user):
    """With --user the child that tries the lock has become that user, capabilities and all."""
    root = as_user("root")
    words = ["--memlock", "8M", "--user", "nobody"]
    with_cap = check(root, *words, "--", "python3")
    assert "memlock-limit" not in codes(with_cap)
    without = check(root, *words, "--ambient-caps=none", "--", "python3")
    assert without["refused_by"] == "memlock-limit"


def test_what_was_allowed_does_not_refuse(as_user):
    """check takes the options of a run: an allowed finding is shown and refuses nothing."""
    answer = check(as_user("limited"), "--allow", "memlock-limit", "--", "python3", code=0)
    (found,) = [each for each in answer["findings"] if each["code"] == "memlock-limit"]
    assert found["waived"] is True


def test_check_and_launch_agree(as_user):
    """What check says of a program is what a launch of it does, for each kind of user."""
    for user in launching.USERS:
        launcher = as_user(user)
        words = ["--", "/usr/bin/python3", "-c", "pass"]
        started = launcher.run(*words).code == 0
        assert check(launcher, *words)["would_start"] is started, user


# --- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--", "/nonexistent/program"], "command-not-found"),
        (["--", "/etc/passwd"], "command-not-executable"),
        (["--", "/"], "command-not-executable"),
    ],
)
def test_a_command_that_cannot_run(rtlaunch, words, code):
    """check finds a bad command by the code that a launch would refuse with."""
    answer = check(rtlaunch, *words)
    assert answer["refused_by"] == code
    assert answer["checks"][0] | {"text": ""} == {
        "subject": "program", "state": "refused", "text": "", "code": code
    }  # fmt: skip


def test_the_command_is_not_started(rtlaunch, tmp_path):
    """check starts nothing."""
    check(rtlaunch, "--", "touch", str(tmp_path / "trace"))
    assert list(tmp_path.iterdir()) == []


# --- the machine -----------------------------------------------------------------------------

SETTINGS = [
    ("/proc/sys/vm/compact_unevictable_allowed", "1", "compaction-unevictable"),
    ("/sys/kernel/mm/ksm/run", "1", "ksm-on"),
]


@pytest.mark.parametrize(("path", "bad", "code"), SETTINGS)
def test_settings_are_the_kernels(rtlaunch, path, bad, code):
    """A setting is found exactly if the kernel's file says so."""
    assert (code in codes(check(rtlaunch))) is (setting(path) == bad)


def test_huge_pages_are_the_kernels(rtlaunch):
    """The mode of transparent huge pages is the one in brackets."""
    mode = setting(host.THP).partition("[")[2].partition("]")[0]
    assert told(check(rtlaunch))["huge pages"] == f"transparent: {mode}"


def test_swap_is_the_kernels(rtlaunch):
    """Swap is found exactly if /proc/swaps lists any."""
    on = len(setting("/proc/swaps").splitlines()) > 1
    assert ("swap-on" in codes(check(rtlaunch))) is on


def test_findings_are_of_the_contract_and_have_a_cure(rtlaunch):
    """Whatever check finds here is a known code, with all three parts of its remedy."""
    for finding in check(rtlaunch)["findings"]:
        assert finding["code"] in CODES
        assert all(finding["remedy"].values()), finding


# --- for people ------------------------------------------------------------------------------


def test_the_table_and_the_answer(rtlaunch):
    """The text has a line for each subject and ends with the answer."""
    process = rtlaunch.start("check", "--", "true")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    subjects = [line[11:].split("  ")[0].strip() for line in out.splitlines() if line[:2] == "  "]
    assert {"program", "shim", "mlockall", "swap", "watch"} <= set(subjects)
    assert out.endswith("\nwould start\n")


def test_a_closed_pipe_is_no_traceback(rtlaunch):
    """A reader that leaves gets 125 from check, and no word on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    process = rtlaunch.start("check", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (125, "")


def test_version_tells_what_a_report_of_a_defect_needs(rtlaunch):
    """--version -v has version, protocol, shims, profiles, kernel and watch source."""
    process = rtlaunch.start("--version", "-v")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("rtlaunch ")
    facts = dict(line.strip().split("  ", 1) for line in out.splitlines()[1:])
    assert {"protocol", "shims", "profiles", "kernel", "python", "watch source"} == set(facts)
    assert os.uname().machine in facts["shims"]
    assert os.uname().release in facts["kernel"]


def test_version_alone_is_one_line(rtlaunch):
    """--version is for scripts."""
    process = rtlaunch.start("--version")
    out, _ = process.communicate(timeout=60)
    assert len(out.splitlines()) == 1


# --- the trial -------------------------------------------------------------------------------

AS_NOBODY = launching.NOBODY


def locked_kib() -> int:
    lines = setting("/proc/self/status").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck"))


def test_the_trial_locks_nothing_of_ours():
    """Only the child locks, and it is gone: we are as before."""
    before = locked_kib()
    host.try_lock(1 << 20, lambda: None)
    assert locked_kib() == before


def test_the_trial_is_the_kernels_judgement(as_user):
    """Without the capability, under 8 MiB, the kernel refuses what is above that, and no less."""
    as_user("limited")  # skips where we cannot become another user
    assert COMFORT_BYTES > launching.EIGHT_MIB
    script = (
        "import os, resource, sys; from rtlaunch.linux import host;"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20));"
        f"trial = host.try_lock(int(sys.argv[1]), lambda: os.setresuid(*[{AS_NOBODY}] * 3));"
        "print(trial.lockall, trial.least, trial.comfort)"
    )
    answers = [
        subprocess.run(
            [os.sys.executable, "-c", script, str(size)], capture_output=True, text=True, check=True
        ).stdout.split()
        for size in (4 << 20, 12 << 20)
    ]
    assert answers[0][:2] == ["0", "0"]
    assert int(answers[0][2]) in ENOMEM_OR_EAGAIN
    assert answers[1][0] == "0"
    assert int(answers[1][1]) in ENOMEM_OR_EAGAIN
    assert answers[1][2] == "None"


def test_a_step_that_fails_before_the_trial_ends_it():
    """An OSError of what comes before the lock leaves every step untried."""

    def fail() -> None:
        raise PermissionError(1, "no")

    trial = host.try_lock(1 << 20, fail)
    assert (trial.lockall, trial.least, trial.comfort, trial.signal) == (None, None, None, 0)


def test_a_defect_in_the_trial_is_not_taken_for_an_answer(capfd):
    """Any other error of the child's is ours: it is raised here, not read as a success."""
    with pytest.raises(ChildProcessError):
        host.try_lock(1 << 20, lambda: 1 // 0)
