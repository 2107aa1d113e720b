"""The program's streams are its own, and whatever becomes of ours is nothing to it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.faulting import make_file
from tests.kernel.processes import DEADLINE, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Launcher

CURRENT = ["--lock", "current"]  # nothing to warn of, even where little may be locked
SAYS_MUCH = ["-v", "--lock", "none"]  # steps, "not locked", a summary


# ---- the program's


def test_bytes_pass_untouched(rtlaunch: Launcher) -> None:
    """Any bytes in, the same bytes out, nothing beside them."""
    data = bytes(range(256)) * 4096 + os.urandom(12345)
    run = rtlaunch.start(*CURRENT, "--", "cat", stdin=subprocess.PIPE, text=False)
    out, err = run.communicate(data, timeout=DEADLINE)
    assert (run.returncode, out, err) == (0, data, b"")


def test_output_and_errors_stay_apart(rtlaunch: Launcher) -> None:
    """Each goes where the program wrote it."""
    ran = rtlaunch.run(*CURRENT, "--", "sh", "-c", "echo to the one; echo to the other >&2")
    assert (ran.out, ran.err) == ("to the one\n", "to the other\n")


def test_nothing_of_the_input_is_read(rtlaunch: Launcher) -> None:
    """What the program leaves in its input is there for the next one."""
    reader, writer = os.pipe()
    os.write(writer, b"one\ntwo\nthree\n")
    os.close(writer)
    ran = rtlaunch.run("--", "head", "-c", "4", stdin=reader)
    assert ran.out == "one\n"
    assert os.read(reader, 100) == b"two\nthree\n"
    os.close(reader)


@pytest.mark.parametrize("flag", [os.O_APPEND, os.O_NONBLOCK], ids=["O_APPEND", "O_NONBLOCK"])
def test_status_flags_stay(rtlaunch: Launcher, tmp_path: Path, flag: int) -> None:
    """The flags of the open files, which we share with who started us, are as before."""
    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | flag) for name in ("in", "out", "err")]
    before = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in fds]
    ran = rtlaunch.run(*SAYS_MUCH, "--", "cat", stdin=fds[0], stdout=fds[1], stderr=fds[2])
    after = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in fds]
    for fd in fds:
        os.close(fd)
    assert ran.code == 0
    assert after == before
    assert before[0] & flag


def test_a_file_is_written_on_where_it_stands(rtlaunch: Launcher, tmp_path: Path) -> None:
    """The program writes at the offset that it was given, and leaves its own behind."""
    with (tmp_path / "file").open("w+") as file:
        file.write("before ")
        file.flush()
        rtlaunch.run("--", "printf", "during", stdout=file)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == len("before during")
    assert (tmp_path / "file").read_text() == "before during"


# ---- ours


@contextmanager
def broken_stream(kind: str) -> Iterator[dict[str, Any]]:
    """Give Popen's arguments for an stderr that cannot be written to."""
    if kind == "closed":
        yield {"stderr": None, "preexec_fn": lambda: os.close(2)}
        return
    if kind == "full":
        reader = fd = os.open("/dev/full", os.O_RDWR)
    else:
        reader, fd = os.pipe()
    if kind == "broken pipe":
        os.close(reader)
    if kind == "stuck":
        fill(fd)
    yield {"stderr": fd}
    for each in {reader, fd} if kind == "stuck" else {fd}:
        os.close(each)


def fill(pipe: int) -> None:
    """Write until nothing more fits; the descriptor blocks again afterwards."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))
    os.set_blocking(pipe, True)


BROKEN = ["full", "broken pipe", "closed", "stuck"]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_stderr_does_not_touch_the_program(rtlaunch: Launcher, kind: str) -> None:
    """Steps, warnings and summary are lost; the program runs, and its code is ours."""
    with broken_stream(kind) as how:
        ran = rtlaunch.run(*SAYS_MUCH, "--", "sh", "-c", "echo it ran; exit 7", **how)
    assert (ran.code, ran.out) == (7, "it ran\n")
    assert ran.report["exit"]["by"] == "target"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_stderr_does_not_change_a_refusal(rtlaunch: Launcher, kind: str) -> None:
    """The message is lost, the exit code and the report are not."""
    with broken_stream(kind) as how:
        ran = rtlaunch.run("--", "/no/such/program", **how)
    assert ran.code == 127
    assert ran.report["verdict"] == "refused"


@pytest.mark.parametrize("kind", ["full", "broken pipe", "stuck"])
def test_faults_that_cannot_be_told_are_counted(
    rtlaunch: Launcher, targets: Path, tmp_path: Path, kind: str
) -> None:
    """The watcher's lines are lost, the program runs on, the report has all of them."""
    file = make_file(tmp_path / "data", 64)
    command = [targets / "faulter", file]
    with (
        broken_stream(kind) as how,
        running(rtlaunch, ["--lock", "current"], command, **how) as run,
    ):
        assert run.ask("evict") == "left 0"
        assert run.ask("touch 0 20") == "touched"
        assert run.ask("touch 20 20") == "touched"
        assert run.end() == 0
        assert json.loads(run.report.read_text())["watch"]["after_arm"]["major"] >= 40


