"""What stands against a launch, and with which numbers."""

from __future__ import annotations

import pytest

from rtlaunch.core import preflight
from rtlaunch.core.facts import Shim
from rtlaunch.core.findings import first_refusal
from rtlaunch.core.limits import Limit
from rtlaunch.core.plan import make_plan
from rtlaunch.core.record import replace
from rtlaunch.core.units import UNLIMITED
from tests.unit.deciding import ALL, MIB, NOBODY, ROOT, USER, codes, facts, options

SYS_RESOURCE = 1 << 24


def limits(**changed: Limit) -> dict[str, Limit]:
    return dict(facts().limits) | changed


def test_nothing_stands_against_a_plain_launch():
    """Root, a dynamic program, a shim: no finding at all."""
    assert preflight.findings(options(), facts()) == ()


OURS = str(facts().host.pid)
TIMED = {"WATCHDOG_USEC": "1000000"}


@pytest.mark.parametrize(
    "environ",
    [
        {"NOTIFY_SOCKET": "/run/notify"},
        {"LISTEN_PID": OURS, "LISTEN_FDS": "1"},
        {"WATCHDOG_PID": OURS, **TIMED},
        TIMED,  # sd_watchdog_enabled(3): without a PID everybody is meant
    ],
)
def test_what_is_bound_to_our_pid_refuses(environ):
    """The manager's protocols name the PID that it started."""
    found = preflight.findings(options(), facts(environ=environ))
    assert codes(found) == ["notify-supervise"]
    assert next(iter(environ)) in found[0].what


@pytest.mark.parametrize(
    "environ",
    [
        {"LISTEN_PID": OURS + "0", "LISTEN_FDS": "1"},
        {"WATCHDOG_PID": OURS + "0", **TIMED},
        {"WATCHDOG_PID": OURS},  # no time
        {"WATCHDOG_PID": OURS, "WATCHDOG_USEC": "0"},
        {"WATCHDOG_PID": OURS, "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": ""},
    ],
)
def test_what_means_somebody_else_or_nothing_refuses_nothing(environ):
    """A program would not heed it with us any more than without us."""
    assert preflight.findings(options(), facts(environ=environ)) == ()


def test_readiness_that_we_say_ourselves_is_no_reason_to_refuse():
    """--notify while the program is our child: the main PID is ours."""
    environ = {"NOTIFY_SOCKET": "/run/notify"}
    assert preflight.findings(options(notify="true"), facts(environ=environ)) == ()


def test_nobody_to_tell_of_readiness_is_a_warning():
    """--notify without NOTIFY_SOCKET."""
    assert codes(preflight.findings(options(notify="true"), facts())) == ["notify-missing"]


def test_readiness_that_cannot_be_told_refuses():
    """The kernel's words for why are in the message."""
    told = facts(environ={"NOTIFY_SOCKET": "/run/x"}, notify_error="No such file or directory")
    (found,) = preflight.findings(options(notify="true"), told)
    assert found.code == "notify-failed"
    assert "NOTIFY_SOCKET=/run/x: No such file or directory" in found.what


@pytest.mark.parametrize(("kind", "expected"), [("forking", ["unit-forking"]), ("notify", [])])
def test_a_unit_whose_daemon_is_a_fork_refuses(kind, expected):
    """The lock is the parent's alone; the unit is named."""
    found = preflight.findings(options(), facts(unit="x.service", unit_type=kind))
    assert codes(found) == expected
    assert all("x.service has Type=forking" in each.what for each in found)


def test_no_shim_for_the_machine_refuses():
    """Nothing could be preloaded."""
    asked = options(via="preload")
    assert codes(preflight.findings(asked, facts(shim=None))) == ["shim-missing"]


def test_a_shim_that_ld_preload_cannot_carry_refuses():
    """A path with a space and no alias for it."""
    shim = Shim("x86_64", "/opt/my app/shim.so", "")
    found = preflight.findings(options(via="preload"), facts(shim=shim))
    assert codes(found) == ["shim-path"]
    assert "/opt/my app/shim.so" in found[0].what


def test_a_limit_below_the_program_refuses_a_user():
    """Without CAP_IPC_LOCK the program alone is too large; both numbers are said."""
    small = facts(who=USER, limits=limits(memlock=Limit(MIB, MIB)))
    found = preflight.findings(options(), small)
    assert codes(found) == ["memlock-limit"]
    assert "4 MiB" in found[0].what
    assert "1 MiB" in found[0].what


def test_the_capability_makes_the_limit_irrelevant():
    """Root locks at any limit, 0 included."""
    assert codes(preflight.findings(options(), facts(limits=limits(memlock=Limit(0, 0))))) == []


def test_the_capability_in_another_user_namespace_does_not():
    """can_do_mlock asks the initial user namespace."""
    inside = facts(who=replace(ROOT, initial_userns=False), limits=limits(memlock=Limit(0, 0)))
    assert "memlock-limit" in codes(preflight.findings(options(), inside))


