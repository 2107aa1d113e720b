"""Running the installed rtlaunch from outside, as one user or another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.skips import skip

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
EIGHT_MIB = 8 << 20
LIBRARIES = Path("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")

# The bulk of a test environment, which a copy of the installation leaves out: 9 of 10 files.
TEST_ONLY = ("*mypy*", "*hypothesis*", "pip*", "setuptools*", "*pytest*", "ruff*", "grimp*")

# Who runs it: the words that become that user, in front of the command.
USERS: dict[str, list[str]] = {
    "root": [],
    "ambient": [*AS_NOBODY, "--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock"],
    "limited": ["prlimit", f"--memlock={EIGHT_MIB}:{EIGHT_MIB}", *AS_NOBODY],
}


@dataclass
class Ran:
    """A run that is over."""

    code: int
    out: str
    err: str
    report: dict[str, Any] = field(default_factory=dict)


def installation() -> Path:
    """Return the folder of the installed rtlaunch: the one whose interpreter runs the tests."""
    return Path(sys.executable).parent.parent


def stub() -> Path:
    """Return the installed entry."""
    path = installation() / "bin" / "rtlaunch"
    assert path.exists(), f"{path} is not there: install the package first (make test does)"
    return path


def public_copy() -> Path:
    """Return a copy of the installation that every user may run; the caller removes it.

    The interpreter itself stays where it is: skips where others cannot run that.
    """
    real = Path(os.path.realpath(sys.executable))
    if not others_may("-x", real):
        skip("interpreter-private")
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-public-"))
    folder.chmod(0o755)
    (folder / "bin").mkdir(mode=0o755)
    shutil.copy2(stub(), folder / "bin" / "rtlaunch")
    (folder / "bin" / "python3").symlink_to(real)
    if others_may("-r", installation() / LIBRARIES / "rtlaunch" / "__main__.py"):
        (folder / "lib").symlink_to(installation() / "lib")
    else:
        copy_libraries(folder / LIBRARIES)
    return folder


def installation_at(folder: Path) -> Path:
    """Make an installation whose path leads through ``folder``, of ours; return its entry."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy2(stub(), folder / "bin" / "rtlaunch")
    (folder / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    (folder / "lib").symlink_to(installation() / "lib")
    return folder / "bin" / "rtlaunch"


def others_may(test: str, path: Path) -> bool:
    """Tell whether test(1) says yes to a user without privileges."""
    probe = subprocess.run([*AS_NOBODY, "test", test, str(path)], check=False)
    return probe.returncode == 0


def copy_libraries(to: Path) -> None:
    """Copy the installed packages, for everybody to read."""
    not_ours = shutil.ignore_patterns(*TEST_ONLY)
    shutil.copytree(installation() / LIBRARIES, to, ignore=not_ours)
    for path in [*to.parents[:2], to, *to.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


class Launcher:
    """Runs rtlaunch as one user; its reports go to a folder of that user's."""

    def __init__(self, program: Path, folder: Path, user: str = "root") -> None:
        self.program = program
        self.folder = folder
        self.user = user
        self.prefix = USERS[user]
        self.count = 0
        if user != "root":
            os.chown(folder, NOBODY, NOBODY)

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line of ``rtlaunch WORDS`` as the user."""
        return [*self.prefix, str(self.program), *map(str, words)]

    def report_path(self) -> Path:
        """Return a fresh path for a report."""
        self.count += 1
        return self.folder / f"report-{self.count}.json"

    def start(self, *words: str | Path, **how: Any) -> subprocess.Popen[str]:
        """Start rtlaunch and return it running; the caller waits for it.

        It starts in the folder of its reports: a target that dumps core, whose limit we raise,
        leaves it there.
        """
        usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.words(*words), **{**usual, "cwd": self.folder, **how})

    def run(self, *words: str | Path, timeout: float = 30, **how: Any) -> Ran:
        """Run ``rtlaunch --report FILE WORDS`` to its end; the report is {} if none was written."""
        path = self.report_path()
        process = self.start("--report", path, *words, **how)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
            process.wait()
        report = json.loads(path.read_text()) if path.exists() else {}
        return Ran(process.returncode, out or "", err or "", report)
