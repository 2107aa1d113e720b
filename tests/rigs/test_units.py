"""The units that are shipped, as they are, under a real systemd."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host import compile_c, wait_until
from tests.rigs.manager import RTLAUNCH
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rigs.manager import Manager

SHIPPED = Path(__file__).resolve().parents[2] / "systemd"
UNITS = sorted(path.name for path in SHIPPED.glob("*.service"))
PROFILE = """\
format = 1
command = ["/usr/bin/python3", "-c", "import time; print('up', flush=True); time.sleep(60)"]
sched = "fifo:10"
"""


@pytest.fixture
def shipped(manager: Manager) -> Manager:
    """A systemd that has the shipped units, and rtlaunch where they look for it."""
    manager.run("ln", "-sf", RTLAUNCH, "/usr/bin/rtlaunch")
    for name in UNITS:
        manager.unit(name, (SHIPPED / name).read_text())
    return manager


def complaints(shipped: Manager, unit: str) -> str:
    """What systemd-analyze says; the manual pages that a unit names need not be installed."""
    path = f"/etc/systemd/system/{unit}"
    return shipped.run("systemd-analyze", "verify", "--man=no", path, check=False)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_nothing_to_complain_of(shipped: Manager, name: str) -> None:
    """systemd-analyze verify says nothing: an unknown key is on stderr alone, with exit code 0."""
    assert complaints(shipped, name.replace("@.", "@demo.")) == ""


# What Debian's unit of redis-server has that a wrapper could stumble over.
REDIS = """\
[Service]
Type=notify
ExecStart=/usr/bin/redis-server /etc/redis/redis.conf --supervised systemd --daemonize no
PIDFile=/run/redis/redis-server.pid
TimeoutStopSec=0
Restart=always
User=redis
Group=redis
RuntimeDirectory=redis
RuntimeDirectoryMode=2755
PrivateTmp=true
PrivateDevices=true
ProtectHome=true
ProtectSystem=strict
CapabilityBoundingSet=
LockPersonality=true
MemoryDenyWriteExecute=true
NoNewPrivileges=true
PrivateUsers=true
ProtectClock=true
ProtectControlGroups=true
ProtectKernelTunables=true
ProtectProc=invisible
RemoveIPC=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~ @privileged @resources
NoExecPaths=/
ExecPaths=/usr/bin/redis-server /usr/lib /lib
"""
SERVER = "redis-check-rdb"  # redis-server by another name (tools/setup.sh)


@pytest.fixture
def redis(shipped: Manager) -> Iterator[str]:
    """The service of redis, with the shipped drop-in."""
    if not shutil.which(SERVER):
        skip("no-redis")
    name = "redis-server.service"
    shipped.run("sh", "-c", f"cp $(command -v {SERVER}) /usr/bin/redis-server")
    shipped.run("sh", "-c", "getent passwd redis || useradd --system --user-group redis")
    settings = "port 0\nunixsocket /run/redis/sock\nsave ''\ndir /tmp\n"
    shipped.write("/etc/redis/redis.conf", settings)
    drop_in = (SHIPPED / f"{name}.d" / "rtlaunch.conf").read_text()
    shipped.write(f"/etc/systemd/system/{name}.d/rtlaunch.conf", drop_in)
    # the rig has rtlaunch in a folder of its own
    own = "[Service]\nExecPaths=/opt/rtlaunch\n"
    shipped.write(f"/etc/systemd/system/{name}.d/where.conf", own)
    shipped.unit(name, REDIS)
    yield name
    shipped.run("systemctl", "stop", name, check=False)


def test_the_drop_in_has_nothing_to_complain_of(shipped: Manager, redis: str) -> None:
    """systemd-analyze verify on the service that it is for."""
    assert complaints(shipped, redis) == ""


def test_the_drop_in_locks_a_hardened_redis(shipped: Manager, redis: str) -> None:
    """redis says READY=1 itself, under the main PID; every mapping that can be is locked."""
    shipped.run("systemctl", "start", redis)
    pid = shipped.show(redis, "MainPID")
    assert shipped.run("readlink", f"/proc/{pid}/exe").strip() == "/usr/bin/redis-server"
    assert shipped.show(redis, "StatusText") == "Ready to accept connections"
    assert shipped.not_held(pid) == []
    shipped.run("systemctl", "stop", redis)
    report = "/run/redis/rtlaunch.json"
    assert shipped.report(report)["lock"]["ok"] is True


@pytest.mark.parametrize("name", UNITS)
def test_the_exposure_is_as_the_unit_says(shipped: Manager, name: str) -> None:
    """Stated in the file, for the version of systemd that is named there; another weighs anew."""
    if not shipped.run("systemctl", "--version").startswith("systemd 252"):
        skip("systemd-other")
    said = re.search(r"systemd-analyze security \(252\): (\d+\.\d)", (SHIPPED / name).read_text())
    found = shipped.run("systemd-analyze", "security", "--offline=yes",
                        f"/etc/systemd/system/{name}", check=False)  # fmt: skip
    assert said
    assert f": {said[1]} " in found.strip().splitlines()[-1]


def test_an_instance_of_a_program_that_says_nothing_is_ready(shipped: Manager) -> None:
    """notify = true in the profile and Type=notify in a drop-in; it is watched by perf too."""
    name = "rtlaunch@mute.service"
    profile = PROFILE.replace('sched = "fifo:10"', "notify = true")
    shipped.write("/etc/rtlaunch/profiles/mute.toml", profile)
    shipped.write(f"/etc/systemd/system/{name}.d/type.conf", "[Service]\nType=notify\n")
    shipped.run("systemctl", "daemon-reload")
    shipped.run("systemctl", "start", name)
    assert shipped.show(name, "ActiveState") == "active"
    assert shipped.not_held(shipped.show(name, "MainPID")) == []
    shipped.run("systemctl", "stop", name)
    report = json.loads(shipped.read("/run/rtlaunch/mute/report.json"))
    assert (report["watch"]["source"], report["verdict"]) == ("perf", "clean")


def test_a_static_program_of_another_user_in_an_instance(shipped: Manager, tmp_path: Path) -> None:
    """What the unit's capabilities and filter are for: --user, ptrace, fifo, a raised limit."""
    source = tmp_path / "still.c"
    source.write_text("#include <unistd.h>\nint main(void) { pause(); return 0; }\n")
    shipped.install(compile_c(source, tmp_path / "still", "-static"), "/opt/still")
    shipped.write(
        "/etc/rtlaunch/profiles/still.toml",
        'format = 1\ncommand = ["/opt/still"]\nuser = "nobody"\nsched = "fifo:10"\nnice = -5\n',
    )
    name = "rtlaunch@still.service"
    shipped.run("systemctl", "start", name)
    pid = shipped.show(name, "MainPID")
    wait_until(lambda: shipped.read(f"/proc/{pid}/comm") == "still\n", "it is not the program")
    wait_until(lambda: shipped.not_held(pid) == [], "it is not locked")
    rows = dict(line.split(":", 1) for line in shipped.read(f"/proc/{pid}/status").splitlines())
    assert rows["Uid"].split()[0] == "65534"
    shipped.run("systemctl", "stop", name)
    report = json.loads(shipped.read("/run/rtlaunch/still/report.json"))
    assert (report["lock"]["via"], report["sched"]["policy"]) == ("ptrace", "fifo")


