"""A launch stays cheap: what it imports before the target's main() may run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.installs import LIBRARIES, PACK, packed_groups
from tests.launching import installation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Each of these, or what it drags in, costs between a tenth of a bare interpreter's start and five.
# fmt: off
SLOW = (
    "typing", "re", "enum", "collections", "contextlib", "signal", "threading", "json",
    "dataclasses", "tomllib", "subprocess", "typer", "psutil", "pathlib", "inspect", "functools",
    "logging", "socket", "shutil", "ctypes", "struct", "prctl", "argparse", "site",
)

# What turns values into words and words into values: a plain launch is given none and says nothing.
ONLY_FOR_WORDS = (
    "core.units", "core.kinds", "core.spelling", "core.profile", "core.broken", "core.binfmt",
    "core.unproven", "core.remedy", "core.where", "report.text", "report.document", "cli.app",
    "cli.surroundings", "cli.report_file", "cli.early", "cli.outlet", "linux.profiles",
    "linux.host",
)
# What one option needs, and no other.
ONLY_FOR_SHAPES = (
    "core.asked", "core.asked_steps", "core.lockcosts", "core.thp", "core.threadstack",
    "engine.shape", "engine.threadstack",
    "core.heap", "core.heapfindings", "core.heapproof", "core.allocators", "core.symbols",
    "engine.heap", "core.chains", "engine.chain", "engine.inject", "linux.ptrace",
    "engine.manners", "linux.terminal",
)
# fmt: on

# A module of ours takes up to a hundredth of a bare interpreter's start, packed or not,
# however short it is. Two of those starts are the whole budget, and our interpreter's own is half
# of one. The packages and what only parent or child imports are among these. Three of them read
# the limits that break a program later, and hold them against its need, before each launch
# (core.budget, core.cgroup, linux.memory).
MOST_OF_OURS = 54

# What the parent imports once the target was told to go: main() may be before them, or after.
BESIDE_MAIN = {
    "rtlaunch.core.forwarding",
    "rtlaunch.engine.ending",
    "rtlaunch.engine.aside",
    "rtlaunch.engine.bell",
}
# Packed for every launch, and not in each: for a command that is not in the first folder of PATH.
NOW_AND_THEN = {"rtlaunch.core.broken"} | BESIDE_MAIN

MAIN = "this is main()"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entry of a copy without the pack, which imports each module when it is wanted."""
    installed, copy = installation() / LIBRARIES, tmp_path_factory.mktemp("unpacked")
    shutil.copytree(installed / "rtlaunch", copy / "rtlaunch", ignore=lambda *_: [PACK])
    for part in installed.glob("_prctl*"):
        shutil.copy2(part, copy)
    return copy / "rtlaunch" / "__main__.py"


@pytest.fixture(scope="module")
def imports_of(unpacked: Path) -> Callable[..., set[str]]:
    """Name the modules that launcher and child had imported when the target's main() ran."""

    def imports(*options: str) -> set[str]:
        python = [sys.executable, "-I", "-S", "-X", "importtime", str(unpacked), *options]
        ran = subprocess.run(
            [*python, "--", "/bin/echo", MAIN],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout
        before, found, _ = ran.stdout.partition(MAIN)
        assert found
        told = (line.rpartition("|") for line in before.splitlines())
        return {name.strip() for head, _, name in told if head.startswith("import time:")}

    return imports


@pytest.fixture(scope="module")
def imported(imports_of: Callable[..., set[str]]) -> set[str]:
    """The imports of a launch without options."""
    return imports_of()


def test_the_pack_runs_no_more_than_a_launch_imports(imported: set[str]) -> None:
    """Whatever is packed for every launch is what a launch imports by itself."""
    for_every_launch = packed_groups(installation() / LIBRARIES / "rtlaunch")[:3]
    packed = {name for group in for_every_launch for name in group}
    assert packed - imported <= NOW_AND_THEN


def test_the_launch_is_seen(imported: set[str]) -> None:
    """What must be imported is among what was: the other tests look at something."""
    assert {"os", "rtlaunch.cli.launch", "rtlaunch.engine.spawn", "rtlaunch.linux.perf"} <= imported


@pytest.mark.parametrize("name", SLOW)
def test_nothing_slow_is_imported_before_main(imported: set[str], name: str) -> None:
    """A launch takes no module of the standard library or of others that costs what it is worth."""
    assert not {found for found in imported if found == name or found.startswith(f"{name}.")}


@pytest.mark.parametrize("name", ONLY_FOR_WORDS)
def test_a_launch_without_words_imports_none_of_them(imported: set[str], name: str) -> None:
    """Messages, and values that nobody gave, are paid for by those who need them."""
    assert f"rtlaunch.{name}" not in imported


@pytest.mark.parametrize("name", ONLY_FOR_SHAPES)
def test_a_launch_without_the_option_imports_nothing_for_it(imported: set[str], name: str) -> None:
    """Stacks of threads and huge pages are paid for by those who ask for them."""
    assert f"rtlaunch.{name}" not in imported


def test_few_modules_are_imported_before_main(imported: set[str]) -> None:
    """Each module costs, however short it is."""
    ours = {name for name in imported if name.partition(".")[0] == "rtlaunch"} - BESIDE_MAIN
    assert len(ours) <= MOST_OF_OURS, sorted(ours)
