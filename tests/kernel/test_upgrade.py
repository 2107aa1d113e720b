"""An upgrade, or a removal, of the package while a program runs: nothing of the run is lost."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.installs import PACK
from tests.kernel.detached import written
from tests.launching import LIBRARIES, Launcher, installation, stub
from tests.standing import standing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODES = ("supervise", "exec")
# Ends with 7; what it exec()s first prints, as python3 would.
TARGET = ("sh", "-c", "echo ready $$; read line; exit 7")
CHAIN = ("sh", "-c", "echo ready $$; read line; exec sh -c 'echo there; read line; exit 7'")
END = "end"


@pytest.fixture
def package(here: Path) -> Path:
    """The package of an installation of its own, with a pack."""
    venv = here / "venv"
    (venv / "bin").mkdir(parents=True)
    shutil.copy2(stub(), venv / "bin")
    (venv / "bin" / "python3").symlink_to(sys.executable)
    (venv / "pyvenv.cfg").write_text((installation() / "pyvenv.cfg").read_text())
    installed = installation() / LIBRARIES
    shutil.copytree(installed / "rtlaunch", venv / LIBRARIES / "rtlaunch")
    for part in installed.glob("*prctl*"):
        if part.is_file():
            shutil.copy2(part, venv / LIBRARIES)
    return venv / LIBRARIES / "rtlaunch"


@pytest.fixture
def launcher(package: Path, here: Path) -> Launcher:
    """What runs that installation, as root."""
    return Launcher(package.parents[3] / "bin" / "rtlaunch", here)


def remove(package: Path) -> None:
    """Uninstall it, as pip does: every file."""
    shutil.rmtree(package)


def replace(package: Path) -> None:
    """Put another version in its place, as pip does: each module, and the pack, a new file."""
    old = package.rename(package.with_name("old"))
    shutil.copytree(old, package)
    for module in [*package.rglob("*.py"), *package.rglob("*.pack")]:
        module.unlink()
        module.write_text("raise SystemExit('a module of another version was run')\n")
    for cache in package.rglob("__pycache__"):
        shutil.rmtree(cache)
    shutil.rmtree(old)


CHANGES = pytest.mark.parametrize("change", [remove, replace])


@pytest.mark.parametrize("mode", MODES)
@CHANGES
def test_the_exit_code_and_the_report_are_the_targets(
    launcher: Launcher, package: Path, change: Callable[[Path], None], mode: str
) -> None:
    """What ends after the package is gone ends as before: the code, the report, no other word."""
    with standing(launcher, "--mode", mode, "--", *TARGET) as held:
        change(package)
        held.tell(END)
        ran = held.end()
        report = written(held.report_path)
    assert (ran.code, ran.err) == (7, "")
    assert report["complete"] and report["exit"]["code"] == 7
    assert report["verdict"] == "clean"


@CHANGES
def test_messages_are_said(
    launcher: Launcher, package: Path, change: Callable[[Path], None]
) -> None:
    """The words for a finding and the summary at the end are there without their files."""
    with standing(launcher, "--mode", "supervise", "-v", "--", *TARGET) as held:
        change(package)
        held.tell(END)
        ran = held.end()
    assert ran.code == 7
    assert "Traceback" not in ran.err and "another version" not in ran.err
    assert "exit" in ran.err.splitlines()[-1]


def test_what_it_execs_after_an_upgrade_is_locked(launcher: Launcher, package: Path) -> None:
    """The shim of the same protocol, in the place of the old one, is answered as before."""
    with standing(launcher, "--mode", "supervise", "--", *CHAIN) as held:
        replace(package)
        assert held.ask(END) == "there"
        held.tell(END)
        ran = held.end()
    assert (ran.code, ran.err) == (7, "")
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, True]
    assert ran.report["lock"]["ok"]


def test_without_a_pack_the_exit_code_is_still_the_targets(
    launcher: Launcher, package: Path
) -> None:
    """Where what writes the report is gone, that is said, and costs the program nothing."""
    (package / PACK).unlink(missing_ok=True)
    with standing(launcher, "--mode", "supervise", "--", *TARGET) as held:
        remove(package)
        held.tell(END)
        ran = held.end()
    assert ran.code == 7
    assert ran.err.startswith("rtlaunch: the report is not written") and ran.err.count("\n") == 1
