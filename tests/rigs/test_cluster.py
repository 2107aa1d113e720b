"""rtlaunch as the prefix of a job's tasks: `srun rtlaunch -- ./app`, `mpirun rtlaunch -- ./app`.

``SLOW_RIGS=1`` has the time limit tried as well: Slurm counts it in minutes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import schema
from tests.kernel.processes import Lines
from tests.rigs.cluster import (
    AS_NOBODY,
    BY_RANK,
    COMPILERS,
    FORMS,
    FOUR_SUMS,
    RTLAUNCH,
    STARTERS,
    TARGETS,
    compile_mpi,
    need_mpi,
    read_all,
    sums,
)
from tests.skips import skip

if TYPE_CHECKING:
    from tests.rigs.cluster import Cluster

SRUN, MPIRUN = ("srun",), (*STARTERS["openmpi"], "--oversubscribe")


@pytest.fixture(scope="module")
def mpi_program(cluster: Cluster) -> str:
    """A real MPI program: its ranks add up."""
    need_mpi("openmpi")
    return compile_mpi(cluster, COMPILERS["openmpi"])


# ---- one report for each rank


def test_four_ranks_one_refused_one_killed(cluster: Cluster) -> None:
    """srun as a user: four reports by rank, each valid; the step ends with the highest code."""
    folder = cluster.reports()
    ours = f"{RTLAUNCH} -q --report {folder}/{BY_RANK}"
    programs = cluster.folder / "four.conf"
    programs.write_text(
        f"0,3 {ours} -- /bin/true\n"
        f"1 prlimit --memlock=65536:65536 {ours} -- /bin/true\n"
        f"2 {ours} -- /bin/sh -c 'kill -9 $$'\n"
    )
    code, out = cluster.run(*AS_NOBODY, "srun", "-n4", "--multi-prog", str(programs))
    reports = read_all(folder)
    assert sorted(reports) == [f"rignode-{rank}" for rank in range(4)], out
    for report in reports.values():
        assert schema.errors(report) == []
    assert [report["verdict"] for report in reports.values()] == [
        "clean", "refused", "clean", "clean",
    ]  # fmt: skip
    ends = [(one["exit"]["by"], one["exit"]["rtlaunch_code"]) for one in reports.values()]
    assert ends == [("target", 0), ("rtlaunch", 125), ("target", 137), ("target", 0)]
    assert code == 137


def test_more_ranks_than_cpus_have_a_report_each(cluster: Cluster) -> None:
    """srun -O: eight ranks on four CPUs, all of them locked at once."""
    folder = cluster.reports()
    words = ("srun", "-O", "-n8", RTLAUNCH, "-q", "--report", f"{folder}/{BY_RANK}", "--", "true")
    code, out = cluster.run(*words)
    assert code == 0, out
    reports = read_all(folder)
    assert sorted(reports) == [f"rignode-{rank}" for rank in range(8)]
    assert all(one["lock"]["ok"] and one["verdict"] == "clean" for one in reports.values())


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_an_mpi_program_has_a_report_for_each_rank(
    cluster: Cluster, mpi_program: str, launcher: str
) -> None:
    """mpirun rtlaunch -- ./app, srun --mpi=pmix rtlaunch -- ./app: they add up, each is locked."""
    folder = cluster.reports()
    front = {"mpirun": (*MPIRUN, "-n", "4"), "srun": ("srun", "--mpi=pmix", "-n4")}[launcher]
    # a batch script's own number is in the environment of all ranks that it starts by mpirun
    batch = ("env", "SLURM_PROCID=0", "SLURM_JOB_ID=1") if launcher == "mpirun" else ()
    ours = (RTLAUNCH, "-q", "--report", f"{folder}/{BY_RANK}", "--", mpi_program)
    words = (*front, *batch, *ours)
    code, out = cluster.run(*words)
    assert code == 0, out
    assert sums(out) == FOUR_SUMS
    reports = read_all(folder)
    assert sorted(reports) == [f"rignode-{rank}" for rank in range(4)], out
    for report in reports.values():
        assert schema.errors(report) == []
        assert report["lock"]["ok"], report["lock"]


# ---- memlock


def test_a_soft_limit_that_slurm_brought_along_is_raised(cluster: Cluster) -> None:
    """ulimit -S -l 64, then srun: Slurm sets that soft limit, rtlaunch raises it again."""
    folder = cluster.reports()
    ours = f"{RTLAUNCH} -q --report {folder}/{BY_RANK} -- /bin/true"
    code, out = cluster.run(*AS_NOBODY, "bash", "-c", f"ulimit -S -l 64; srun {ours}")
    assert code == 0, out
    (report,) = read_all(folder).values()
    assert report["host"]["where"] == "slurm"
    assert report["limits"]["memlock"]["before"]["soft"] == 64 << 10
    assert report["limits"]["memlock"]["after"]["soft"] > 64 << 10


def test_a_limit_that_slurm_sets_is_said_to_be_that(cluster: Cluster) -> None:
    """A user's program too large for slurmd's hard limit: the message names Slurm's own knobs."""
    big = ("/usr/bin/python3", "-c", "import ctypes; x = bytearray(1 << 20)")
    limited = ("prlimit", f"--memlock={1 << 20}:{1 << 20}")
    code, out = cluster.run(*AS_NOBODY, "srun", *limited, RTLAUNCH, "--", *big)
    assert code == 125
    assert "refused [mem" in out
    for said in (
        "set by: Slurm", "`ulimit -l`", "PropagateResourceLimitsExcept=MEMLOCK",
        "srun --propagate=NONE", "LimitMEMLOCK=infinity",
    ):  # fmt: skip
        assert said in out


