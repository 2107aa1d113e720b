"""What a launch takes at least, what there is for it, and what is said where it does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import preflight
from rtlaunch.core.budget import FIT, LEAST, Memory, parse_meminfo
from rtlaunch.core.cgroup import CgroupLimit
from rtlaunch.core.findings import first_refusal
from rtlaunch.core.heap import HeapFacts
from rtlaunch.core.limits import Limit
from rtlaunch.core.options import Fitted, HugePages
from rtlaunch.core.record import replace
from rtlaunch.core.target import Target
from rtlaunch.core.units import UNLIMITED
from rtlaunch.report import budget as shown
from tests.unit.deciding import MIB, USER, codes, facts, options

GIB = 1 << 30
PROGRAM = 4 * MIB  # what deciding.facts() says of it
STACK = 512 << 10
ROOMY = Memory(available=16 * GIB)

MEMINFO = """\
MemTotal:       24683656 kB
MemFree:        22940220 kB
MemAvailable:   24097292 kB
SwapTotal:       2097148 kB
SwapFree:        1048576 kB
CommitLimit:    12341828 kB
Committed_AS:      77380 kB
HugePages_Total:       0
"""


def limited(soft: int, **changed: object):
    """Facts of a user without the capability, at this memlock limit."""
    limits = dict(facts().limits) | {"memlock": Limit(soft, soft)}
    return facts(**{"who": USER, "limits": limits, "memory": ROOMY, **changed})


def within(group: CgroupLimit, **changed: object):
    """Facts of root in a memory cgroup."""
    return facts(memory=Memory(available=16 * GIB, cgroups=(group,)), **changed)


def fitted(locked: int, resident: int | None = None, threads: int = 1, **texts: str):
    """Options with a profile that was measured."""
    measured = Fitted(locked, locked if resident is None else resident, threads)
    return replace(options(**texts), fitted=measured)


def budget_findings(asked, known):
    found = preflight.findings(asked, known)
    return [one for one in found if one.code in ("budget-margin", "overcommit-limit")
            or one.code.endswith("-budget")]  # fmt: skip


# --- the need --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "locked", "resident"),
    [
        ({}, PROGRAM + STACK, PROGRAM + STACK),
        ({"heap": "64M"}, PROGRAM + STACK + 64 * MIB, PROGRAM + STACK + 64 * MIB),
        ({"prefault_stack": "none"}, PROGRAM, PROGRAM),
        ({"lock": "current,onfault", "heap": "1M"}, PROGRAM + STACK + MIB, STACK + MIB),
        ({"lock": "future", "heap": "1M"}, 0, STACK + MIB),
        ({"lock": "none", "heap": "1M"}, 0, STACK + MIB),
    ],
    ids=["plain", "heap", "no stack", "onfault", "future", "none"],
)
def test_the_lower_bound(texts, locked, resident):
    """Program, stack and heap, by what the lock does to each."""
    need = preflight.budgeted(options(**texts), facts()).need
    assert (need.source, need.locked, need.resident) == (LEAST, locked, resident)


def test_huge_pages_are_neither_locked_nor_resident_and_yet_count():
    """VmLck, VmRSS and memory cgroups leave them out; RLIMIT_MEMLOCK does not."""
    need = preflight.budgeted(options(heap="64M", heap_pages="2M"), facts()).need
    assert (need.locked, need.resident, need.fresh) == (PROGRAM + STACK, PROGRAM + STACK, STACK)
    assert need.charged == PROGRAM + STACK + 64 * MIB


def test_what_was_measured_takes_the_place_of_less():
    """The peak of a measured run is more than what can be known beforehand."""
    need = preflight.budgeted(fitted(46 * MIB, 60 * MIB), facts()).need
    assert (need.source, need.locked, need.resident, need.charged) == (
        FIT, 46 * MIB, 60 * MIB, 46 * MIB,
    )  # fmt: skip


def test_a_heap_that_is_larger_than_what_was_measured_counts():
    """A profile's figures do not hide an option that asks for more."""
    need = preflight.budgeted(fitted(46 * MIB, heap="1G"), facts()).need
    assert (need.source, need.locked) == (LEAST, PROGRAM + STACK + GIB)


def test_a_program_that_no_shim_gets_into_is_locked_by_nobody():
    """A static program needs no memlock limit, and no prefaulted stack."""
    known = facts()
    program = known.target.images[-1]
    static = replace(program, elf=replace(program.elf, linkage="static"))
    known = limited(MIB, target=Target("app", "/usr/bin/app", ("app",), (static,)))
    asked = fitted(46 * MIB, heap="64M")
    need = preflight.budgeted(replace(asked, via="preload"), known).need
    assert (need.locked, need.charged, need.stack, need.resident) == (0, 0, 0, 46 * MIB)
    injected = preflight.budgeted(asked, known).need
    assert (injected.locked, injected.stack) == (PROGRAM + STACK + 64 * MIB, STACK)


