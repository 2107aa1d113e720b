"""Which signals are passed on to the target."""

from __future__ import annotations

import pytest

from rtlaunch.core.forwarding import (
    SI_KERNEL,
    SI_QUEUE,
    SIGINFO,
    SIGINFO_BYTES,
    Signal,
    is_for_target,
    parse_signals,
    signals_all,
    step_cgroups,
)

OWN_PID, OTHER_PID = 100, 200
SI_USER = 0
TERMINAL = {"HUP": 1, "INT": 2, "QUIT": 3, "TSTP": 20, "TTIN": 21, "TTOU": 22, "WINCH": 28}


def signal(number: int, code: int = SI_USER, sender: int = OTHER_PID) -> Signal:
    return Signal(number, code, sender, 0)


@pytest.mark.parametrize("number", TERMINAL.values(), ids=TERMINAL)
def test_what_the_terminal_sent_is_not_sent_again(number):
    """The kernel gave it to the whole foreground group, so to the target too."""
    assert not is_for_target(signal(number, SI_KERNEL, 0), OWN_PID, leads_session=False)


@pytest.mark.parametrize("number", TERMINAL.values(), ids=TERMINAL)
def test_what_a_process_sent_is_passed_on(number):
    """kill(1) of rtlaunch means the program that it stands for."""
    assert is_for_target(signal(number), OWN_PID, leads_session=False)


@pytest.mark.parametrize("number", [1, 18])
def test_a_hangup_is_passed_on_by_the_session_leader(number):
    """The kernel hangs up on the leader alone, who is to tell its group."""
    assert is_for_target(signal(number, SI_KERNEL, 0), OWN_PID, leads_session=True)


def test_an_alarm_set_before_exec_is_passed_on():
    """`alarm 5; exec rtlaunch -- app` must end app, though the kernel sends it."""
    assert is_for_target(signal(14, SI_KERNEL, 0), OWN_PID, leads_session=False)


@pytest.mark.parametrize("number", [24, 25])
def test_our_own_limits_are_not_the_targets(number):
    """SIGXCPU and SIGXFSZ by the kernel are about rtlaunch's own time and files."""
    assert not is_for_target(signal(number, SI_KERNEL, 0), OWN_PID, leads_session=False)


def test_children_are_ours():
    """SIGCHLD is never passed on, whoever sent it."""
    assert not is_for_target(signal(17), OWN_PID, leads_session=False)


def test_our_own_broken_pipe_is_not_the_targets():
    """SIGPIPE that we brought upon ourselves stays here; another's is passed on."""
    assert not is_for_target(signal(13, sender=OWN_PID), OWN_PID, leads_session=False)
    assert is_for_target(signal(13), OWN_PID, leads_session=False)


def test_a_read_of_a_signalfd_may_hold_several_signals():
    """Number, code, sender and value are taken from each, in order."""
    one = SIGINFO.pack(34, 0, SI_QUEUE, 7, 0, 0, 0, 0, 0, 0, 0, 5, 5).ljust(SIGINFO_BYTES, b"\0")
    two = SIGINFO.pack(15, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0).ljust(SIGINFO_BYTES, b"\0")
    assert parse_signals(one + two) == (Signal(34, SI_QUEUE, 7, 5), Signal(15, 0, 8, 0))


SLURM_STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("sender", "environ", "same_group", "same_cgroup", "all_of_them"),
    [
        ("slurmstepd", SLURM_STEP, True, True, True),
        ("slurmstepd", SLURM_STEP, False, True, True),
        ("slurmstepd", SLURM_STEP, True, False, False),  # proctrack/cgroup: its own child alone
        ("slurmstepd", {"SLURM_JOB_ID": "7"}, True, True, False),  # a batch script: scancel --batch
        ("mpirun", {}, True, True, True),
        ("orted", {}, True, False, True),
        ("mpirun.openmpi", {}, True, True, True),  # by the name of Debian's alternative
        ("mpiexec.openmpi", {}, True, True, True),
        ("hydra_pmi_proxy", {}, True, True, True),
        ("mpirun", {}, False, True, False),  # it signals the group that the target has left
        ("bash", SLURM_STEP, True, True, False),
    ],
)
def test_what_a_jobs_daemon_sends_reaches_all(
    sender, environ, same_group, same_cgroup, all_of_them
):
    """slurmstepd signals every process that no cgroup holds, Open MPI's daemons a process group."""
    assert signals_all(sender, environ, same_group, same_cgroup) is all_of_them


@pytest.mark.parametrize(
    ("daemon", "task", "held"),
    [
        # v1: proctrack/cgroup; task/cgroup alone, which moves the task in other hierarchies
        ("6:freezer:/\n4:memory:/\n0::/\n", "6:freezer:/slurm/s\n4:memory:/slurm/t\n0::/\n", True),
        ("6:freezer:/\n4:memory:/\n0::/\n", "6:freezer:/\n4:memory:/slurm/t\n0::/\n", False),
        # v2: slurmstepd is in the step as well, beside its tasks
        ("0::/job_1/step_0/slurm\n", "0::/job_1/step_0/user/task_0\n", True),
        ("0::/system.slice/slurmd.service\n", "0::/system.slice/slurmd.service\n", False),
        # seen from within a cgroup namespace; a path may hold a colon; a kernel without cgroups
        ("0::/../../slurm\n", "0::/\n", True),
        ("5:name=systemd:/a\n0::/a:b\n", "5:name=systemd:/c\n0::/a:b\n", False),
        ("", "", False),
    ],
)
def test_a_step_in_cgroups_is_told_by_its_daemons_place(daemon, task, held):
    """They differ in v1's freezer or in v2 where Slurm holds the step, and nowhere else."""
    assert (step_cgroups(daemon) != step_cgroups(task)) is held
