"""`make GOAL` in a fresh clone: what it says where it cannot go on, before it has done anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.installs import ROOT, environment
from tests.skips import skip

SCRIPT = ROOT / "tools" / "setup.sh"
GOALS = [
    "demo", "test", "test-rigs", "test-vm", "side-by-side", "test-all", "test-unit", "lint",
    "matrix", "bench", "mutants", "differential", "clean",
]  # fmt: skip
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def setup(goal: str, *before: str, **how: object) -> subprocess.CompletedProcess[str]:
    """Run the script from standard input, so that any user can; it must end with 1."""
    done = subprocess.run(
        [*before, "sh", "-s", goal],
        input=SCRIPT.read_text(),
        capture_output=True,
        text=True,
        check=False,
        **how,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done


def test_colon_in_the_path_is_one_line(tmp_path: Path) -> None:
    """Python makes no virtual environment there: the line says so before anything is done."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    said = setup("demo", cwd=folder).stderr
    assert said.count("\n") == 1 and f"has a colon ({folder})" in said
    assert list(folder.iterdir()) == []


def test_python_that_is_too_old_is_one_line(tmp_path: Path) -> None:
    """An interpreter that is not 3.11 or newer is refused by its name."""
    said = setup("demo", cwd=tmp_path, env=environment(PYTHON="/bin/false")).stderr
    assert said == "setup: PYTHON=/bin/false is no Python 3.11 or newer\n"


@pytest.fixture
def bare_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with what the script itself needs, and no compiler."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("sh", "id", "uname", "setpriv", "apt-get"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    return folder


def test_missing_packages_are_the_exact_line(bare_path: Path) -> None:
    """Without root the line to run is printed, and nothing else is done."""
    (bare_path / "apt-get").unlink(missing_ok=True)
    (bare_path / "apt-get").symlink_to("/bin/false")
    who = NOBODY if os.geteuid() == 0 else []
    said = setup("demo", *who, cwd="/", env={"PATH": str(bare_path)}).stderr
    line = "setup: missing system packages; as root:  apt-get install --no-install-recommends gcc "
    assert said.startswith(line) and said.count("\n") == 1


def test_missing_packages_without_apt_are_named(bare_path: Path) -> None:
    """On a system without apt-get the packages are named as Debian calls them."""
    (bare_path / "apt-get").unlink(missing_ok=True)
    said = setup("demo", cwd="/", env={"PATH": str(bare_path)}).stderr
    assert said.startswith("setup: missing here, by Debian's package names: gcc ")


def test_32_bit_parts_are_those_of_the_compiler_that_is_there(bare_path: Path) -> None:
    """Another release has another compiler: no other one is installed beside it."""
    if os.uname().machine != "x86_64":
        skip("not-x86")
    (bare_path / "apt-get").unlink(missing_ok=True)
    (bare_path / "cut").symlink_to(shutil.which("cut") or "")
    (bare_path / "cc").write_text('#!/bin/sh\n[ "$1" = -dumpversion ] && echo 14.2.0\n')
    (bare_path / "cc").chmod(0o755)
    said = setup("test", cwd="/", env={"PATH": str(bare_path)}).stderr
    assert re.findall(r" gcc-[0-9]+\S*", said) == [" gcc-14-multilib"]


def test_make_lists_its_goals() -> None:
    """`make` alone says what can be made, each with its purpose."""
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^make ([a-z-]+)\t\S", done.stdout, re.MULTILINE)[1:] == GOALS
