"""rtlaunch in ExecStart=, under a real systemd: nothing that a unit relies on is broken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.host import compile_c, wait_until
from tests.rigs.services import locked_bytes
from tests.skips import skip

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rigs.services import Service

CAPABLE = "AmbientCapabilities=CAP_IPC_LOCK"
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


def test_a_limit_that_was_clamped_without_a_word_is_said(service: Service) -> None:
    """LimitMEMLOCK=infinity, and 8 MiB given: the message says both, and what to write instead."""
    service.install(
        "Type=exec", "DynamicUser=yes", "LimitMEMLOCK=infinity",
        options="--prefault-stack 7M", command="/usr/bin/python3 -c pass",
    )  # fmt: skip
    if service.manager.raises_limits():
        skip("sys-resource")
    service.start(check=False)
    service.manager.wait_for(service.name, "ActiveState", "failed")
    journal = service.manager.journal(service.name)
    assert "refused [memlock-budget]" in journal
    assert f"{service.name} has LimitMEMLOCK=infinity, and was given 8 MiB" in journal
    drop_in = journal[journal.index("[Service]") :].splitlines()[:2]
    service.manager.write(
        f"/etc/systemd/system/{service.name}.d/as-said.conf",
        "\n".join(line.strip() for line in drop_in) + "\n",
    )
    service.manager.run("systemctl", "daemon-reload")
    service.start()
    service.manager.wait_for(service.name, "ActiveState", "inactive")
    assert service.show("Result") == "success"


def test_a_forking_unit_is_refused_with_the_reason(service: Service) -> None:
    """The daemon would be a fork, and unlocked: 125, at once and not after a time-out."""
    service.install("Type=forking", "TimeoutStartSec=30")
    service.start(check=False)
    assert service.show("Result") == "exit-code"
    journal = service.manager.journal(service.name)
    assert f"refused [unit-forking]: {service.name} has Type=forking" in journal


MUTE = "/usr/bin/python3 -c 'import time; time.sleep(60)'"


@pytest.mark.parametrize("mode", ["exec", "supervise"])
def test_a_program_that_cannot_say_ready_is_said_to_be(service: Service, mode: str) -> None:
    """--notify: NotifyAccess=main takes it, and the unit is up, and locked by then."""
    service.install(
        "Type=notify", "NotifyAccess=main", "TimeoutStartSec=10",
        options=f"--notify --mode {mode}", command=MUTE,
    )  # fmt: skip
    service.start()
    assert service.show("ActiveState") == "active"
    program = service.target()
    assert service.manager.not_held(program) == []
    service.stop()
    times = service.found()["time"]
    assert times["proven_ns"] < times["ready_ns"] < times["go_ns"]


def test_a_static_program_is_said_to_be_ready_as_well(service: Service, tmp_path: Path) -> None:
    """Locked from outside, and READY=1 in its own name."""
    source = tmp_path / "mute.c"
    source.write_text("#include <unistd.h>\nint main(void) { pause(); return 0; }\n")
    service.manager.install(compile_c(source, tmp_path / "mute", "-static"), "/opt/mute")
    service.install(
        "Type=notify", "NotifyAccess=main", "TimeoutStartSec=10",
        options="--notify", command="/opt/mute",
    )  # fmt: skip
    service.start()
    assert service.show("ActiveState") == "active"
    assert service.manager.not_held(service.show("MainPID")) == []


def test_notify_where_nobody_waits_is_no_error(service: Service) -> None:
    """Type=exec has no NOTIFY_SOCKET: a warning, and it runs."""
    service.install("Type=exec", options="--notify", command=MUTE)
    service.start()
    said = "warning [notify-missing]"
    wait_until(lambda: said in service.manager.journal(service.name), "no warning")
    assert service.show("ActiveState") == "active"


# What units are hardened with: each by itself, so that a failure names it.
DIRECTIVES = {
    "dynamic user": ("DynamicUser=yes", CAPABLE),
    "strict": ("ProtectSystem=strict",),
    "no home": ("ProtectHome=yes",),
    "no write and execute": ("MemoryDenyWriteExecute=yes",),
    "system call filter": ("SystemCallFilter=@system-service @memlock",),
    "filter with perf": ("SystemCallFilter=@system-service @memlock perf_event_open",),
    "no new privileges": ("User=nobody", "NoNewPrivileges=yes", CAPABLE),
    "no devices": ("PrivateDevices=yes", "PrivateTmp=yes", "PrivateNetwork=yes"),
    "no tunables": ("ProtectKernelTunables=yes", "ProtectProc=invisible", "ProcSubset=all"),
    "bounded": ("User=nobody", "CapabilityBoundingSet=CAP_IPC_LOCK", CAPABLE),
}


@pytest.mark.parametrize("hardening", DIRECTIVES)
def test_what_hardens_a_unit_leaves_it_locked_and_ready(service: Service, hardening: str) -> None:
    """Under Type=notify and a watchdog; every mapping that can be is locked."""
    service.install("Type=notify", "WatchdogSec=20", *DIRECTIVES[hardening])
    service.start()
    assert service.manager.not_held(service.show("MainPID")) == []
    service.stop()
    assert service.found()["lock"]["ok"] is True


def test_a_crash_is_restarted(service: Service) -> None:
    """Restart=on-failure: a new main process, locked as the first one was."""
    service.install("Type=notify", "Restart=on-failure", "RestartSec=100ms", "LimitCORE=0",
                    options="--core inherit")  # fmt: skip
    service.start()
    first = service.show("MainPID")
    service.manager.run("kill", "-SEGV", first)
    service.manager.wait_for(service.name, "NRestarts", "1")
    service.manager.wait_for(service.name, "ActiveState", "active")
    assert service.show("MainPID") != first
    assert locked_bytes(service) > 1 << 20


# A launch takes some 80 ms here: from before it has begun to past main().
DELAYS_MS = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 100, 130)


@pytest.mark.parametrize("kind", ["exec", "notify"])
def test_a_stop_at_any_step_of_a_launch_ends_it(service: Service, kind: str) -> None:
    """No hang, no SIGKILL by the manager, nobody left; and what there is of a report is whole."""
    service.install(f"Type={kind}", "TimeoutStopSec=5", "TimeoutStartSec=10")
    for delay in DELAYS_MS:
        service.manager.run("systemctl", "start", "--no-block", service.name)
        service.manager.run("sleep", f"0.{delay:03}")
        service.manager.run("systemctl", "stop", service.name)
        assert service.show("Result") in ("success", "signal"), delay
        assert service.show("ExecMainStatus") != "9", delay
        assert service.show("ControlGroup") == "", delay
        report = service.manager.run("cat", service.report, check=False)
        assert "No such file" in report or json.loads(report)["state"], delay
        service.manager.run("systemctl", "reset-failed", service.name, check=False)


# Stops whoever would judge the next image, and becomes it.
UNJUDGED = """\
#!/bin/sh
kill -STOP "$(pgrep rtlaunch-watch -x | tail -n 1)"
exec /usr/bin/sleep 60
"""


def test_a_stop_during_the_lock_ends_it(service: Service) -> None:
    """The image stands in its shim and waits for the word: SIGTERM ends it, as before main()."""
    service.manager.write("/opt/unjudged", UNJUDGED)
    service.manager.run("chmod", "755", "/opt/unjudged")
    service.install("Type=exec", "TimeoutStopSec=5", command="/opt/unjudged")
    service.start()
    wait_until(lambda: service.status("Name") == "sleep", "it never came to its exec")
    service.manager.run("systemctl", "stop", service.name)
    assert service.show("Result") == "success"
    assert service.show("ControlGroup") == ""
    assert service.found()["exit"]["signal"] == "SIGTERM"


def test_supervise_refuses_what_it_would_break(service: Service) -> None:
    """--mode supervise under Type=notify: refused by name, with the line that works."""
    service.install("Type=notify", options="--mode supervise")
    service.start(check=False)
    service.manager.wait_for(service.name, "ActiveState", "failed")
    journal = service.manager.journal(service.name)
    assert "refused [notify-supervise]" in journal
    assert "--mode exec" in journal


def test_sigkill_of_the_whole_group_leaves_a_report(service: Service) -> None:
    """systemctl kill -s KILL --kill-who=all: all but the last second is on the disk."""
    service.install("Type=notify")
    service.start()
    service.manager.run("timeout", "5", "sh", "-c", 'until [ -e "$0" ]; do :; done', service.report)
    service.manager.run("systemctl", "kill", "-s", "KILL", "--kill-who=all", service.name)
    service.manager.wait_for(service.name, "ActiveState", "failed")
    report = json.loads(service.manager.read(service.report))
    assert (report["state"], report["lock"]["ok"]) == ("running", True)
