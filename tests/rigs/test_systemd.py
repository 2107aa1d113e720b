"""rtlaunch in ExecStart=, under a real systemd: nothing that a unit relies on is broken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.host import wait_until
from tests.rigs.services import locked_bytes

if TYPE_CHECKING:
    from tests.rigs.services import Service

HARDENED = """\
DynamicUser=yes
ProtectSystem=strict
ProtectHome=yes
MemoryDenyWriteExecute=yes
SystemCallFilter=@system-service @memlock
NoNewPrivileges=yes
AmbientCapabilities=CAP_IPC_LOCK
"""



@pytest.mark.parametrize("kind", ["simple", "exec", "notify"])
def test_the_main_pid_is_the_program(service: Service, kind: str) -> None:
    """Whatever the Type: MainPID is the locked program, and the report says by which rule."""
    service.install(f"Type={kind}")
    service.start()
    wait_until(lambda: service.status("Name") == "python3", "it is not the program")
    wait_until(lambda: locked_bytes(service) > 1 << 20, "it is not locked")
    said = f"pid {service.show('MainPID')}"
    wait_until(lambda: said in service.manager.journal(service.name), "main() did not run")
    service.stop()
    report = service.found()
    assert report["verdict"] == "clean"
    assert report["mode"]["chosen"] == "exec"
    assert report["mode"]["why"].startswith("SYSTEMD_EXEC_PID is our own PID")


def test_readiness_and_watchdog_are_heard_from_the_program(service: Service) -> None:
    """Type=notify with NotifyAccess=main and WatchdogSec=: started, and alive past the deadline."""
    service.install("Type=notify", "NotifyAccess=main", "WatchdogSec=2")
    service.start()
    began = service.show("ActiveEnterTimestampMonotonic")
    lines = service.manager.journal(service.name).splitlines()
    assert f"WATCHDOG_PID {service.show('MainPID')}" in lines
    service.manager.run("sleep", "3")
    assert service.show("ActiveState") == "active"
    assert service.show("ActiveEnterTimestampMonotonic") == began


def test_a_program_that_hangs_is_ended_by_its_watchdog(service: Service) -> None:
    """Result=watchdog, as without us."""
    directives = ("Type=notify", "WatchdogSec=1", "Environment=HANG=1", "LimitCORE=0")
    service.install(*directives, options="--core inherit")
    service.start()
    service.manager.wait_for(service.name, "Result", "watchdog")
    assert service.show("ExecMainStatus") == "6"  # SIGABRT, the program's own


def test_the_exit_status_is_the_programs(service: Service) -> None:
    """The code that it ends with on SIGTERM is what the manager sees."""
    service.install("Type=notify", "Environment=CODE=3")
    service.start()
    service.manager.run("systemctl", "stop", service.name)
    assert service.show("ExecMainStatus") == "3"


def test_stopping_takes_no_longer(service: Service) -> None:
    """The side process is gone with the program: no stop timeout, no SIGKILL, nothing left."""
    service.install("Type=notify", "TimeoutStopSec=5", "SendSIGKILL=no")
    service.start()
    service.manager.run("systemctl", "stop", service.name)
    assert service.show("Result") == "success"
    assert service.show("ControlGroup") == ""
    assert "rtlaunch-watch" not in service.manager.run("ps", "-eo", "comm")


def test_a_socket_is_handed_on(service: Service) -> None:
    """Socket activation: LISTEN_PID is the program's own, LISTEN_FDS is there."""
    service.install("Type=notify")
    socket = service.name.replace(".service", ".socket")
    service.manager.unit(socket, f"[Socket]\nListenStream=/run/{socket}\n")
    service.manager.run("systemctl", "start", socket)
    service.start()
    lines = service.manager.journal(service.name).splitlines()
    assert f"LISTEN_PID {service.show('MainPID')}" in lines
    assert "LISTEN_FDS 1" in lines
    service.manager.run("systemctl", "stop", socket)


def test_a_hardened_unit_is_locked(service: Service) -> None:
    """DynamicUser, ProtectSystem=strict, MemoryDenyWriteExecute, a system call filter."""
    service.install("Type=notify", HARDENED)
    service.start()
    assert locked_bytes(service) > 1 << 20
    assert service.status("Uid").split()[0] != "0"
    service.stop()
    assert service.found()["lock"]["ok"] is True


def test_a_refusal_is_not_restarted(service: Service) -> None:
    """125 is in RestartPreventExitStatus=: no start loop, and the journal says why."""
    service.install(
        "Type=exec", "DynamicUser=yes", "LimitMEMLOCK=64K", "Restart=always", "RestartSec=100ms",
        "RestartPreventExitStatus=125 126 127",
    )  # fmt: skip
    service.start(check=False)
    service.manager.wait_for(service.name, "ActiveState", "failed")
    assert service.show("ExecMainStatus") == "125"
    assert service.show("NRestarts") == "0"
    assert "refused [memlock-limit]" in service.manager.journal(service.name)


def test_supervise_refuses_what_it_would_break(service: Service) -> None:
    """--mode supervise under Type=notify: refused by name, with the line that works."""
    service.install("Type=notify", options="--mode supervise")
    service.start(check=False)
    service.manager.wait_for(service.name, "ActiveState", "failed")
    journal = service.manager.journal(service.name)
    assert "refused [notify-supervise]" in journal
    assert "--mode exec" in journal


def test_sigkill_of_the_whole_group_leaves_a_report(service: Service) -> None:
    """systemctl kill -s KILL --kill-who=all: what was proven and counted is on the disk."""
    service.install("Type=notify")
    service.start()
    service.manager.run("systemctl", "kill", "-s", "KILL", "--kill-who=all", service.name)
    service.manager.wait_for(service.name, "ActiveState", "failed")
    report = json.loads(service.manager.read(service.report))
    assert (report["state"], report["lock"]["ok"]) == ("running", True)
