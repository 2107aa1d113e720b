"""Under a Slurm that holds each step in cgroups, on two nodes: proctrack/cgroup, task/cgroup.

That is how most clusters have it. slurmstepd then signals the processes that it started itself, and
no others; it ends a step by SIGKILL to all of its cgroup; a job's memory is the limit of a cgroup.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests import schema
from tests.rigs.cluster import AS_NOBODY, BY_RANK, FORMS, RTLAUNCH, TARGETS, read_all

if TYPE_CHECKING:
    from tests.rigs.cluster import Cluster

MIB = 1 << 20
EXEC = (RTLAUNCH, "-q", "--mode", "exec")
ALL_FORMS = {**FORMS, "exec": (*EXEC, "--")}


# ---- two nodes


def test_four_ranks_on_two_nodes_have_a_report_each(confined: Cluster) -> None:
    """srun over two nodes: {host} is the node's own name, {rank} counts over both."""
    folder = confined.reports()
    words = (RTLAUNCH, "-q", "--report", f"{folder}/{BY_RANK}", "--", "true")
    code, out = confined.run("srun", "-N2", "--ntasks-per-node=2", *words)
    assert code == 0, out
    reports = read_all(folder)
    assert sorted(reports) == ["rig1-0", "rig1-1", "rig2-2", "rig2-3"], out
    for name, report in reports.items():
        assert schema.errors(report) == []
        assert report["verdict"] == "clean"
        assert report["host"]["name"] == name[:4]
        assert report["host"]["where"] == "slurm"


def test_a_rank_that_fails_on_one_node_is_the_steps_end(confined: Cluster) -> None:
    """One is refused, one killed, on different nodes: the step has the highest code."""
    folder = confined.reports()
    ours = f"{RTLAUNCH} -q --report {folder}/{BY_RANK}"
    programs = confined.folder / "two.conf"
    programs.write_text(
        f"0 {ours} --heap 100M -- /bin/true\n1 {ours} -- /bin/sh -c 'kill -9 $$'\n"
    )
    words = ("srun", "-N2", "-n2", "--mem=64", "--multi-prog", str(programs))
    code, out = confined.run(*AS_NOBODY, *words)
    ends = {name: one["exit"]["rtlaunch_code"] for name, one in read_all(folder).items()}
    assert ends == {"rig1-0": 125, "rig2-1": 137}, out
    assert code == 137


# ---- memory


def test_a_need_above_the_jobs_memory_is_refused(confined: Cluster) -> None:
    """srun --mem=64 and 100 MiB of heap: refused with both numbers, and nobody was killed."""
    folder = confined.reports()
    ours = (RTLAUNCH, "--heap", "100M", "--report", f"{folder}/{BY_RANK}", "--", "/bin/true")
    code, out = confined.run("srun", "-n1", "--mem=64", *ours)
    assert code == 125
    assert "refused [cgroup-budget]" in out and "Slurm: --mem" in out
    assert "oom" not in out.lower()
    (report,) = read_all(folder).values()
    (found,) = report["findings"]
    assert found["values"]["limit_bytes"] == 64 * MIB
    assert "/slurm_rig1/uid_0/job_" in found["values"]["cgroup"]


def test_a_need_below_the_jobs_memory_runs(confined: Cluster) -> None:
    """srun --mem=64 and 20 MiB of heap, locked: the limit that was seen is the job's."""
    folder = confined.reports()
    ours = (RTLAUNCH, "-q", "--heap", "20M", "--report", f"{folder}/{BY_RANK}", "--", "/bin/true")
    code, out = confined.run("srun", "-n1", "--mem=64", *ours)
    assert (code, out) == (0, "")
    (report,) = read_all(folder).values()
    assert report["verdict"] == "clean"
    assert report["lock"]["locked_bytes"] > 20 * MIB
    room = report["budget"]["room"]
    assert "/job_" in room["cgroup"] and 40 * MIB < room["cgroup_bytes"] <= 64 * MIB


# ---- signals


@pytest.mark.parametrize("form", ALL_FORMS)
def test_a_signal_by_scancel_arrives_once(confined: Cluster, form: str) -> None:
    """Slurm signals its own child alone: it reaches the program through us, and once."""
    talker = (*ALL_FORMS[form], f"{TARGETS}/signals", "10", "12", "23")
    with confined.task(f"usr-{form}", *talker) as (lines, number, _):
        confined.run("scancel", "-s", "USR1", number)
        assert lines.line().split()[0] == "10"
        confined.run("scancel", "-s", "USR2", f"{number}.0")
        assert lines.line().split()[0] == "12"
        confined.run("scancel", "-s", "URG", number)
        assert lines.line().split()[0] == "23"  # and nothing before it


def test_scancel_ends_it_by_term(confined: Cluster) -> None:
    """The same code of srun in each form, by TERM and not by the KILL that follows."""
    ends = {}
    for form, words in ALL_FORMS.items():
        began = time.monotonic()
        code = confined.ends_by_scancel(f"end-{form}", words, f"{TARGETS}/signals", "10")
        ends[form] = (code, time.monotonic() - began < 4)
    assert ends == dict.fromkeys(ALL_FORMS, (143, True))