def test_a_demand_lowers_the_limit_that_counts():
    """--memlock 64K is what the target will have, whatever was in force."""
    found = preflight.findings(options(memlock="64K"), facts(who=USER))
    assert codes(found) == ["memlock-limit"]


def test_dropping_root_without_the_capability_in_reach_refuses():
    """--user clears the sets; with nothing ambient the limit applies again."""
    asked = options(user="nobody", ambient_caps="none")
    limited_root = replace(ROOT, caps=replace(ROOT.caps, effective=ALL & ~SYS_RESOURCE))
    small = facts(who=limited_root, account=NOBODY, limits=limits(memlock=Limit(MIB, MIB)))
    assert codes(preflight.findings(asked, small)) == ["memlock-limit"]
    assert preflight.findings(options(user="nobody"), small) == ()


def test_a_stack_limit_below_the_prefault_refuses():
    """Touching below the limit would be a SIGSEGV before main()."""
    narrow = facts(limits=limits(stack=Limit(256 << 10, UNLIMITED)))
    found = preflight.findings(options(), narrow)
    assert codes(found) == ["stack-limit"]
    assert "256 KiB" in found[0].what
    assert preflight.findings(options(prefault_stack="64K"), narrow) == ()


def test_a_stack_limit_that_was_asked_for_counts_too():
    """--limit stack=256K is as narrow as one that was inherited."""
    assert codes(preflight.findings(options(limit="stack=256K"), facts())) == ["stack-limit"]


def test_another_user_needs_capabilities():
    """setresuid(2) and setgroups(2) are refused to a plain user."""
    found = preflight.findings(options(user="nobody"), facts(who=USER, account=NOBODY))
    assert codes(found) == ["user-denied"]
    assert "CAP_SETUID" in found[0].what


def test_a_capability_that_we_lack_cannot_be_given():
    """An ambient capability must be permitted first; the lacking set is named."""
    found = preflight.findings(options(ambient_caps="sys_nice"), facts(who=USER))
    assert codes(found) == ["capability-missing"]
    assert "CAP_SYS_NICE" in found[0].what
    assert "permitted" in found[0].what


def test_a_real_time_priority_needs_the_limit_or_the_capability():
    """RLIMIT_RTPRIO 0 and no CAP_SYS_NICE; up to the limit it is fine."""
    found = preflight.findings(options(sched="fifo:10"), facts(who=USER))
    assert codes(found) == ["sched-denied"]
    allowed = facts(who=USER, limits=limits(rtprio=Limit(10, 10)))
    assert preflight.findings(options(sched="fifo:10"), allowed) == ()


def test_a_better_nice_value_needs_the_limit_or_the_capability():
    """RLIMIT_NICE 0 permits nothing below 20 - 0; a worse value is free."""
    plain = facts(who=USER, limits=limits(nice=Limit(0, 0)))
    assert codes(preflight.findings(options(nice="-5"), plain)) == ["sched-denied"]
    assert preflight.findings(options(nice="5"), plain) == ()


def test_cpus_outside_the_cpuset_refuse():
    """The kernel would leave them out without a word."""
    found = preflight.findings(options(cpu_list="1-7"), facts())
    assert codes(found) == ["cpu-unavailable"]
    assert "2-7" in found[0].what
    assert preflight.findings(options(cpu_list="1"), facts()) == ()


def test_what_was_allowed_by_name_no_longer_refuses():
    """--allow waives that code alone; it stays in the list, marked."""
    both = {"environ": {"NOTIFY_SOCKET": "/x"}, "limits": limits(stack=Limit(1 << 18, UNLIMITED))}
    found = preflight.findings(options(allow="stack-limit"), facts(**both))
    assert {finding.code: finding.waived for finding in found} == {
        "notify-supervise": False,
        "stack-limit": True,
    }


def test_best_effort_waives_all_that_may_be():
    """A user who cannot be had is no best effort: nothing else would be started either."""
    best = options(best_effort="true", user="nobody", via="preload")
    found = preflight.findings(best, facts(who=USER, account=NOBODY, shim=None))
    refusing = first_refusal(found)
    assert refusing is not None
    assert refusing.code == "user-denied"
    assert [finding.waived for finding in found if finding.code == "shim-missing"] == [True]


@pytest.mark.parametrize(
    ("mode", "who"),
    [("exec", "the program's own process"), ("supervise", "rtlaunch, the main process")],
)
def test_the_plan_says_who_says_ready(mode, who):
    """After the lock; where nobody is to be told there is no step."""
    told = facts(environ={"NOTIFY_SOCKET": "/run/notify"})
    steps = [step.describe() for step in make_plan(options(notify="true", mode=mode), told)]
    assert f"say READY=1 to /run/notify, from {who}" in steps
    untold = make_plan(options(notify="true"), facts())
    assert not any("READY" in step.describe() for step in untold)
