"""--mode exec: the program has our PID, and what watches it is nobody's business."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rtlaunch.engine.detach import SideProcess
from rtlaunch.linux import libc
from tests import books
from tests.host import compile_c, wait_until
from tests.kernel import seccomp
from tests.kernel.detached import EXEC, GONE_WITHIN_S, major_in, watchers_of, written
from tests.kernel.faulting import make_file
from tests.kernel.processes import children, is_alive, stat, status
from tests.standing import PYTHON, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launching import Launcher

MLOCKALL = {"x86_64": 151}
STATIC = """\
#include <stdio.h>
#include <unistd.h>
int main(void) {
    printf("ready %d\\n", getpid());
    fflush(stdout);
    return getchar() == EOF ? 0 : 1;
}
"""


def test_the_program_has_our_pid_and_is_locked(rtlaunch: Launcher) -> None:
    """The kernel's books of the PID that was started: every lockable mapping locked."""
    with standing(rtlaunch, *EXEC, "--", *PYTHON) as held:
        assert held.pid == held.process.pid
        assert books.not_held(held.pid) == []
        watching = watchers_of(held.report_path)
        held.end()
    found = written(held.report_path)
    assert len(watching) == 1
    assert found["verdict"] == "clean"
    assert found["mode"] == {"chosen": "exec", "why": "asked for"}
    assert found["target"]["pid"] == held.pid


def test_the_side_process_is_no_child_of_the_program(rtlaunch: Launcher) -> None:
    """No child, another session, and none of the program's descriptors but stderr."""
    with standing(rtlaunch, *EXEC, "--", *PYTHON) as held:
        (watcher,) = watchers_of(held.report_path)
        assert children(held.pid) == []
        assert stat(watcher)[3] == str(watcher)  # its own session
        theirs = {os.readlink(f"/proc/{held.pid}/fd/{fd}") for fd in (0, 1, 2)}
        links = {os.readlink(entry) for entry in Path(f"/proc/{watcher}/fd").iterdir()}
        assert not theirs & links


@pytest.mark.parametrize("code", [0, 7, 125])
def test_the_exit_status_is_the_programs(rtlaunch: Launcher, code: int) -> None:
    """Seen by its parent, and in the report."""
    report = rtlaunch.report_path()
    ran = rtlaunch.start("--report", report, *EXEC, "--", "sh", "-c", f"exit {code}")
    ran.communicate(timeout=20)
    assert ran.returncode == code
    assert written(report)["exit"]["code"] == code


def test_the_signal_that_ends_it_is_the_programs(rtlaunch: Launcher) -> None:
    """Not 128 + N by a wrapper: the parent sees the signal itself."""
    report = rtlaunch.report_path()
    ran = rtlaunch.start("--report", report, *EXEC, "--", "sh", "-c", "kill -KILL $$")
    ran.communicate(timeout=20)
    assert ran.returncode == -signal.SIGKILL
    assert written(report)["exit"]["signal"] == "SIGKILL"


def test_a_pipe_ends_with_the_program(rtlaunch: Launcher) -> None:
    """Who reads the program's output to its end does not wait for the side process."""
    report = rtlaunch.report_path()
    ran = rtlaunch.start("--report", report, *EXEC, "--", "sh", "-c", "echo out; echo err >&2")
    out, err = ran.communicate(timeout=20)
    assert (out, err) == ("out\n", "err\n")
    written(report)


def test_sigterm_to_the_whole_group_is_the_programs_alone(rtlaunch: Launcher) -> None:
    """As a service manager sends it to all of a control group: the report is written after it."""
    with standing(rtlaunch, *EXEC, "--", *PYTHON) as held:
        (watcher,) = watchers_of(held.report_path)
        os.kill(watcher, signal.SIGTERM)
        os.kill(watcher, signal.SIGINT)
        assert held.process.poll() is None
        assert is_alive(watcher)
        os.kill(held.pid, signal.SIGTERM)
        held.process.wait(timeout=20)
        ended = time.monotonic()
        wait_until(lambda: not is_alive(watcher), "the side process stays")
        assert time.monotonic() - ended < GONE_WITHIN_S
    assert written(held.report_path)["exit"]["signal"] == "SIGTERM"


