"""What a machine's settings are judged to be: each good, bad and unknown value."""

from __future__ import annotations

import pytest

from rtlaunch.core.cgroup import CgroupLimit
from rtlaunch.core.findings import CODES
from rtlaunch.core.hostcheck import (
    COMFORT_BYTES,
    SIGSYS,
    HostFacts,
    LockTrial,
    kernel_version,
    lines,
)
from rtlaunch.core.record import replace
from rtlaunch.core.units import UNLIMITED

EPERM, EAGAIN, ENOSYS = 1, 11, 38
MIB = 1 << 20
WORKS = LockTrial(4 * MIB, 0, 0, 0)

# A machine that nothing stands against.
GOOD = HostFacts(
    kernel="6.1.0-56-rt-amd64",
    memory_bytes=16 << 30,
    available_bytes=8 << 30,
    swap_bytes=0,
    swap_used_bytes=0,
    thp="always [madvise] never\n",
    cgroups=(CgroupLimit("/sys/fs/cgroup", UNLIMITED, None),),
    compact_unevictable=0,
    numa_balancing=0,
    numa_nodes=2,
    ksm_run=0,
    rt_runtime_us=-1,
    rt_period_us=1_000_000,
    perf_paranoid=2,
    memlock=(UNLIMITED, UNLIMITED),
    may_lock_all=True,
    trial=WORKS,
)
LIMITED = {"may_lock_all": False, "memlock": (8 * MIB, 8 * MIB)}


def codes(facts: HostFacts) -> list[str]:
    return [line.finding.code for line in lines(facts) if line.finding]


def test_nothing_is_found_on_a_good_machine():
    """A machine prepared for real time gives a line for each subject and no finding."""
    assert codes(GOOD) == []
    assert len(lines(GOOD)) == len({line.subject for line in lines(GOOD)}) == 11


BAD = {
    "swap": ({"swap_bytes": 2 << 30}, "swap-on"),
    "huge pages for all": ({"thp": "[always] madvise never\n"}, "thp-always"),
    "compaction": ({"compact_unevictable": 1}, "compaction-unevictable"),
    "NUMA balancing": ({"numa_balancing": 1}, "numa-balancing"),
    "NUMA tiering": ({"numa_balancing": 2}, "numa-balancing"),
    "NUMA, nodes not known": ({"numa_balancing": 1, "numa_nodes": None}, "numa-balancing"),
    "KSM": ({"ksm_run": 1}, "ksm-on"),
    "RT throttling": ({"rt_runtime_us": 950_000}, "rt-throttling"),
    "fair server": ({"kernel": "6.12.1"}, "rt-throttling"),
    "fair server, read": ({"kernel": "7.0.0", "fair_server_ns": 50_000_000}, "rt-throttling"),
    "no perf": ({"watch_error": "Permission denied"}, "watch-degraded"),
    "tight cgroup": ({"cgroups": (CgroupLimit("/a", 64 * MIB, 10 * MIB),)}, "memory-cgroup"),
    "tight cgroup above": (
        {
            "cgroups": (
                CgroupLimit("/a/b", UNLIMITED, 1),
                CgroupLimit("/a", 100 * MIB, 90 * MIB),
            )
        },
        "memory-cgroup",
    ),
    "cgroup below the need": (
        {"cgroups": (CgroupLimit("/a", 1 << 30, 0),), "need_bytes": 2 << 30},
        "memory-cgroup",
    ),
    "limit too small": (
        {**LIMITED, "trial": LockTrial(11 * MIB, 0, EAGAIN, None)},
        "memlock-limit",
    ),
    "limit 0": (
        {"may_lock_all": False, "memlock": (0, 0), "trial": LockTrial(MIB, EPERM, None, None)},
        "memlock-limit",
    ),
    "little room": ({**LIMITED, "trial": LockTrial(MIB, 0, 0, EAGAIN)}, "memlock-headroom"),
    "filter says EPERM": (
        {"seccomp": True, "trial": LockTrial(MIB, EPERM, None, None)},
        "lock-denied",
    ),
    "filter says ENOSYS": ({**LIMITED, "trial": LockTrial(MIB, ENOSYS, None, None)}, "lock-denied"),
    "filter kills": ({"trial": LockTrial(MIB, None, None, None, SIGSYS)}, "lock-denied"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_value_is_found(name):
    """Each setting that stands against a lock is found by its code, and nothing else is."""
    changed, code = BAD[name]
    assert codes(replace(GOOD, **changed)) == [code]
    assert code in CODES


FINE = {
    "huge pages never": {"thp": "always madvise [never]\n"},
    "no huge pages in this kernel": {"thp": None},
    "one node": {"numa_balancing": 1, "numa_nodes": 1},
    "no NUMA": {"numa_balancing": None, "numa_nodes": None},
    "no KSM": {"ksm_run": None},
    "KSM unmerged": {"ksm_run": 2},
    "no compaction": {"compact_unevictable": None},
    "throttling at the whole period": {"rt_runtime_us": 1_000_000},
    "fair server off": {"kernel": "6.12.1", "rt_runtime_us": 950_000, "fair_server_ns": 0},
    "roomy cgroup": {"cgroups": (CgroupLimit("/a", 1 << 30, 100 * MIB),)},
    "roomy cgroup, use unknown": {"cgroups": (CgroupLimit("/a", COMFORT_BYTES, None),)},
    "no cgroup": {"cgroups": ()},
}


@pytest.mark.parametrize("name", FINE)
def test_each_good_value_is_not_found(name):
    """A setting that does no harm is not complained of."""
    assert codes(replace(GOOD, **FINE[name])) == []


UNREADABLE = {
    "memory": ({"memory_bytes": None}, "memory"),
    "swap": ({"swap_bytes": None}, "swap"),
    "throttling": ({"rt_runtime_us": None}, "RT throttling"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_unknown(name):
    """A fact that could not be read is said to be unknown, not taken for good."""
    changed, subject = UNREADABLE[name]
    told = {line.subject: line.text for line in lines(replace(GOOD, **changed))}
    assert told[subject].startswith("unknown: ")


def test_a_trial_that_did_not_begin_is_no_success():
    """Where a step before the lock fails, nothing is said of the lock."""
    told = lines(replace(GOOD, trial=LockTrial(MIB, None, None, None)))[1]
    assert told.text.startswith("not tried")
    assert told.finding is None


def test_the_tightest_cgroup_is_named():
    """Of several limits the one with the least room is shown."""
    groups = (CgroupLimit("/a/b", 500 * MIB, 0), CgroupLimit("/a", 1 << 30, 900 * MIB))
    told = {line.subject: line.text for line in lines(replace(GOOD, cgroups=groups))}
    assert told["memory cgroup"] == "1 GiB, 124 MiB left (/a)"


def test_what_the_fair_server_needs_is_no_sysctl():
    """From Linux 6.12 on, sched_rt_runtime_us is not the knob: the finding brings its own cure."""
    found = next(
        line.finding for line in lines(replace(GOOD, kernel="6.18.44")) if line.finding is not None
    )
    assert "fair_server" in found.try_now
    assert "sysctl" not in found.try_now


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.0-56-amd64", (6, 1)),
        ("6.12-rc1", (6, 12)),
        ("6.18.44-fc-v782", (6, 18)),
        ("Linux 5.10.0", (5, 10)),
        ("strange", (0, 0)),
        ("", (0, 0)),
        ("6.x", (6, 0)),
    ],
)
def test_kernel_version(release, version):
    """A release is compared by its first two numbers."""
    assert kernel_version(release) == version
