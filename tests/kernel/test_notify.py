"""What is bound to the PID that a service manager started is refused by name, while we fork."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.launching import Launcher

# sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3); $$ is the pid of rtlaunch
PROTOCOLS = {
    "NOTIFY_SOCKET": "NOTIFY_SOCKET=/run/systemd/notify",
    "LISTEN_PID": "LISTEN_PID=$$ LISTEN_FDS=1",
    "WATCHDOG_PID": "WATCHDOG_PID=$$ WATCHDOG_USEC=1000000",
}


def run_as_a_service(
    rtlaunch: Launcher, variables: str, *words: str | Path
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run rtlaunch in the place of a shell that sets these variables; return it and its report."""
    report = rtlaunch.report_path()
    line = f'export {variables}; exec "$@"'
    command = ["sh", "-c", line, "sh", *rtlaunch.words("--report", report, *words)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return ran, json.loads(report.read_text())


@pytest.mark.parametrize("variable", PROTOCOLS)
def test_a_protocol_bound_to_our_pid_is_refused_by_name(
    rtlaunch: Launcher, tmp_path: Path, variable: str
) -> None:
    """The program would be another PID: 125, the variable is named, nothing was started."""
    ran, report = run_as_a_service(
        rtlaunch, PROTOCOLS[variable], "--", "touch", tmp_path / "started"
    )
    assert ran.returncode == 125
    assert ran.stderr.startswith("rtlaunch: refused [notify-supervise]: ")
    assert variable in ran.stderr
    assert report["verdict"] == "refused"
    assert report["findings"][-1]["values"]["variables"] == [variable]
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("variable", PROTOCOLS)
def test_allowed_by_name_it_runs_and_sees_what_it_would_have_seen(
    rtlaunch: Launcher, variable: str
) -> None:
    """--allow notify-supervise: the variable reaches the program as it was."""
    shown = ("sh", "-c", f'echo "$PPID ${variable}"')
    ran, report = run_as_a_service(
        rtlaunch, PROTOCOLS[variable], "--allow", "notify-supervise", "--", *shown
    )
    pid, value = ran.stdout.split()
    assert f"{variable}={value}" in PROTOCOLS[variable].replace("$$", pid).split()
    assert "allowed [notify-supervise]" in ran.stderr
    assert report["verdict"] == "clean"


def test_all_of_them_are_named_at_once(rtlaunch: Launcher) -> None:
    """One refusal for all three."""
    ran, _ = run_as_a_service(rtlaunch, " ".join(PROTOCOLS.values()), "--", "true")
    assert all(variable in ran.stderr for variable in PROTOCOLS)
    assert ran.stderr.count("refused") == 1


@pytest.mark.parametrize(
    "variables",
    ["LISTEN_PID=1 LISTEN_FDS=1", "WATCHDOG_PID=1 WATCHDOG_USEC=9", "WATCHDOG_PID=$$"],
    ids=["sockets of somebody else", "watchdog of somebody else", "watchdog without a time"],
)
def test_what_nobody_would_heed_binds_nobody(rtlaunch: Launcher, variables: str) -> None:
    """It is no reason to refuse, and reaches the program as it would without us."""
    name, value = variables.partition(" ")[0].split("=")
    shown = ("sh", "-c", f'echo "$PPID ${name}"')
    ran, report = run_as_a_service(rtlaunch, variables, "--", *shown)
    pid, found = ran.stdout.split()
    assert (found, report["verdict"]) == (value.replace("$$", pid), "clean")


def test_an_empty_variable_binds_nobody(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty is unset, as the protocols have it."""
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert rtlaunch.run("--", "true").code == 0
