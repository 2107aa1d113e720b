"""rtlaunch before the ranks that MPICH's mpiexec starts, and Open MPI's: on one node, on two.

MPICH reads the signal that ended a rank from its wait status. Behind rtlaunch, which ends with
128 + N, it reads a code instead, and only exec mode shows it the signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import schema
from tests.host import wait_until
from tests.kernel.processes import Lines
from tests.rigs.cluster import (
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

if TYPE_CHECKING:
    from tests.rigs.cluster import Cluster

MPIEXEC = "mpiexec.mpich"
EXEC = {"bare": (), "wrapped": (RTLAUNCH, "-q", "--mode", "exec", "--")}


@pytest.fixture(autouse=True)
def mpich() -> None:
    """MPICH, with its compiler."""
    need_mpi("mpich")


@pytest.fixture(scope="module")
def adder(cluster: Cluster) -> str:
    """A real MPI program."""
    need_mpi("mpich")
    return compile_mpi(cluster, COMPILERS["mpich"])


# ---- one report for each rank


def test_an_mpi_program_has_a_report_for_each_rank(cluster: Cluster, adder: str) -> None:
    """mpiexec rtlaunch -- ./app: they add up, each is locked, {rank} is PMI's."""
    folder = cluster.reports()
    words = (RTLAUNCH, "-q", "--report", f"{folder}/{BY_RANK}", "--", adder)
    code, out = cluster.run(MPIEXEC, "-n", "4", *words)
    assert code == 0, out
    assert sums(out) == FOUR_SUMS
    reports = read_all(folder)
    assert sorted(reports) == [f"rignode-{rank}" for rank in range(4)], out
    for report in reports.values():
        assert schema.errors(report) == []
        assert report["lock"]["ok"] and report["verdict"] == "clean"


@pytest.mark.parametrize("kind", STARTERS)
def test_ranks_on_two_nodes_have_a_report_each(confined: Cluster, kind: str) -> None:
    """salloc mpiexec: daemons that Slurm starts on both nodes start the ranks, and number them."""
    need_mpi(kind)
    program = compile_mpi(confined, COMPILERS[kind])
    folder = confined.reports()
    ours = (RTLAUNCH, "-q", "--report", f"{folder}/{BY_RANK}", "--", program)
    words = ("salloc", "-N2", "--ntasks-per-node=2", *STARTERS[kind], "-n", "4", *ours)
    code, out = confined.run(*words)
    assert code == 0, out
    assert sums(out) == FOUR_SUMS
    reports = read_all(folder)
    assert sorted(reports) == ["rig1-0", "rig1-1", "rig2-2", "rig2-3"], out
    assert all(one["lock"]["ok"] and one["verdict"] == "clean" for one in reports.values())


# ---- how it ends


def test_four_ranks_one_refused_one_killed(cluster: Cluster) -> None:
    """Four reports; mpiexec's code has the bits of all codes."""
    folder = cluster.reports()
    ours = (RTLAUNCH, "-q", "--report", f"{folder}/{BY_RANK}")
    of_nobody = ("prlimit", "--memlock=65536:65536", "setpriv", "--reuid=65534", "--clear-groups")
    ranks = (
        (*ours, "--", "/bin/true"),
        (*of_nobody, *ours, "--", "/bin/true"),
        (*ours, "--", "/bin/sh", "-c", "kill -9 $$"),
        (*ours, "--", "/bin/true"),
    )
    words = [word for rank in ranks for word in (":", "-n", "1", *rank)][1:]
    code, out = cluster.run(MPIEXEC, *words)
    reports = read_all(folder)
    assert sorted(reports) == [f"rignode-{rank}" for rank in range(4)], out
    ends = [(one["verdict"], one["exit"]["rtlaunch_code"]) for one in reports.values()]
    assert ends == [("clean", 0), ("refused", 125), ("clean", 137), ("clean", 0)]
    assert code == 125 | 137


@pytest.mark.parametrize("script", ["exit 0", "exit 5", "test $PMI_RANK = 0 || exit 7"])
def test_the_code_of_a_rank_is_seen_through_us(cluster: Cluster, script: str) -> None:
    """With and without rtlaunch mpiexec's own exit code is the same."""
    codes = {
        name: cluster.run(MPIEXEC, "-n", "2", *words, "/bin/sh", "-c", script)[0]
        for name, words in FORMS.items()
    }
    assert codes["bare"] == codes["wrapped"], script


def test_the_signal_that_ended_a_rank_is_seen_in_exec_mode(cluster: Cluster) -> None:
    """The kernel's wait status is the program's own; in supervise mode there is a code."""
    # one rank: of two that are killed at once mpiexec may miss one's status, and ends with 255
    script = ("/bin/sh", "-c", "kill -9 $$")
    codes = {
        name: cluster.run(MPIEXEC, "-n", "1", *words, *script)[0] for name, words in EXEC.items()
    }
    assert codes["bare"] == codes["wrapped"] == 9
    assert cluster.run(MPIEXEC, "-n", "1", *FORMS["wrapped"], *script)[0] == 137
    wait_until(lambda: cluster.left_over() == "", "a side process is left")


def test_nobody_waits_for_a_rank_that_was_killed(cluster: Cluster, adder: str) -> None:
    """The others of a job wait for rank 1: mpiexec ends them, and nobody is left."""
    for words in FORMS.values():
        code, out = cluster.run(MPIEXEC, "-n", "4", *words, adder, "killed", seconds=15)
        assert code != 0, out
        assert sums(out) == []
        wait_until(lambda: cluster.left_over() == "", "somebody is left")


# ---- signals


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "number"), [("USR1", 10), ("TERM", 15)])
def test_a_signal_that_mpiexec_forwards_arrives_once(
    cluster: Cluster, form: str, name: str, number: int
) -> None:
    """It goes to the rank's group: to the program directly, and not again by us."""
    talker = (*FORMS[form], f"{TARGETS}/signals", str(number))
    process = cluster.start(MPIEXEC, "-n", "1", *talker)
    assert process.stdin and process.stdout
    lines = Lines(process.stdout.fileno())
    try:
        lines.upto("ready ")
        lines.line()
        cluster.run("pkill", f"-{name}", "-x", MPIEXEC)  # the only one in that pid namespace
        assert lines.line() == f"{number} 0 0"
        process.stdin.close()
        assert lines.all() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        cluster.run("pkill", "-KILL", "-x", MPIEXEC)
