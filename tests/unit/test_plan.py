"""The order of the plan, and what stands in it."""

from __future__ import annotations

import errno

from rtlaunch.core import plan, preflight
from rtlaunch.core.asked_steps import (
    BecomeUser,
    RaiseAmbient,
    SetAffinity,
    SetNice,
    SetNoNewPrivs,
    SetScheduler,
    SetTimerSlack,
)
from rtlaunch.core.identity import ambient_caps
from rtlaunch.core.limits import Limit
from rtlaunch.core.record import replace
from rtlaunch.core.remedy import Context, remedy
from rtlaunch.core.steps import Execute, Lock, SetLimit, Trace, WatchFaults
from rtlaunch.core.target import Target
from rtlaunch.core.units import UNLIMITED
from rtlaunch.core.where import PLAIN, Where
from rtlaunch.engine.launch import failed_action
from tests.unit.deciding import ALL, MIB, NOBODY, ROOT, codes, facts, options

SYS_RESOURCE = 1 << 24
LIMITED_ROOT = replace(ROOT, caps=replace(ROOT.caps, effective=ALL & ~SYS_RESOURCE))


def kinds(asked, known) -> list[type]:
    return [type(action) for action in plan.make_plan(asked, known)]


def test_a_plain_launch_raises_limits_then_starts_then_locks():
    """memlock and core first, then exec, then what the shim and the launcher do."""
    assert kinds(options(), facts()) == [
        SetLimit,
        SetLimit,
        Execute,
        Lock,
        WatchFaults,
    ]
    first, second = plan.make_plan(options(), facts())[:2]
    assert isinstance(first, SetLimit)
    assert isinstance(second, SetLimit)
    assert (first.change.name, second.change.name) == ("memlock", "core")


def test_privileges_are_used_before_they_are_given_up():
    """Limits, CPUs, scheduling, nice, slack, user, capabilities, no_new_privs, exec."""
    asked = options(
        sched="fifo:10", cpu_list="0", nice="-5", timer_slack="1us", user="nobody",
        ambient_caps="ipc_lock", no_new_privs="true", memlock="inherit", core="inherit",
        limit="nofile=100",
    )  # fmt: skip
    assert kinds(asked, facts(account=NOBODY))[:9] == [
        SetLimit,
        SetAffinity,
        SetScheduler,
        SetNice,
        SetTimerSlack,
        BecomeUser,
        RaiseAmbient,
        SetNoNewPrivs,
        Execute,
    ]


def test_the_lock_capability_is_kept_only_where_it_is_needed():
    """Dropping root, a limit that cannot be raised, and a capability that we hold."""
    dropping = options(user="nobody")
    assert ambient_caps(dropping, facts(who=LIMITED_ROOT, account=NOBODY)) == ("ipc_lock",)
    assert ambient_caps(dropping, facts(who=ROOT, account=NOBODY)) == ()
    assert ambient_caps(options(), facts(who=LIMITED_ROOT)) == ()
    no_lock = options(user="nobody", lock="none")
    assert ambient_caps(no_lock, facts(who=LIMITED_ROOT, account=NOBODY)) == ()


def test_an_unlimited_hard_limit_needs_no_capability():
    """max raises soft to it, and the lock fits."""
    limits = dict(facts().limits) | {"memlock": Limit(MIB, UNLIMITED)}
    known = facts(who=LIMITED_ROOT, account=NOBODY, limits=limits)
    assert ambient_caps(options(user="nobody"), known) == ()


def test_what_is_out_of_a_preloads_reach_runs_without_one():
    """A waived target-static leaves LD_PRELOAD alone."""
    known = facts(target=static_target())
    asked = options(allow="target-static", via="preload")
    found = preflight.findings(asked, known)
    execute = next(
        action for action in plan.make_plan(asked, known, found) if isinstance(action, Execute)
    )
    assert execute.preload == ""