def test_sockets_and_watchdog_of_a_manager_stay_the_programs(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is bound to the PID that was started is no reason to refuse: the program has it."""
    for variable in ("NOTIFY_SOCKET", "LISTEN_PID", "WATCHDOG_PID"):
        monkeypatch.setenv(variable, "1")
    report = rtlaunch.report_path()
    ran = rtlaunch.start("--report", report, *EXEC, "--", "printenv", "LISTEN_PID")
    assert ran.communicate(timeout=20)[0] == "1\n"
    assert written(report)["verdict"] == "clean"


def test_a_lock_that_fails_is_125_under_the_programs_own_pid(
    rtlaunch: Launcher, tmp_path: Path
) -> None:
    """mlockall refused by seccomp: no main(), 125 for the parent, the report says why."""
    report, marker = rtlaunch.report_path(), tmp_path / "marker"
    number = MLOCKALL.get(os.uname().machine, 230)
    denied = partial(seccomp.answer, number, seccomp.EPERM_ANSWER)
    ran = rtlaunch.start("--report", report, *EXEC, "--", "touch", marker, preexec_fn=denied)
    _, err = ran.communicate(timeout=20)
    assert ran.returncode == 125
    assert not marker.exists()
    assert "refused [lock-denied]" in err
    found = written(report)
    assert (found["verdict"], found["findings"][-1]["code"]) == ("refused", "lock-denied")


def test_a_lock_without_a_descriptor_to_ask_by_is_125_too(rtlaunch: Launcher) -> None:
    """The shim that has no socket of its own is told to refuse on the one that it inherited."""
    ran = rtlaunch.run(*EXEC, "--limit", "nofile=4", "--", "/bin/sleep", "0")
    assert (ran.code, ran.out) == (125, "")
    assert written(rtlaunch.folder / "report-1.json")["verdict"] == "refused"


def test_a_command_that_cannot_be_executed_is_said_once(rtlaunch: Launcher, tmp_path: Path) -> None:
    """The kernel's own refusal of the exec: one message, the contract's code, a report."""
    report, command = rtlaunch.report_path(), tmp_path / "command"
    command.write_bytes(b"\x7fELF" + bytes(60))
    command.chmod(0o755)
    ran = rtlaunch.start("--report", report, *EXEC, "--", command)
    _, err = ran.communicate(timeout=20)
    assert ran.returncode == 126
    assert err.count("refused [") == 1


@pytest.mark.parametrize(
    "words", [("--max-major", "0"), ("--max-minor", "0"), ("--arm", "signal:USR1")]
)
def test_what_needs_us_as_the_parent_is_refused_by_name(
    rtlaunch: Launcher, words: tuple[str, ...]
) -> None:
    """125, the option named, nothing started."""
    ran = rtlaunch.run(*EXEC, *words, "--", "true")
    assert ran.code == 125
    assert "refused [mode-exec]" in ran.err
    assert words[0] in ran.err


def started_as_a_service(rtlaunch: Launcher, *words: str | Path) -> list[str]:
    """Return the words of a shell that becomes rtlaunch with its own PID named, as systemd does."""
    line = 'export SYSTEMD_EXEC_PID=$$; exec "$@"'
    return ["sh", "-c", line, "sh", *rtlaunch.words(*words)]


def test_auto_is_exec_where_systemd_started_us(rtlaunch: Launcher) -> None:
    """SYSTEMD_EXEC_PID names our own PID: the program takes it; the report says why."""
    report = rtlaunch.report_path()
    words = started_as_a_service(rtlaunch, "--report", report, "--", "sh", "-c", "echo $$")
    ran = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=rtlaunch.folder)
    out, _ = ran.communicate(timeout=20)
    assert out == f"{ran.pid}\n"
    mode = written(report)["mode"]
    assert mode["chosen"] == "exec"
    assert f"SYSTEMD_EXEC_PID is our own PID, {ran.pid}" in mode["why"]


def test_auto_is_supervise_where_the_exit_status_must_be_ours(rtlaunch: Launcher) -> None:
    """--max-major under systemd: 123 can only come from a parent."""
    words = started_as_a_service(rtlaunch, "plan", "--max-major", "3", "--", "true")
    out = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "mode: supervise (SYSTEMD_EXEC_PID" in out
    assert "--max-major needs the exit status to be ours" in out


def test_the_variable_of_another_process_is_no_sign(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that a service started, and that starts us: supervise."""
    monkeypatch.setenv("SYSTEMD_EXEC_PID", "1")
    monkeypatch.setenv("INVOCATION_ID", "0" * 32)
    assert rtlaunch.run("--", "true").report["mode"]["chosen"] == "supervise"


def test_a_report_is_there_as_soon_as_the_program_runs(rtlaunch: Launcher) -> None:
    """Incomplete, and true: SIGKILL of program and side process leaves it."""
    with standing(rtlaunch, *EXEC, "--", *PYTHON) as held:
        wait_until(held.report_path.exists, "no report while it runs")
        (watcher,) = watchers_of(held.report_path)
        os.kill(watcher, signal.SIGKILL)
        os.kill(held.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(watcher), "the side process stays")
    found = json.loads(held.report_path.read_text())
    assert (found["state"], found["complete"], found["lock"]["ok"]) == ("running", False, True)
    assert os.listdir(held.report_path.parent) == [held.report_path.name]


def test_faults_are_in_the_report_while_the_program_runs(
    rtlaunch: Launcher, targets: Path, here: Path
) -> None:
    """Major faults, a second later at most, by the kernel's own count."""
    faulter, file = targets / "faulter", make_file(here / "watched", 64)
    with standing(rtlaunch, *EXEC, "--lock", "current", "--", faulter, file) as held:
        wait_until(held.report_path.exists, "no report while it runs")
        assert held.ask("evict") == "left 0"
        held.ask("touch 0 12")
        counted = books.major_faults(held.process.pid)
        assert counted >= 1
        wait_until(lambda: major_in(held.report_path) == counted, "the faults are not reported")


def test_a_static_program_is_locked_in_its_own_pid(rtlaunch: Launcher, here: Path) -> None:
    """By the side process, which traces it over its exec and lets it go."""
    source = here / "own.c"
    source.write_text(STATIC)
    program = compile_c(source, here / "own", "-static")
    with standing(rtlaunch, *EXEC, "--", program) as held:
        assert held.pid == held.process.pid
        assert status(held.pid, "TracerPid") == "0"
        assert books.not_held(held.pid) == []
    found = written(held.report_path)
    assert (found["verdict"], found["lock"]["via"]) == ("clean", "ptrace")


def test_a_target_that_we_may_not_kill_is_refused_all_the_same(
    rtlaunch: Launcher, here: Path
) -> None:
    """Of another user, no CAP_KILL, its memory closed to us: 125, and nobody is left."""
    source = here / "own.c"
    source.write_text(STATIC)
    program = compile_c(source, here / "own", "-static")
    report = rtlaunch.report_path()
    words = rtlaunch.words("--report", report, "--user", "nobody", *EXEC, "--", program)
    lacking = "-kill,-dac_override,-dac_read_search"
    weak = ["setpriv", f"--bounding-set={lacking}", f"--inh-caps={lacking}"]
    ran = subprocess.run([*weak, *words], capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 125
    assert "refused [inject-failed]" in ran.stderr
    assert written(report)["verdict"] == "refused"


def test_a_relative_report_is_where_we_were_started(rtlaunch: Launcher) -> None:
    """The side process writes it to the folder that it was named from."""
    words = ("--report", "relative.json", *EXEC, "--", "true")
    rtlaunch.start(*words, cwd=rtlaunch.folder).communicate(timeout=20)
    report = rtlaunch.folder / "relative.json"  # by which its side process cannot be found
    wait_until(lambda: report.exists() and json.loads(report.read_text())["complete"], "not whole")
    assert json.loads(report.read_text())["verdict"] == "clean"


@pytest.fixture
def side() -> Iterator[SideProcess]:
    """A side process, in this one, whose target has ended and is reaped."""
    target = subprocess.Popen(["sleep", "60"])
    made = SideProcess.__new__(SideProcess)
    made.fd = os.pidfd_open(target.pid)
    target.kill()
    target.wait()
    made.signals = libc.signalfd4(-1, 1 << signal.SIGUSR2 - 1)
    yield made
    os.close(made.fd)
    os.close(made.signals)


def test_nobody_is_signalled_for_a_number_that_was_given_anew(side: SideProcess) -> None:
    """Who has the PID of the program since its parent reaped it gets no signal of ours."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        with pytest.raises(ProcessLookupError):
            side.kill_by_descriptor(stranger.pid, signal.SIGKILL)
        assert stranger.poll() is None
        stranger.kill()


def test_a_signal_that_the_watcher_took_is_no_end_of_the_side_process(side: SideProcess) -> None:
    """Both threads are woken, one reads it; the other finds nothing, and goes on."""
    side.on_signals()
