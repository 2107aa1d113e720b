"""Under a Slurm that holds each step in cgroups, on two nodes: proctrack/cgroup, task/cgroup.

That is how most clusters have it. slurmstepd then signals the processes that it started itself, and
no others; it ends a step by SIGKILL to all of its cgroup; a job's memory is the limit of a cgroup.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests import schema
from tests.host import wait_until
from tests.rigs.cluster import AS_NOBODY, BY_RANK, FORMS, RTLAUNCH, TARGETS, read_all
from tests.skips import skip

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
    programs.write_text(f"0 {ours} --heap 100M -- /bin/true\n1 {ours} -- /bin/sh -c 'kill -9 $$'\n")
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


def test_the_kernels_killing_is_told_as_of_a_bare_one(confined: Cluster) -> None:
    """A program that grows beyond --mem: srun says the same, and rtlaunch reports the kill."""
    folder = confined.reports()
    grows = ("/usr/bin/python3", "-c", "x = bytearray(200 << 20)")
    ours = (RTLAUNCH, "-q", "--report", f"{folder}/{BY_RANK}", "--")
    ends = [confined.run("srun", "-n1", "--mem=64", *words, *grows) for words in ((), ours)]
    assert all("Out Of Memory" in out for _, out in ends), ends
    assert ends[0][0] == ends[1][0]
    (report,) = read_all(folder).values()
    assert (report["complete"], report["exit"]["signal"]) == (True, "SIGKILL")


# ---- signals


@pytest.mark.parametrize("form", ALL_FORMS)
def test_a_signal_by_scancel_arrives_once(confined: Cluster, form: str) -> None:
    """Slurm signals its own child alone: it reaches the program through us, and once."""
    assert confined.heard_of_scancel(f"usr-{form}", ALL_FORMS[form]) == ["10", "12", "23"]


def test_scancel_ends_it_by_term(confined: Cluster) -> None:
    """The same code of srun in each form: TERM's, and not that of the KILL that follows."""
    codes = {
        form: confined.ends_by_scancel(f"end-{form}", words, f"{TARGETS}/signals", "10")
        for form, words in ALL_FORMS.items()
    }
    assert codes == dict.fromkeys(ALL_FORMS, 143)


def test_a_job_that_is_suspended_hears_what_a_bare_one_hears(confined: Cluster) -> None:
    """scontrol suspend, resume: TSTP, then frozen, then CONT, once each."""
    with ExitStack() as stack:
        tasks = {
            form: stack.enter_context(
                confined.task(f"stop-{form}", *words, f"{TARGETS}/signals", "10", "18", "20")
            )
            for form, words in ALL_FORMS.items()
        }
        jobs = ",".join(number for _, number, _ in tasks.values())
        confined.run("scontrol", "suspend", jobs)
        for lines, _, _ in tasks.values():
            assert lines.line() == "20 0 0"
        wait_until(lambda: freezers(confined) == {"FROZEN"}, "they are not frozen")
        confined.run("scontrol", "resume", jobs)
        for lines, _, _ in tasks.values():
            assert lines.line() == "18 0 0"
        confined.run("scancel", "-s", "USR1", *jobs.split(","))
        for lines, _, _ in tasks.values():
            assert lines.line() == "10 0 0"  # and nothing before it


def freezers(cluster: Cluster) -> set[str]:
    """Return the states of all steps' cgroups."""
    pattern = "/sys/fs/cgroup/freezer/slurm_*/uid_*/job_*/step_[0-9]*/freezer.state"
    return set(cluster.run("sh", "-c", f"cat {pattern}")[1].split())


# ---- the end of the step


@pytest.mark.parametrize("form", ALL_FORMS)
@pytest.mark.parametrize("script", ["exit 0", "exit 5", "kill -9 $$", "(setsid sleep 86399 &)"])
def test_a_step_ends_with_its_program(confined: Cluster, form: str, script: str) -> None:
    """The same code in each form; whoever is left in its cgroup is killed, what watches too."""
    codes = {"exit 5": 5, "kill -9 $$": 137}
    words = ("srun", "-n1", *ALL_FORMS[form], "/bin/sh", "-c", script)
    code, out = confined.run(*words, seconds=10)
    assert code == codes.get(script, 0), out
    wait_until(lambda: confined.left_over() == "", "somebody is left")
    assert "sleep 86399" not in confined.run("ps", "-e", "-o", "args=")[1]
    wait_until(lambda: steps_in(confined) == [], "a step's cgroup is left")


def steps_in(cluster: Cluster) -> list[str]:
    """Return the cgroups of steps that there are."""
    found = cluster.run("find", "/sys/fs/cgroup", "-name", "step_*")[1]
    return found.splitlines()


def test_what_exec_mode_proved_is_in_a_report_before_the_end(confined: Cluster) -> None:
    """The step's end kills who would write the rest: that is said at the start, and in there."""
    folder = confined.reports()
    until_it_is_there = ("/bin/sh", "-c", f"until [ -e {folder}/*.json ]; do sleep 0.01; done")
    words = (RTLAUNCH, "--mode", "exec", "--report", f"{folder}/{BY_RANK}", "--")
    code, out = confined.run("srun", "-n1", *words, *until_it_is_there)
    assert code == 0
    assert "mode-exec-step" in out
    (report,) = read_all(folder).values()
    assert schema.errors(report) == []
    assert report["lock"]["ok"]
    assert [found["code"] for found in report["findings"]] == ["mode-exec-step"]


def test_the_report_of_supervise_mode_is_whole(confined: Cluster) -> None:
    """The task is rtlaunch itself: it has written before the step ends, and warns of nothing."""
    folder = confined.reports()
    words = (RTLAUNCH, "--report", f"{folder}/{BY_RANK}", "--", "/bin/sh", "-c", "exit 3")
    code, out = confined.run("srun", "-n1", *words)
    assert code == 3
    assert "rtlaunch: " not in out
    (report,) = read_all(folder).values()
    assert (report["complete"], report["verdict"], report["exit"]["code"]) == (True, "clean", 3)
    assert report["findings"] == []


@pytest.mark.timeout(240)
def test_the_time_limit_reaches_the_program(confined: Cluster) -> None:
    """srun --time=1: TERM in each form, and a program that ends by it has ended well."""
    if not os.environ.get("SLOW_RIGS"):
        skip("slow-rig")
    polite = "trap 'echo took TERM; exit 0' TERM; while :; do sleep 0.1; done"
    started = {
        form: confined.start("srun", "-n1", "--time=1", *words, "/bin/sh", "-c", polite)
        for form, words in ALL_FORMS.items()
    }
    ends = {form: process.communicate(timeout=200)[0] for form, process in started.items()}
    for form, out in ends.items():
        assert "DUE TO TIME LIMIT" in out, form
        assert out.count("took TERM") == 1, form
    codes = {process.returncode for process in started.values()}
    assert len(codes) == 1