def test_what_ptrace_reaches_is_traced_first():
    """The launcher must have hold of the child before it becomes anybody else."""
    asked = options(via="ptrace", user="nobody", memlock="inherit", core="inherit")
    steps = plan.make_plan(asked, facts(account=NOBODY), (), *preflight.way_in(asked, facts())[:1])
    assert [type(step) for step in steps][:3] == [Trace, BecomeUser, Execute]
    assert steps[0].describe() == "stop it at its exec by ptrace, and lock it from outside"


def test_a_static_program_keeps_the_preload_for_what_it_execs():
    """Under auto LD_PRELOAD stays: the next image may be dynamic. --via ptrace leaves it alone."""
    known = facts(target=static_target())
    for asked, preload in ((options(), "/opt/shim.so"), (options(via="ptrace"), "")):
        found = preflight.findings(asked, known)
        way, _ = preflight.way_in(asked, known)
        steps = plan.make_plan(asked, known, found, way)
        assert codes(found) == []
        assert [step.preload for step in steps if isinstance(step, Execute)] == [preload]


def static_target() -> Target:
    program = facts().target.images[0]
    assert program.elf is not None
    static = replace(program, elf=replace(program.elf, linkage="static", interp=None))
    return replace(facts().target, images=(static,))


def test_a_waived_demand_takes_what_it_gets():
    """--memlock unlimited --allow limit-raise is no demand any more."""
    asked = options(memlock="unlimited", allow="limit-raise")
    known = facts(who=LIMITED_ROOT)
    first = plan.make_plan(asked, known, preflight.findings(asked, known))[0]
    assert isinstance(first, SetLimit)
    assert not first.change.demanded


def test_each_action_says_what_it_does_with_its_values():
    """plan, -v and the error of a failed action print these words."""
    asked = options(sched="rr:7", cpu_list="0-1", user="nobody", ambient_caps="ipc_lock")
    said = [action.describe() for action in plan.make_plan(asked, facts(account=NOBODY))]
    assert "run on CPUs 0-1" in said
    assert "schedule as rr, priority 7" in said
    assert "become nobody (uid 65534, gid 65534, groups [65534])" in said
    assert "raise ambient CAP_IPC_LOCK" in said
    assert any("mlockall(MCL_CURRENT|MCL_FUTURE)" in line for line in said)


def test_what_is_so_already_is_no_step():
    """A limit that stays, and no_new_privs that is set, are left out; the limit is still known."""
    limits = dict(facts().limits) | {"memlock": Limit(UNLIMITED, UNLIMITED)}
    known = facts(limits=limits, who=replace(ROOT, no_new_privs=True))
    asked = options(core="8M", limit="nofile=8M", no_new_privs="true")
    assert kinds(asked, known) == [Execute, Lock, WatchFaults]
    changed = [step.change.name for step in plan.before_exec(asked, known)[:3]]
    assert changed == ["memlock", "core", "nofile"]


def test_each_action_that_may_fail_knows_its_values():
    """A remedy for what the kernel refused in the child has the values that preflight's has."""
    asked = options(
        sched="rr:7", cpu_list="0-1", nice="-5", user="nobody", ambient_caps="ipc_lock",
        memlock="64M", core="inherit",
    )  # fmt: skip
    steps = plan.before_exec(asked, facts(account=NOBODY))
    assert [step.values() for step in steps] == [
        {"limit": "memlock", "asked": "64 MiB", "soft": 64 * MIB, "hard": 8 * MIB},
        {"asked": [0, 1]},
        {"policy": "rr", "priority": 7},
        {"nice": -5},
        {"user": "nobody", "uid": 65534},
        {"capability": "CAP_IPC_LOCK"},
    ]


def test_the_remedy_for_what_the_kernel_refused_has_its_values():
    """EPERM for a limit above fs.nr_open: limit and value are in what is advised."""
    steps = plan.make_plan(options(limit="nofile=16M", memlock="inherit", core="inherit"), facts())
    finding = failed_action(steps, facts(), 0, errno.EPERM)
    assert finding.code == "limit-raise"
    assert finding.values["errno"] == errno.EPERM
    advised = remedy(finding, Where(PLAIN, "as captured"), Context())[1]
    assert f"prlimit --pid $$ --nofile={16 * MIB} && rtlaunch" in advised