def test_threads_that_were_counted_are_mapped_with_their_stacks():
    """Strict overcommit counts a stack whole; what was locked bounds them all."""
    asked = fitted(400 * MIB, 20 * MIB, threads=11)
    assert preflight.budgeted(asked, facts()).need.mapped == STACK + 10 * 8 * MIB
    small = replace(asked, thread_stack=MIB)
    assert preflight.budgeted(small, facts()).need.mapped == STACK + 10 * MIB
    bounded = fitted(30 * MIB, 20 * MIB, threads=11)
    assert preflight.budgeted(bounded, facts()).need.mapped == 30 * MIB


# --- RLIMIT_MEMLOCK --------------------------------------------------------------------------


def test_a_heap_beyond_the_limit_is_refused_with_all_numbers():
    """Need, its parts, limit, and the heap that would fit."""
    (finding,) = budget_findings(options(heap="64M"), limited(40 * MIB))
    assert finding.code == "memlock-budget"
    assert finding.what == (
        "app needs at least 68.5 MiB locked (program 4 MiB, stack 512 KiB, heap 64 MiB); "
        "RLIMIT_MEMLOCK is 40 MiB (hard 40 MiB), no CAP_IPC_LOCK"
    )
    assert finding.values["needed_bytes"] == PROGRAM + STACK + 64 * MIB
    assert finding.values["fitting_heap"] == "26M"
    assert first_refusal([finding])


def test_the_border_of_the_limit():
    """A limit of exactly the need is enough; a page less is not."""
    need = PROGRAM + STACK + 64 * MIB
    assert budget_findings(options(heap="64M"), limited(need)) == []
    assert codes(budget_findings(options(heap="64M"), limited(need - 4096))) == ["memlock-budget"]


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_less_than_was_measured_is_refused(locked, limit):
    """With a fitted profile: refused where the limit is less, and only there."""
    found = codes(preflight.findings(fitted(locked), limited(limit)))
    need = max(locked, PROGRAM + STACK)
    assert ("memlock-budget" in found or "memlock-limit" in found) == (limit < need)


def test_a_quarter_less_than_was_measured_is_refused_in_its_words():
    """The message says where the figure comes from."""
    (finding,) = budget_findings(fitted(46 * MIB), limited(35 * MIB))
    assert finding.what.startswith("app needs 46 MiB locked (measured by fit); RLIMIT_MEMLOCK is")
    assert finding.values["from"] == "fit"


def test_a_program_that_alone_is_too_large_is_said_once():
    """memlock-limit has said it, and the same cure."""
    found = codes(preflight.findings(options(heap="64M"), limited(MIB)))
    assert found == ["memlock-limit"]


def test_the_capability_has_no_limit():
    """Root locks whatever there is memory for."""
    assert budget_findings(fitted(46 * MIB), replace(limited(MIB), who=facts().who)) == []


def test_it_can_be_allowed_by_name():
    """Whoever knows better says so."""
    (finding,) = budget_findings(options(heap="64M", allow="memlock-budget"), limited(40 * MIB))
    assert finding.waived


# --- memory cgroups --------------------------------------------------------------------------

TIGHT = CgroupLimit("/sys/fs/cgroup/a", 64 * MIB, 60 * MIB, cache=36 * MIB)


def test_a_heap_beyond_the_cgroup_is_refused_with_all_numbers():
    """Need, what is left once the cache is gone, limit, directory, a limit that suffices."""
    (finding,) = budget_findings(options(heap="50M"), within(TIGHT))
    assert finding.code == "cgroup-budget"
    assert finding.what == (
        "app needs at least 50.5 MiB of memory (stack 512 KiB, heap 50 MiB); the memory cgroup "
        "/sys/fs/cgroup/a has 40 MiB left of 64 MiB"
    )
    assert finding.values["cgroup"] == "/sys/fs/cgroup/a"
    assert finding.values["enough"] == "94M"


def test_page_cache_is_no_reason_to_refuse():
    """60 of 64 MiB are used, and 36 of them are cache: 39 MiB go in."""
    assert budget_findings(options(heap="39M"), within(TIGHT)) == []


def test_a_large_binary_is_no_reason_to_refuse():
    """Its pages may be in the cache already, charged to whom they may."""
    assert budget_findings(options(), within(replace(TIGHT, limit=25 * MIB))) == []


