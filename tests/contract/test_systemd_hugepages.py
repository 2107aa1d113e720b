"""The unit that reserves huge pages at boot is one that systemd takes without a word."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests import launching
from tests.skips import skip

UNIT = Path(__file__).parents[2] / "systemd" / "rtlaunch-hugepages.service"
INSTALLED = "/usr/bin/rtlaunch"


def test_systemd_verifies_the_unit(tmp_path):
    """With rtlaunch where it is installed: systemd-analyze says nothing at all."""
    if shutil.which("systemd-analyze") is None:
        skip("no-systemd-analyze")
    program = tmp_path / "rtlaunch"
    program.symlink_to(launching.stub())
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(INSTALLED, str(program)))
    ran = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_unit_reserves_and_releases():
    """It calls the command in the words that the command knows."""
    lines = UNIT.read_text().splitlines()
    assert f"ExecStart={INSTALLED} hugepages reserve $HUGEPAGES" in lines
    assert f"ExecStop={INSTALLED} hugepages release" in lines
