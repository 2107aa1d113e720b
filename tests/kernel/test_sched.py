"""Scheduling: what was asked, read back from the target; and a watcher that stands aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtlaunch.engine import survey
from tests import books
from tests.host import wait_until
from tests.kernel.programs import need_root
from tests.skips import skip
from tests.standing import standing

CAP_SYS_RESOURCE = 24
MS = 1_000_000
POLICY_AT, PRIORITY_AT = 38, 37  # of the fields after the name in stat, proc(5): 41 and 40


@pytest.fixture
def waiter(targets):
    return targets / "waiter"


@pytest.fixture(autouse=True)
def root():
    """Real-time policies and negative nice values are root's."""
    need_root()


def watchers(launcher):
    """Return the threads of rtlaunch that are not its main thread."""
    return [tid for tid in books.threads(launcher) if tid != launcher]


def policy(launcher, tid):
    """Return policy and real-time priority of a thread, from its stat."""
    fields = books.after_name(Path(f"/proc/{launcher}/task/{tid}/stat").read_text())
    return int(fields[POLICY_AT]), int(fields[PRIORITY_AT])


# ---- the target ----

POLICIES = {
    "fifo:10": (os.SCHED_FIFO, 10),
    "rr:3": (os.SCHED_RR, 3),
    "batch": (os.SCHED_BATCH, 0),
    "idle": (os.SCHED_IDLE, 0),
    "other": (os.SCHED_OTHER, 0),
}


@pytest.mark.parametrize("asked", POLICIES)
def test_policy_and_priority(rtlaunch, waiter, asked):
    """The kernel has the target under the policy and priority asked for; so has the report."""
    with standing(rtlaunch, "--sched", asked, "--", waiter) as held:
        seen = (os.sched_getscheduler(held.pid), os.sched_getparam(held.pid).sched_priority)
        assert seen == POLICIES[asked]
        report = held.end().report
    name = asked.partition(":")[0]
    assert (report["sched"]["policy"], report["sched"]["priority"]) == (name, seen[1])


@pytest.fixture
def cpu_group():
    """A new cpu cgroup of version 1, which has no share of real-time."""
    group = Path("/sys/fs/cgroup/cpu") / f"rtlaunch-sched-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        skip("no-rt-group")
    try:
        if not (group / "cpu.rt_runtime_us").exists():
            skip("no-rt-group")
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), f"{group} is not empty")
        group.rmdir()


def test_a_group_without_real_time_is_named_before_it_starts(rtlaunch, cpu_group):
    """CAP_SYS_NICE does not help there: the file is named, and with a share in it all is well."""
    share = cpu_group / "cpu.rt_runtime_us"
    rtlaunch.prefix = ["sh", "-c", f'echo $$ >{cpu_group}/cgroup.procs; exec "$@"', "sh"]
    refused = rtlaunch.run("--sched", "fifo:10", "--", "echo", "started")
    assert (refused.code, refused.out) == (125, "")
    assert f"refused [sched-denied]: fifo priority 10 was asked for; {share} is 0" in refused.err
    assert f"try now: echo 100000 >{share}" in " ".join(refused.err.split())
    share.write_text("100000")
    assert rtlaunch.run("--sched", "fifo:10", "--", "echo", "started").out == "started\n"


def test_the_policy_reaches_later_threads_and_children(rtlaunch):
    """What the target starts inherits it, as from chrt."""
    ran = rtlaunch.run("--sched", "fifo:10", "--", "sh", "-c", "cat /proc/self/stat; echo end")
    fields = books.after_name(ran.out.splitlines()[0])
    assert (int(fields[POLICY_AT]), int(fields[PRIORITY_AT])) == (os.SCHED_FIFO, 10)


def test_cpus(rtlaunch, waiter):
    """--cpu-list: the target may run there and nowhere else."""
    for cpu in sorted(os.sched_getaffinity(0))[:2]:
        with standing(rtlaunch, "--cpu-list", str(cpu), "--", waiter) as held:
            assert os.sched_getaffinity(held.pid) == {cpu}
            assert held.end().report["sched"]["cpu_list"] == str(cpu)


