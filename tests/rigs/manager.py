"""A real systemd, as PID 1 of its own namespaces, with the installed rtlaunch in it."""

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

from tests import books
from tests.host import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).with_name("boot-systemd.sh")
SYSTEMD = Path("/lib/systemd/systemd")
BOOT_S, STOP_S = 30, 30
RTLAUNCH = "/opt/rtlaunch/bin/rtlaunch"


class Manager:
    """A booted systemd; every command runs in its namespaces."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def words(self, *words: str) -> list[str]:
        """Return the words that run a command in there."""
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", *words]

    def run(self, *words: str, given: str = "", check: bool = True) -> str:
        """Run a command to its end; return what it printed, errors too."""
        done = subprocess.run(
            self.words(*words),
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file in there."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat >"$0"', path, given=text)

    def read(self, path: str) -> str:
        """Read a file in there; AssertionError if there is none."""
        return self.run("cat", path)

    def report(self, path: str) -> dict[str, Any]:
        """Wait for a report that is complete: it is written after the program's end."""
        wait_until(lambda: self.is_complete(path), f"{path} is not complete")
        found: dict[str, Any] = json.loads(self.read(path))
        return found

    def is_complete(self, path: str) -> bool:
        """Tell whether the report of the end is there."""
        try:
            return bool(json.loads(self.read(path))["complete"])
        except AssertionError:
            return False  # not even a draft

    def install(self, program: Path, path: str) -> None:
        """Copy a program into it."""
        words = self.words("sh", "-c", 'cat >"$0" && chmod 0755 "$0"', path)
        with program.open("rb") as file:
            subprocess.run(words, stdin=file, check=True)

    def not_held(self, pid: str) -> list[str]:
        """Name the mappings of a process, by its pid in there, that are not locked in memory."""
        return books.not_held(self.pid_outside(pid))

    def pid_outside(self, pid: str) -> int:
        """Return the pid that a process in there has out here."""
        inside = os.readlink(f"/proc/{self.leader}/ns/pid")
        for entry in Path("/proc").iterdir():
            try:
                is_inside = entry.name.isdigit() and os.readlink(entry / "ns" / "pid") == inside
                if is_inside and books.status(entry.name)["NSpid"].split()[-1] == pid:
                    return int(entry.name)
            except OSError:
                continue  # it ended meanwhile
        raise AssertionError(f"there is no process {pid} in there")

    def raises_limits(self) -> bool:
        """Tell whether it may give a unit more than it has itself (CAP_SYS_RESOURCE)."""
        rows = dict(line.split(":") for line in self.read("/proc/1/status").splitlines())
        return bool(int(rows["CapEff"], 16) >> 24 & 1)

    def unit(self, name: str, text: str) -> None:
        """Install a unit file."""
        self.write(f"/etc/systemd/system/{name}", text)
        self.run("systemctl", "daemon-reload")

    def show(self, name: str, key: str) -> str:
        """Return one property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", key, name).strip()

    def journal(self, name: str) -> str:
        """Return what a unit has in the journal, messages alone."""
        self.run("journalctl", "--sync", check=False)
        return self.run("journalctl", "-u", name, "-o", "cat", "--no-pager")

    def wait_for(self, name: str, key: str, value: str, seconds: float = 20) -> None:
        """Wait until a property of a unit has a value."""
        wait_until(lambda: self.show(name, key) == value, f"{name}: {key} is not {value}", seconds)


def leader_of(pid: int) -> int:
    """Return the child of unshare, which the script becomes; 0 before."""
    if Path(f"/proc/{pid}/comm").read_text() != "unshare\n":
        return 0
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(words[0]) if words else 0


@contextmanager
def booted(installation: Path) -> Iterator[Manager]:
    """Boot a systemd; end it, and remove all that is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-rig-"))
    name = f"rtlaunch-rig-{os.getpid()}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", SCRIPT, folder, name, installation], stdout=log, stderr=log
        )
    leader = 0
    try:
        wait_until(lambda: leader_of(process.pid), "no PID 1", BOOT_S)
        leader = leader_of(process.pid)
        manager = Manager(leader)
        wait_until(lambda: is_up(manager, process), "systemd does not come up", BOOT_S)
        yield manager
    finally:
        end(process, leader)
        remove_cgroups(name)
        shutil.rmtree(folder)


def is_up(manager: Manager, process: subprocess.Popen[bytes]) -> bool:
    """Tell whether systemd has done what it does at boot; AssertionError if it is gone."""
    assert process.poll() is None, "systemd ended while it booted"
    done = subprocess.run(
        manager.words("systemctl", "is-system-running"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    time.sleep(0.05)
    return done.stdout.strip() in ("running", "degraded")


def end(process: subprocess.Popen[bytes], leader: int) -> None:
    """Ask for a power-off, and kill who does not obey."""
    if leader and process.poll() is None:
        os.kill(leader, signal.SIGRTMIN + 4)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.kill(leader or process.pid, signal.SIGKILL)
        process.wait()


def remove_cgroups(name: str) -> None:
    """Remove the cgroups that the manager had, the deepest first."""
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        folders = [top, *(path for path in top.rglob("*") if path.is_dir())]
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            wait_until(lambda folder=folder: removed(folder), f"{folder} is in use")


def removed(folder: Path) -> bool:
    """Remove one cgroup; False while a process is still on its way out."""
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True
