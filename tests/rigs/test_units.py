"""The units that are shipped, as they are, under a real systemd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host import wait_until
from tests.rigs.manager import RTLAUNCH

if TYPE_CHECKING:
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


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_nothing_to_complain_of(shipped: Manager, name: str) -> None:
    """systemd-analyze verify says nothing: an unknown key is on stderr alone, with exit code 0."""
    instance = name.replace("@.", "@demo.")
    said = shipped.run("systemd-analyze", "verify", f"/etc/systemd/system/{instance}", check=False)
    assert said == ""


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