@pytest.mark.parametrize("nice", [-5, 7])
def test_nice(rtlaunch, waiter, nice):
    """--nice is the value itself, not an increment."""
    with standing(rtlaunch, "--nice", str(nice), "--", waiter) as held:
        assert os.getpriority(os.PRIO_PROCESS, held.pid) == nice
        assert held.end().report["sched"]["nice"] == nice


def test_timer_slack(rtlaunch, waiter):
    """--timer-slack: as the kernel shows it, in ns."""
    with standing(rtlaunch, "--timer-slack", "2ms", "--", waiter) as held:
        assert int(Path(f"/proc/{held.pid}/timerslack_ns").read_text()) == 2 * MS
        assert held.end().report["sched"]["timer_slack_ns"] == 2 * MS


def test_everything_is_inherited_by_default(as_user, waiter):
    """Without options the target runs as rtlaunch was started: policy, priority, CPUs, nice."""
    launcher = as_user("root")
    cpu = max(os.sched_getaffinity(0))
    launcher.prefix = ["nice", "-n", "3", "taskset", "--cpu-list", str(cpu), "chrt", "--rr", "7"]
    with standing(launcher, "--", waiter) as held:
        assert os.sched_getscheduler(held.pid) == os.SCHED_RR
        assert os.sched_getparam(held.pid).sched_priority == 7
        assert os.sched_getaffinity(held.pid) == {cpu}
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, held.pid) == min(ours + 3, 19)


@pytest.mark.parametrize("policy", ["fifo", "rr", "other"])
def test_what_a_fork_resets_is_taken_back(as_user, waiter, policy):
    """Under SCHED_RESET_ON_FORK (chrt -R) the program still has what rtlaunch was started with."""
    launcher, priority = as_user("root"), "0" if policy == "other" else "7"
    launcher.prefix = ["nice", "-n", "-5", "chrt", "--reset-on-fork", f"--{policy}", priority]
    expected = getattr(os, f"SCHED_{policy.upper()}") | os.SCHED_RESET_ON_FORK
    for mode in ("supervise", "exec"):
        with standing(launcher, "--mode", mode, "--", waiter) as held:
            assert os.sched_getscheduler(held.pid) == expected
            assert os.sched_getparam(held.pid).sched_priority == int(priority)
            assert os.getpriority(os.PRIO_PROCESS, held.pid) == -5


def test_what_was_asked_for_stands_before_what_a_fork_resets(as_user, waiter):
    """--sched and --nice are not undone."""
    launcher = as_user("root")
    launcher.prefix = ["nice", "-n", "-5", "chrt", "--reset-on-fork", "--fifo", "7"]
    words = ("--mode", "supervise", "--sched", "rr:3", "--nice", "2", "--", waiter)
    with standing(launcher, *words) as held:
        assert os.sched_getscheduler(held.pid) == os.SCHED_RR
        assert os.sched_getparam(held.pid).sched_priority == 3
        assert os.getpriority(os.PRIO_PROCESS, held.pid) == 2


def test_what_cannot_be_taken_back_is_refused(as_user, tmp_path):
    """A policy that one may keep and not set anew, as without CAP_SYS_NICE, is not lost quietly."""
    launcher = as_user("limited")
    launcher.prefix = ["chrt", "--reset-on-fork", "--fifo", "7", *launcher.prefix]
    ran = launcher.run("--mode", "supervise", "--", "touch", tmp_path / "marker")
    assert ran.code == 125
    assert ran.err.startswith("rtlaunch: refused [sched-denied]: could not take back fifo")


# ---- refusals ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sched", "fifo:10"), "fifo priority 10 was asked for; RLIMIT_RTPRIO is 0"),
        (("--nice", "-5"), "nice -5 was asked for; RLIMIT_NICE permits"),
    ],
)
def test_what_needs_privilege_is_refused_without(as_user, tmp_path, words, message):
    """With the limit that rules it, and nothing started."""
    launcher = as_user("limited")
    launcher.prefix = ["prlimit", "--rtprio=0:0", "--nice=0:0", *launcher.prefix]
    ran = launcher.run(*words, "--", "touch", tmp_path / "marker")
    assert ran.code == 125
    assert ran.err.startswith(f"rtlaunch: refused [sched-denied]: {message}")
    assert "no CAP_SYS_NICE" in ran.err