def test_a_reader_that_is_slow_gets_all_of_it(rtlaunch: Launcher) -> None:
    """A full pipe, read a page at a time and every 20 ms: no line is lost, none is cut."""
    reader, writer = os.pipe()
    fill(writer)
    command = ["sh", "-c", "exit 7"]
    run = rtlaunch.start(*SAYS_MUCH, "--", *command, stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    said = ""
    while page := os.read(reader, 4096):
        said += page.lstrip(b"\0").decode()
        time.sleep(0.02)
    os.close(reader)
    assert run.wait(DEADLINE) == 7
    assert said.startswith("rtlaunch: ") and said.endswith("\n")
    assert all(line.startswith("rtlaunch: ") for line in said.splitlines())
    assert "rtlaunch: not locked: lock" in said


# ---- the report


@pytest.mark.parametrize("kind", ["full", "broken pipe", "stuck"])
def test_a_report_that_cannot_be_written_costs_the_program_nothing(
    rtlaunch: Launcher, kind: str
) -> None:
    """It goes to a full disk or a closed pipe: said by name, the program's code is ours."""
    with broken_stream(kind) as how:
        fd = how["stderr"]
        command = ["--report", f"fd:{fd}", "--", "sh", "-c", "echo it ran; exit 7"]
        run = rtlaunch.start(*command, pass_fds=[fd])
        out, err = run.communicate(timeout=DEADLINE)
    assert (run.returncode, out) == (7, "it ran\n")
    assert "[report-unwritable]" in err


def test_a_report_that_outgrows_its_limit_leaves_nothing(
    rtlaunch: Launcher, tmp_path: Path
) -> None:
    """No room for the file (RLIMIT_FSIZE): no half of it is left, the program's code is ours."""
    rtlaunch.prefix = ["prlimit", "--fsize=100"]
    ran = rtlaunch.run("--", "sh", "-c", "exit 7")
    assert (ran.code, ran.report) == (7, {})
    assert "[report-unwritable]" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_in_the_end_costs_the_program_nothing(
    rtlaunch: Launcher, tmp_path: Path
) -> None:
    """Somebody removes it while the program runs."""
    folder = tmp_path / "reports"
    folder.mkdir()
    command = ["--", "sh", "-c", f"rmdir {folder}; exit 7"]
    run = rtlaunch.start("--report", folder / "report.json", *command)
    _, err = run.communicate(timeout=DEADLINE)
    assert run.returncode == 7
    assert "[report-unwritable]" in err


def test_a_report_never_shows_half_of_it(rtlaunch: Launcher, tmp_path: Path) -> None:
    """While the program runs the old report stands; afterwards the new one, whole."""
    path = tmp_path / "report.json"
    path.write_text("the old one")
    run = rtlaunch.start("--report", path, "--", "cat", path)
    out, _ = run.communicate(timeout=DEADLINE)
    assert out == "the old one"
    assert json.loads(path.read_text())["complete"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


# ---- how much is said


def test_by_default_a_good_run_says_nothing(rtlaunch: Launcher) -> None:
    """stderr is no terminal: no summary, no steps."""
    assert rtlaunch.run(*CURRENT, "--", "true").err == ""


def test_an_unlocked_run_is_never_silent(rtlaunch: Launcher) -> None:
    """The line is there without -v, and names the reason."""
    assert rtlaunch.run("--lock", "none", "--", "true").err.startswith("rtlaunch: not locked: ")


def test_quiet_leaves_errors_alone(rtlaunch: Launcher) -> None:
    """-q: nothing of an unlocked run; a refusal is said all the same."""
    assert rtlaunch.run("-q", "--lock", "none", "--", "true").err == ""
    assert "refused [command-not-found]" in rtlaunch.run("-q", "--", "/no/such/program").err


def test_verbose_tells_steps_and_summary(rtlaunch: Launcher) -> None:
    """-v: the plan's own words, and what the run came down to."""
    lines = rtlaunch.run("-v", *CURRENT, "--", "true").err.splitlines()
    assert all(line.startswith("rtlaunch: ") for line in lines)
    assert any("mlockall(MCL_CURRENT)" in line for line in lines)
    assert "0 major faults after arming" in lines[-1]


@pytest.mark.parametrize(
    ("words", "events"),
    [
        ([*SAYS_MUCH, "--", "true"], {"step", "not-locked", "summary"}),
        (["--", "/no/such/program"], {"refused"}),
    ],
)
def test_json_lines_are_json_each(rtlaunch: Launcher, words: list[str], events: set[str]) -> None:
    """--log-format json: every line is an object that says what it is."""
    lines = rtlaunch.run("--log-format", "json", *words).err.splitlines()
    assert {json.loads(line)["event"] for line in lines} == events


def test_a_refusal_in_json_has_its_code(rtlaunch: Launcher) -> None:
    """A machine finds the code and the values."""
    (line,) = rtlaunch.run("--log-format", "json", "--", "/no/such/program").err.splitlines()
    told = json.loads(line)
    assert told["code"] == "command-not-found"
    assert told["values"]["command"] == "/no/such/program"
