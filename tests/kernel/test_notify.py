"""What is bound to the PID that a service manager started is refused by name, while we fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.launching import Launcher

# sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)
PROTOCOLS = {"NOTIFY_SOCKET": "/run/systemd/notify", "LISTEN_PID": "1", "WATCHDOG_PID": "1"}


@pytest.mark.parametrize("variable", PROTOCOLS)
def test_a_protocol_bound_to_our_pid_is_refused_by_name(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """The program would be another PID: 125, the variable is named, nothing was started."""
    monkeypatch.setenv(variable, PROTOCOLS[variable])
    ran = rtlaunch.run("--", "touch", tmp_path / "started")
    assert ran.code == 125
    assert ran.err.startswith("rtlaunch: refused [notify-supervise]: ")
    assert variable in ran.err
    assert ran.report["verdict"] == "refused"
    assert ran.report["findings"][-1]["values"]["variables"] == [variable]
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("variable", PROTOCOLS)
def test_allowed_by_name_it_runs_and_sees_what_it_would_have_seen(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """--allow notify-supervise: the variable reaches the program as it was."""
    monkeypatch.setenv(variable, PROTOCOLS[variable])
    ran = rtlaunch.run("--allow", "notify-supervise", "--", "printenv", variable)
    assert (ran.code, ran.out) == (0, PROTOCOLS[variable] + "\n")
    assert "allowed [notify-supervise]" in ran.err
    assert ran.report["verdict"] == "clean"


def test_all_of_them_are_named_at_once(rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """One refusal for all three."""
    for variable, value in PROTOCOLS.items():
        monkeypatch.setenv(variable, value)
    err = rtlaunch.run("--", "true").err
    assert all(variable in err for variable in PROTOCOLS)
    assert err.count("refused") == 1


def test_an_empty_variable_binds_nobody(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty is unset, as the protocols have it."""
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert rtlaunch.run("--", "true").code == 0