def test_a_limit_that_permits_it_is_enough(as_user, waiter):
    """RLIMIT_RTPRIO 20 and RLIMIT_NICE 30: fifo:20 and nice -10 without any capability."""
    if not books.holds("self", CAP_SYS_RESOURCE):
        skip("no-sys-resource")
    launcher = as_user("limited")
    launcher.prefix = ["prlimit", "--rtprio=20:20", "--nice=30:30", *launcher.prefix]
    with standing(launcher, "--sched", "fifo:20", "--nice", "-10", "--", waiter) as held:
        assert os.sched_getparam(held.pid).sched_priority == 20
        assert os.getpriority(os.PRIO_PROCESS, held.pid) == -10


def test_cpus_are_not_counted_by_how_many_are_online(monkeypatch):
    """Where every other CPU is offline (nosmt), the last has a number above their count."""
    all_of_them = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert survey.possible_cpus() >= all_of_them
    assert os.sched_getaffinity(0) == all_of_them


@pytest.mark.parametrize("asked", ["4000", "0,4000"])
def test_a_cpu_that_is_not_there_is_refused(rtlaunch, tmp_path, asked):
    """All of the list must be had: the kernel would leave out the missing ones without a word."""
    marker = tmp_path / "marker"
    ran = rtlaunch.run("--cpu-list", asked, "--", "touch", marker)
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith("rtlaunch: refused [cpu-unavailable]: CPUs 4000")


# ---- the watcher ----


def aside(launcher):
    """Wait until the watcher is there and has an ordinary policy; return its thread."""
    wait_until(lambda: len(watchers(launcher)) == 1, "there is no watcher")
    (tid,) = watchers(launcher)
    wait_until(lambda: policy(launcher, tid) == (os.SCHED_OTHER, 0), "it runs in real time")
    return tid


@pytest.fixture
def watched(rtlaunch):
    """Perf can be had, so that there is a watcher."""
    if rtlaunch.run("--", "true").report["watch"]["source"] != "perf":
        skip("no-perf")


def test_the_watcher_has_no_real_time_policy(rtlaunch, waiter, watched):
    """Under --sched fifo the target alone runs in real time."""
    with standing(rtlaunch, "--sched", "fifo:10", "--", waiter) as held:
        aside(held.process.pid)
        for tid in books.threads(held.process.pid):
            assert policy(held.process.pid, tid) == (os.SCHED_OTHER, 0)


def test_the_watcher_leaves_a_real_time_policy_that_we_were_given(as_user, waiter, watched):
    """Also where rtlaunch itself was started by chrt, and the target inherits that."""
    launcher = as_user("root")
    launcher.prefix = ["chrt", "--fifo", "10"]
    with standing(launcher, "--", waiter) as held:
        assert os.sched_getscheduler(held.pid) == os.SCHED_FIFO
        aside(held.process.pid)


def need_two_cpus():
    """Return two CPUs, sorted."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        skip("one-cpu")
    return cpus[:2]


def test_the_watcher_is_not_on_the_targets_cpus(rtlaunch, waiter, watched):
    """Whichever CPU the target is bound to, the watcher runs on others."""
    for cpu in need_two_cpus():
        with standing(rtlaunch, "--cpu-list", str(cpu), "--", waiter) as held:
            tid = aside(held.process.pid)
            wait_until(lambda tid=tid, cpu=cpu: cpu not in os.sched_getaffinity(tid), "it stays")
            assert os.sched_getaffinity(tid)


def test_the_watcher_leaves_a_cpu_that_we_were_bound_to(as_user, waiter, watched):
    """Also where rtlaunch itself was bound by taskset, and the target inherits that."""
    mine, _ = need_two_cpus()
    launcher = as_user("root")
    launcher.prefix = ["taskset", "--cpu-list", str(mine)]
    with standing(launcher, "--", waiter) as held:
        assert os.sched_getaffinity(held.pid) == {mine}
        tid = aside(held.process.pid)
        wait_until(lambda: mine not in os.sched_getaffinity(tid), "it stays on the target's CPU")
