"""A real Slurm cluster, in namespaces of its own, with the installed rtlaunch in it."""

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
from tests.kernel.processes import Lines, children
from tests.rigs.manager import remove_cgroups
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCRIPT = Path(__file__).with_name("boot-slurm.sh")
ADDER = Path(__file__).with_name("adder.c")
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("freezer", "memory")  # that boot-slurm.sh takes
RTLAUNCH = "/mnt/rtlaunch/bin/rtlaunch"
FORMS = {"bare": (), "wrapped": (RTLAUNCH, "-q", "--")}
BY_RANK = "{host}-{rank}.json"
FOUR_SUMS = [f"rank {rank} sum 6" for rank in range(4)]
TARGETS = "/mnt/targets"
COMPILERS = {"openmpi": "mpicc.openmpi", "mpich": "mpicc.mpich"}
STARTERS = {"openmpi": ("mpirun.openmpi", "--allow-run-as-root"), "mpich": ("mpiexec.mpich",)}
FACTS = {"openmpi": "no-mpi", "mpich": "no-mpich"}
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
        settings = (f"SLURM_CONF={self.folder}/slurm.conf", f"TMPDIR={self.folder}/tmp")
        return [*enter, "env", *settings, *words]

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

    @contextmanager
    def task(self, name: str, *words: str) -> Iterator[tuple[Lines, str, subprocess.Popen[str]]]:
        """Run one task of a job, a talker; give what it says, the job's id, and srun."""
        process = self.start("srun", "-n1", f"--job-name={name}", *words)
        assert process.stdin and process.stdout
        lines = Lines(process.stdout.fileno())
        try:
            lines.upto("ready ")
            lines.line()
            yield lines, self.job(name), process
        finally:
            self.run("scancel", "--signal=KILL", f"--name={name}")
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def left_over(self) -> str:
        """Return the commands of targets and launchers that live in there."""
        told = self.run("ps", "-e", "-o", "stat=,args=")[1].splitlines()
        mine = (f"{TARGETS}/", "/mnt/rtlaunch/")
        return "\n".join(one for one in told if one[0] != "Z" and any(part in one for part in mine))

    def heard_of_scancel(self, name: str, words: Sequence[str]) -> list[str]:
        """Send a target in one task USR1, USR2 to its step, and URG; return what it took of them.

        One signal each time: another that comes first, or once more, is in the place of the next.
        """
        with self.task(name, *words, f"{TARGETS}/signals", "10", "12", "23") as (lines, number, _):
            taken = []
            for signal_name, whom in (("USR1", number), ("USR2", f"{number}.0"), ("URG", number)):
                self.run("scancel", "-s", signal_name, whom)
                taken.append(lines.line().split()[0])
        return taken

    def ends_by_scancel(self, name: str, words: Sequence[str], *target: str) -> int:
        """Run a target as one task, have it cancelled; srun's exit code once nobody is left."""
        with self.task(name, *words, *target) as (_, number, process):
            self.run("scancel", number)
            code = process.wait(20)
            wait_until(lambda: self.left_over() == "", "somebody is left")
        return code


def need_mpi(kind: str) -> None:
    """Skip the test where that MPI, or its compiler, is not there."""
    if not shutil.which(STARTERS[kind][0]) or not shutil.which(COMPILERS[kind]):
        skip(FACTS[kind])


def compile_mpi(cluster: Cluster, compiler: str) -> str:
    """Compile the program whose ranks add up by an MPI's own compiler; return its path in there."""
    path = cluster.folder / f"adder-{compiler}"
    subprocess.run([compiler, str(ADDER), "-o", str(path)], check=True)
    return str(path)


def sums(out: str) -> list[str]:
    """Return what the ranks of an MPI program have said, in order."""
    return sorted(line for line in out.splitlines() if line.startswith("rank "))


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the reports of a folder by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def can_hold_steps() -> bool:
    """Tell whether there are the cgroups of version 1 that hold a step's processes and memory."""
    return all(os.access(CGROUPS / one / "cgroup.procs", os.W_OK) for one in CONTROLLERS)


@contextmanager
def booted(installation: Path, targets: Path, cgroup: str = "") -> Iterator[Cluster]:
    """Boot a cluster, of two nodes with cgroups if these have a name; nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-slurm-"))
    folder.chmod(0o755)
    words = [str(SCRIPT), str(folder), str(installation), str(targets), cgroup]
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
        if cgroup:
            remove_cgroups(cgroup)
        shutil.rmtree(folder)