def test_an_instance_is_a_profile(shipped: Manager) -> None:
    """rtlaunch@NAME runs the command of the profile NAME: locked, with its policy, reported."""
    shipped.write("/etc/rtlaunch/profiles/demo.toml", PROFILE)
    shipped.run("systemctl", "start", "rtlaunch@demo")
    name = "rtlaunch@demo.service"
    wait_until(lambda: "up" in shipped.journal(name), "main() did not run")
    pid = shipped.show(name, "MainPID")
    assert "python3" in shipped.read(f"/proc/{pid}/comm")
    assert shipped.run("chrt", "-p", pid).splitlines()[0].endswith("SCHED_FIFO")
    locked = next(
        line for line in shipped.read(f"/proc/{pid}/status").splitlines() if "VmLck" in line
    )
    assert int(locked.split()[1]) > 1024
    shipped.run("systemctl", "stop", name)
    report = json.loads(shipped.read("/run/rtlaunch/demo/report.json"))
    assert (report["verdict"], report["host"]["unit"]) == ("clean", name)


def test_an_instance_that_is_refused_is_not_restarted(shipped: Manager) -> None:
    """A profile that does not exist: 125, once, and the journal says where it was looked for."""
    name = "rtlaunch@nonesuch.service"
    shipped.run("systemctl", "start", name, check=False)
    shipped.wait_for(name, "ActiveState", "failed")
    assert shipped.show(name, "ExecMainStatus") == "125"
    assert shipped.show(name, "NRestarts") == "0"
    assert "refused [profile-missing]" in shipped.journal(name)
    shipped.run("systemctl", "reset-failed", name)
