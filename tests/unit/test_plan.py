"""The order of the plan, and what stands in it."""

from __future__ import annotations

from rtlaunch.core import plan, preflight
from rtlaunch.core.limits import Limit
from rtlaunch.core.record import replace
from rtlaunch.core.units import UNLIMITED
from tests.unit.deciding import ALL, MIB, NOBODY, ROOT, facts, options

SYS_RESOURCE = 1 << 24
LIMITED_ROOT = replace(ROOT, caps=replace(ROOT.caps, effective=ALL & ~SYS_RESOURCE))


def kinds(asked, known) -> list[type]:
    return [type(action) for action in plan.make_plan(asked, known)]


def test_a_plain_launch_raises_limits_then_starts_then_locks():
    """memlock and core first, then exec, then what the shim and the launcher do."""
    assert kinds(options(), facts()) == [
        plan.SetLimit,
        plan.SetLimit,
        plan.Execute,
        plan.Lock,
        plan.WatchFaults,
    ]
    first, second = plan.make_plan(options(), facts())[:2]
    assert isinstance(first, plan.SetLimit)
    assert isinstance(second, plan.SetLimit)
    assert (first.change.name, second.change.name) == ("memlock", "core")


def test_privileges_are_used_before_they_are_given_up():
    """Limits, CPUs, scheduling, nice, slack, user, capabilities, no_new_privs, exec."""
    asked = options(
        sched="fifo:10", cpu_list="0", nice="-5", timer_slack="1us", user="nobody",
        ambient_caps="ipc_lock", no_new_privs="true", memlock="inherit", core="inherit",
        limit="nofile=100",
    )  # fmt: skip
    assert kinds(asked, facts(account=NOBODY))[:9] == [
        plan.SetLimit,
        plan.SetAffinity,
        plan.SetScheduler,
        plan.SetNice,
        plan.SetTimerSlack,
        plan.BecomeUser,
        plan.RaiseAmbient,
        plan.SetNoNewPrivs,
        plan.Execute,
    ]


def test_the_lock_capability_is_kept_only_where_it_is_needed():
    """Dropping root, a limit that cannot be raised, and a capability that we hold."""
    dropping = options(user="nobody")
    assert plan.ambient_caps(dropping, facts(who=LIMITED_ROOT, account=NOBODY)) == ("ipc_lock",)
    assert plan.ambient_caps(dropping, facts(who=ROOT, account=NOBODY)) == ()
    assert plan.ambient_caps(options(), facts(who=LIMITED_ROOT)) == ()
    no_lock = options(user="nobody", lock="none")
    assert plan.ambient_caps(no_lock, facts(who=LIMITED_ROOT, account=NOBODY)) == ()


def test_an_unlimited_hard_limit_needs_no_capability():
    """max raises soft to it, and the lock fits."""
    limits = dict(facts().limits) | {"memlock": Limit(MIB, UNLIMITED)}
    known = facts(who=LIMITED_ROOT, account=NOBODY, limits=limits)
    assert plan.ambient_caps(options(user="nobody"), known) == ()


def test_what_is_out_of_a_preloads_reach_runs_without_one():
    """A waived target-static leaves LD_PRELOAD alone."""
    program = facts().target.images[0]
    assert program.elf is not None
    static = replace(program, elf=replace(program.elf, linkage="static", interp=None))
    known = facts(target=replace(facts().target, images=(static,)))
    asked = options(allow="target-static")
    found = preflight.findings(asked, known)
    execute = next(
        action for action in plan.make_plan(asked, known, found) if isinstance(action, plan.Execute)
    )
    assert execute.preload == ""


def test_a_waived_demand_takes_what_it_gets():
    """--memlock unlimited --allow limit-raise is no demand any more."""
    asked = options(memlock="unlimited", allow="limit-raise")
    known = facts(who=LIMITED_ROOT)
    first = plan.make_plan(asked, known, preflight.findings(asked, known))[0]
    assert isinstance(first, plan.SetLimit)
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
