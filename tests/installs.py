"""Building the package and installing it where a test wants it, without a registry.

Dependencies are not installed again: a line in a .pth file, or the interpreter itself, leads to
those of the environment that runs the tests.
"""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import MAGIC_NUMBER
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACK = f"launch.{sys.implementation.cache_tag}.pack"
# As rtlaunch.cli has it: Python's magic number, a digest, the size of the index.
MARK_BYTES = len(MAGIC_NUMBER) + 16 + 4
LIBRARIES = Path("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]
# the rtlaunch of the environment that runs the tests is in sight, and is not the one that is meant
ANEW = ["--compile", "--ignore-installed"]


def run(*words: str | Path, **how: object) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        **how,
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def copy_checkout(to: Path) -> Path:
    """Copy what a build needs, without anything that a build made."""
    made = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "rtlaunch", to / "rtlaunch", ignore=made)
    for name in ("pyproject.toml", "hatch_build.py", "LICENSE", "README.md", ".gitignore"):
        shutil.copy2(ROOT / name, to / name)
    return to


def build_sdist(source: Path, to: Path) -> Path:
    """Build the source distribution, unpack it under ``to`` and return its folder."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", to, cwd=source)
    run("tar", "-C", to, "-xf", next(to.glob("*.tar.gz")))
    return next(to.glob("rtlaunch-*/"))


def build_wheel(source: Path, to: Path) -> Path:
    """Build the wheel of ``source`` into ``to``; return its path."""
    run(*PIP, "wheel", *OFFLINE, "--wheel-dir", to, source)
    return next(to.glob("*.whl"))


def make_venv(folder: Path) -> Path:
    """Make a virtual environment without pip, which sees our dependencies once site has run."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (folder / LIBRARIES / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def install(venv: Path, *what: str | Path, **how: object) -> None:
    """Install ``what`` into a virtual environment."""
    pip = [*PIP, "--python", venv / "bin" / "python"]
    run(*pip, "install", *ANEW, *OFFLINE, *what, **how)


def environment(**changes: str) -> dict[str, str]:
    """Return our own environment with ``changes``."""
    return {**os.environ, **changes}


def packed_groups(package: Path) -> list[dict[str, str]]:
    """Return the modules in the pack of an installed package, with their files, by groups."""
    pack = (package / PACK).read_bytes()
    _, places = marshal.loads(pack[MARK_BYTES:])
    found = [marshal.loads(pack[start : start + size]) for start, size in places]
    return [{name: file for name, file, _ in group} for group in found]