# ---- how it ends


@pytest.mark.parametrize("front", [(*SRUN, "-n2"), (*MPIRUN, "-n", "2")], ids=["srun", "mpirun"])
@pytest.mark.parametrize("script", ["exit 0", "exit 5", "kill -9 $$", "kill -TERM $$"])
def test_the_end_of_a_rank_is_seen_through_us(
    cluster: Cluster, front: tuple[str, ...], script: str
) -> None:
    """With and without rtlaunch the launcher's own exit code is the same."""
    if front[0] == MPIRUN[0]:
        need_mpi("openmpi")
    codes = {
        name: cluster.run(*front, *words, "/bin/sh", "-c", script)[0]
        for name, words in FORMS.items()
    }
    assert codes["bare"] == codes["wrapped"], script


@pytest.mark.parametrize("form", FORMS)
def test_a_signal_by_scancel_arrives_once(cluster: Cluster, form: str) -> None:
    """scancel -s USR1 of the job, USR2 of the step: one of each, though Slurm signals all of us."""
    assert cluster.heard_of_scancel(f"usr-{form}", FORMS[form]) == ["10", "12", "23"]


@pytest.mark.parametrize("taken", ["10", "15"], ids=["dies-of-term", "ignores-term"])
def test_scancel_ends_it_as_it_ends_a_bare_one(cluster: Cluster, taken: str) -> None:
    """TERM, and after KillWait KILL: the same code of srun, and nobody is left."""
    codes = {
        form: cluster.ends_by_scancel(f"end-{form}-{taken}", words, f"{TARGETS}/signals", taken)
        for form, words in FORMS.items()
    }
    assert codes["bare"] == codes["wrapped"]


DEAF = "trap '' TERM; while :; do sleep 1; done"


@pytest.mark.timeout(240)
def test_the_time_limit_ends_it_as_it_ends_a_bare_one(cluster: Cluster) -> None:
    """srun --time=1: TERM, then KILL, the same code."""
    if not os.environ.get("SLOW_RIGS"):
        skip("slow-rig")
    started = {
        form: cluster.start("srun", "-n1", "--time=1", *words, "/bin/sh", "-c", DEAF)
        for form, words in FORMS.items()
    }
    ends = {form: process.communicate(timeout=200)[0] for form, process in started.items()}
    assert all("DUE TO TIME LIMIT" in out for out in ends.values()), ends
    assert started["bare"].returncode == started["wrapped"].returncode


# ---- Open MPI's own signals


@pytest.mark.parametrize("form", FORMS)
def test_a_signal_that_mpirun_forwards_arrives_once(cluster: Cluster, form: str) -> None:
    """USR1 of mpirun goes to the ranks' groups: to the program directly, and not again by us."""
    need_mpi("openmpi")
    process = cluster.start(*MPIRUN, "-n", "1", *FORMS[form], f"{TARGETS}/signals", "10", "12")
    assert process.stdout
    lines = Lines(process.stdout.fileno())
    try:
        lines.upto("ready ")
        lines.line()
        cluster.run("pkill", "-USR1", "-x", MPIRUN[0])  # the only one in that pid namespace
        said = lines.upto("10 0 0\n")
        cluster.run("pkill", "-USR2", "-x", MPIRUN[0])
        said += lines.upto("12 0 0\n")
        assert [line for line in said.splitlines() if line[:1] == "1"] == ["10 0 0", "12 0 0"]
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()
        cluster.run("pkill", "-KILL", "-x", MPIRUN[0])


# ---- the example

JOB = Path(__file__).parents[2] / "examples" / "04-cluster-job" / "job.sbatch"


def test_the_batch_script_of_the_example_runs(cluster: Cluster) -> None:
    """sbatch --wait: its exit code is the step's, and it shows each task's verdict."""
    folder = cluster.reports()
    script = cluster.folder / "job.sbatch"
    script.write_text(JOB.read_text())
    out = cluster.folder / "batch.out"
    path = f"PATH=/mnt/rtlaunch/bin:{os.environ['PATH']}"
    words = ("sbatch", "--wait", f"--output={out}", str(script), "sh", "-c", "exit $SLURM_PROCID")
    code, said = cluster.run("env", path, f"REPORTS={folder}", *words)
    assert code == 3, said + out.read_text()
    assert sorted(read_all(folder)) == [f"rignode-{rank}" for rank in range(4)]
    assert out.read_text().count('"verdict": "clean"') == 4