def test_zeroed_data_is_new_memory_in_any_case():
    """No file holds it, so no cache has it: a program of 50 MiB of .bss does not go into 40."""
    target = facts().target
    image = target.images[0]
    large = replace(image, elf=replace(image.elf, bss_bytes=50 * MIB))
    known = within(TIGHT, target=replace(target, images=(large,)))
    (finding,) = budget_findings(options(), known)
    assert finding.code == "cgroup-budget"
    assert "at least 50.5 MiB of memory (zeroed data 50 MiB, stack 512 KiB)" in finding.what
    assert budget_findings(options(lock="current,onfault"), known) == []


def test_the_tightest_group_counts():
    """A limit may stand at any level above us."""
    groups = (CgroupLimit("/a/b", GIB, 0), CgroupLimit("/a", 64 * MIB, 0))
    known = facts(memory=Memory(available=16 * GIB, cgroups=groups))
    (finding,) = budget_findings(options(heap="100M"), known)
    assert finding.values["cgroup"] == "/a"


def test_swap_makes_room_for_what_others_have():
    """Never for what is locked: with any swap, no more than the limit goes in."""
    swapping = Memory(available=16 * GIB, swap_free=GIB, cgroups=(TIGHT,))
    assert budget_findings(options(heap="59M"), facts(memory=swapping)) == []
    assert codes(budget_findings(options(heap="64M"), facts(memory=swapping))) == ["cgroup-budget"]


def test_what_is_not_locked_may_go_to_swap_itself():
    """--lock none refuses only what even swap cannot hold."""
    swapping = Memory(available=16 * GIB, swap_free=GIB, cgroups=(TIGHT,))
    assert budget_findings(options(heap="200M", lock="none"), facts(memory=swapping)) == []


@pytest.mark.parametrize(
    ("heap", "stale"),
    [("50M", True), ("63M", True), ("64M", False), ("30M", False)],
)
def test_only_what_an_empty_group_could_hold_is_looked_at_again(heap, stale):
    """How much is cache comes late from the kernel; that more than the limit does not fit, not."""
    found = preflight.findings(options(heap=heap), within(TIGHT))
    assert preflight.may_be_stale(found) is stale


def test_what_is_refused_anyway_is_not_looked_at_again():
    """Nothing that the kernel adds up helps it; and what is allowed needs no look."""
    other = preflight.findings(options(heap="50M", via="preload"), within(TIGHT, shim=None))
    assert not preflight.may_be_stale(other)
    allowed = preflight.findings(options(heap="50M", allow="cgroup-budget"), within(TIGHT))
    assert not preflight.may_be_stale(allowed)


def test_a_group_whose_use_cannot_be_read_is_judged_by_its_limit():
    """Less is known, and what is certain is refused still."""
    group = CgroupLimit("/a", 64 * MIB, None)
    assert budget_findings(options(heap="60M"), within(group)) == []
    assert codes(budget_findings(options(heap="64M"), within(group))) == ["cgroup-budget"]


# --- the machine -----------------------------------------------------------------------------


def test_a_heap_larger_than_memory_is_refused():
    """With the heap's number and the machine's."""
    (finding,) = budget_findings(options(heap="100G"), facts(memory=ROOMY))
    assert finding.code == "memory-budget"
    assert "heap 100 GiB" in finding.what
    assert "16 GiB is available" in finding.what


def test_a_heap_that_no_memory_could_hold_is_said_once():
    """heap-too-large has said it, where the machine's whole memory is known."""
    heap = HeapFacts("glibc", "/lib64/ld.so", True, True, total_bytes=24 * GIB)
    found = codes(preflight.findings(options(heap="100G"), facts(memory=ROOMY, heap=heap)))
    assert "heap-too-large" in found
    assert "memory-budget" not in found
    found = codes(preflight.findings(options(heap="20G"), facts(memory=ROOMY, heap=heap)))
    assert "memory-budget" in found


def test_huge_pages_are_taken_from_their_pool():
    """A heap on huge pages is the lease's business."""
    asked = replace(options(heap="100G", heap_pages="2M"), hugepages=(HugePages(2 * MIB, 51200),))
    assert budget_findings(asked, facts(memory=ROOMY)) == []


@pytest.mark.parametrize(
    "memory", [None, Memory(), Memory(None, 0, None)], ids=["none", "empty", "unknown"]
)
def test_what_cannot_be_read_refuses_nothing(memory):
    """Odd machines start programs too."""
    asked = fitted(GIB, heap="100G")
    assert budget_findings(asked, facts(memory=memory)) == []


