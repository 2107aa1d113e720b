"""A real Slurm cluster of one node, in namespaces of its own, with the installed rtlaunch in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.host import wait_until
from tests.kernel.processes import children

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).with_name("boot-slurm.sh")
RTLAUNCH = "/mnt/rtlaunch/bin/rtlaunch"
TARGETS = "/mnt/targets"
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
BOOT_S = 30


class Cluster:
    """A booted cluster; every command runs in its namespaces, below /."""

    def __init__(self, leader: int, folder: Path) -> None:
        self.leader = leader
        self.folder = folder
        self.count = 0

    def words(self, *words: str) -> list[str]:
        """Return the words that run a command in there."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-w/", "--"]
        return [*enter, "env", f"SLURM_CONF={self.folder}/slurm.conf", *words]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command; the caller ends it. Both of its streams are one."""
        return subprocess.Popen(
            self.words(*words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, seconds: float = 30) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it printed, errors too."""
        process = self.start(*words)
        try:
            out, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
            process.wait()
        return process.returncode, out

    def reports(self) -> Path:
        """Return a fresh folder for reports, which every user may write to."""
        self.count += 1
        folder = self.folder / f"reports-{self.count}"
        folder.mkdir()
        folder.chmod(0o777)
        return folder

    def job(self, name: str) -> str:
        """Wait until a job of that name runs; return its id."""
        asked = ("squeue", "--noheader", "--states=RUNNING", f"--name={name}", "--format=%i")
        wait_until(lambda: self.run(*asked)[1].strip() != "", f"{name} does not run")
        return self.run(*asked)[1].strip()


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the reports of a folder by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


@contextmanager
def booted(installation: Path, targets: Path) -> Iterator[Cluster]:
    """Boot a cluster; nothing of it is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-slurm-"))
    folder.chmod(0o755)
    words = [str(SCRIPT), str(folder), str(installation), str(targets)]
    log = (folder / "boot").open("w+")
    process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + BOOT_S
        while "booted" not in (folder / "boot").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (
                f"no cluster: {(folder / 'boot').read_text()}"
            )
            time.sleep(0.05)
        yield Cluster(children(process.pid)[0], folder)
    finally:
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)  # PID 1 of its namespace takes all others along
        process.wait()
        log.close()
        shutil.rmtree(folder)
