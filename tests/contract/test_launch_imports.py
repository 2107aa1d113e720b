"""A launch stays cheap: what it imports before the target's main() may run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.installs import LIBRARIES
from tests.launching import installation

# Each of these, or what it drags in, costs between a tenth of a bare interpreter's start and five.
# fmt: off
SLOW = (
    "typing", "re", "enum", "collections", "contextlib", "signal", "threading", "json",
    "dataclasses", "tomllib", "subprocess", "typer", "psutil", "pathlib", "inspect", "functools",
    "logging", "socket", "shutil", "ctypes", "struct", "prctl", "argparse", "site",
)

# What turns values into words and words into values: a plain launch is given none and says nothing.
ONLY_FOR_WORDS = (
    "core.units", "core.kinds", "core.profile", "core.broken", "core.binfmt", "core.unproven",
    "core.remedy", "core.where", "report.text", "report.document", "cli.app", "cli.surroundings",
    "cli.report_file", "cli.early", "cli.outlet", "linux.profiles", "linux.host",
)
# What one option needs, and no other.
ONLY_FOR_SHAPES = (
    "core.lockcosts", "core.thp", "core.threadstack", "engine.shape", "engine.threadstack",
    "core.heap", "core.heapfindings", "core.heapproof", "core.allocators", "core.symbols",
    "engine.heap",
)
# fmt: on

# A module of ours takes about a hundredth of a bare interpreter's start to find, open and read,
# however short it is. Two of those starts are the whole budget, and our interpreter's own is half
# of one. The packages and what only parent or child imports are among these, and the two that the
# parent imports while main() is beginning. Three are the budget's, before each launch: limits that
# break a program later are read and held against its need (core.budget, core.cgroup, linux.memory).
MOST_OF_OURS = 53

MAIN = "this is main()"


def imports_of(*options: str) -> set[str]:
    """Return the modules that launcher and child had imported when the target's main() ran."""
    entry = installation() / LIBRARIES / "rtlaunch" / "__main__.py"
    python = [sys.executable, "-I", "-S", "-X", "importtime", str(entry), *options]
    target = ["/bin/sh", "-c", f"echo '{MAIN}' >&2"]
    ran = subprocess.run([*python, "--", *target], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    before, found, _ = ran.stderr.partition(MAIN)
    assert found
    told = (line.rpartition("|") for line in before.splitlines())
    return {name.strip() for head, _, name in told if head.startswith("import time:")}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The imports of a launch without options."""
    return imports_of()


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
    ours = {name for name in imported if name.partition(".")[0] == "rtlaunch"}
    assert len(ours) <= MOST_OF_OURS, sorted(ours)