def test_strict_overcommit_is_refused_before_mmap_fails():
    """CommitLimit less Committed_AS is what may be mapped."""
    strict = facts(memory=Memory(available=16 * GIB, commit_left=GIB))
    (finding,) = budget_findings(options(heap="2G"), strict)
    assert finding.code == "overcommit-limit"
    assert "leaves 1 GiB" in finding.what
    assert budget_findings(options(heap="512M"), strict) == []


# --- the margin ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "name"),
    [
        (limited(48 * MIB), "RLIMIT_MEMLOCK is 48 MiB"),
        (within(CgroupLimit("/a", 48 * MIB, 0)), "the memory cgroup /a leaves 48 MiB"),
        (facts(memory=Memory(available=48 * MIB)), "available memory is 48 MiB"),
    ],
    ids=["memlock", "cgroup", "memory"],
)
def test_a_measured_need_that_just_fits_is_warned_of(known, name):
    """Less than a tenth to spare: another run may take it."""
    (finding,) = budget_findings(fitted(46 * MIB), known)
    assert finding.code == "budget-margin"
    assert name in finding.what
    assert not first_refusal([finding])


def test_a_tenth_to_spare_is_silent():
    """What fit recommends brings no warning."""
    assert budget_findings(fitted(40 * MIB), limited(44 * MIB)) == []
    assert codes(budget_findings(fitted(40 * MIB), limited(44 * MIB - 4096))) == ["budget-margin"]


def test_a_lower_bound_has_no_margin():
    """It is one already: a warning would be of nothing that is known."""
    assert budget_findings(options(), limited(PROGRAM + STACK)) == []


def test_of_several_the_tightest_is_named():
    """One line, not three."""
    known = limited(48 * MIB, memory=Memory(available=47 * MIB))
    (finding,) = budget_findings(fitted(46 * MIB), known)
    assert "available memory is 47 MiB" in finding.what


# --- /proc/meminfo ---------------------------------------------------------------------------


def test_meminfo_is_read_in_bytes():
    """The kernel counts KiB; without strict overcommit its limit does not bind."""
    memory = parse_meminfo(MEMINFO, 0, ())
    assert (memory.available, memory.swap_free) == (24097292 << 10, 1 << 30)
    assert memory.commit_left == UNLIMITED


def test_strict_overcommit_leaves_the_difference():
    """vm.overcommit_memory 2 alone makes CommitLimit one."""
    assert parse_meminfo(MEMINFO, 2, ()).commit_left == (12341828 - 77380) << 10
    assert parse_meminfo(MEMINFO, 1, ()).commit_left == UNLIMITED
    assert parse_meminfo("", 2, ()).commit_left is None


@given(st.text())
def test_no_text_is_an_error(text):
    """What is not understood is not known."""
    assert parse_meminfo(text, 2, ()).available is None


# --- showing ---------------------------------------------------------------------------------


def test_plan_shows_need_and_room():
    """Locked of the limit, resident of the memory; what was measured stands first."""
    asked = fitted(46 * MIB, 60 * MIB, threads=12)
    whole = preflight.budgeted(asked, limited(64 * MIB))
    assert shown.lines(whole, asked.fitted) == [
        "measured by fit: 46 MiB locked, 60 MiB resident, 12 threads",
        "locked 46 MiB of 64 MiB (RLIMIT_MEMLOCK, no CAP_IPC_LOCK)",
        "resident 60 MiB of 16 GiB available",
    ]


def test_plan_shows_each_bound_that_is_there():
    """A cgroup with a limit, and strict overcommit, have a line each."""
    memory = Memory(available=None, commit_left=GIB, cgroups=(TIGHT,))
    lines = shown.lines(preflight.budgeted(options(heap="2M"), facts(memory=memory)), None)
    assert lines[0].startswith("locked at least 6.5 MiB, without a limit")
    assert lines[1:] == [
        "resident at least 6.5 MiB",
        "in the memory cgroup at least 2.5 MiB of 40 MiB left (/sys/fs/cgroup/a, limit 64 MiB)",
        "mapped at least 2.5 MiB of 1 GiB that strict overcommit leaves",
    ]


def test_the_report_has_need_and_room():
    """No limit is "unlimited", not known is null."""
    whole = preflight.budgeted(fitted(46 * MIB, 60 * MIB), limited(64 * MIB, memory=Memory()))
    assert shown.as_dict(whole) == {
        "locked_bytes": 46 * MIB,
        "resident_bytes": 60 * MIB,
        "from": "fit",
        "room": {
            "memlock_bytes": 64 * MIB,
            "cgroup_bytes": "unlimited",
            "cgroup": None,
            "available_bytes": None,
            "commit_bytes": "unlimited",
        },
    }
