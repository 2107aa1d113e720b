"""The judgement between record and go."""

from __future__ import annotations

import pytest

from rtlaunch.core import proof
from rtlaunch.core.caps import CAP_IPC_LOCK
from rtlaunch.core.proc import Mapping, Status
from rtlaunch.core.protocol import RECORD, Message
from rtlaunch.core.record import replace
from rtlaunch.core.units import UNLIMITED

MIB = 1 << 20
PAGE = 4096
BOTH = ("current", "future")
GOOD = Message(RECORD)
LOCKED = frozenset(("rd", "wr", "lo"))


def mapping(name: str = "/app", flags: frozenset[str] = LOCKED, rss: int = 4 * PAGE) -> Mapping:
    return Mapping(0x10000, 0x14000, "rw-p", 0, "08:01", 7, name, rss, rss, flags)


def books(*mappings: Mapping, cap: bool = True, memlock: int = 8 * MIB, locked: int = 4 * MIB):
    mask = 1 << CAP_IPC_LOCK if cap else 0
    status = Status("app", "S", 10, 1, (0,) * 4, (0,) * 4, vm_size=6 * MIB, vm_lck=locked)
    status = replace(status, vm_rss=locked, cap_eff=mask)
    limits = {"memlock": (memlock, memlock), "stack": (8 * MIB, UNLIMITED)}
    return proof.Books(status, limits, mappings or (mapping(),), True, PAGE)


def codes(judged: proof.Judgement) -> list[str]:
    return [finding.code for finding in judged.findings]


def test_locked_and_resident_is_proven():
    """Every lockable mapping with lo and all of its pages, nothing to say."""
    judged = proof.judge("app", BOTH, GOOD, books())
    assert judged.locked
    assert codes(judged) == []
    assert judged.headroom_bytes == UNLIMITED


def test_a_record_of_success_is_not_believed():
    """The shim says it locked; the books show a mapping without lo."""
    judged = proof.judge("app", BOTH, GOOD, books(mapping(), mapping("/lib", frozenset(("rd",)))))
    assert not judged.locked
    assert codes(judged) == ["unlocked-mappings"]
    assert judged.unlocked[0].name == "/lib"
    assert judged.unlocked[0].why == "not locked"


def test_locked_but_absent_pages_are_seen():
    """lo without residence is a page that will fault."""
    judged = proof.judge("app", BOTH, GOOD, books(mapping(rss=PAGE)))
    assert codes(judged) == ["unlocked-mappings"]
    assert judged.unlocked[0].why == "not resident"


def test_onfault_asks_for_the_lock_only():
    """With MCL_ONFAULT pages come at their first touch."""
    assert proof.judge("app", (*BOTH, "onfault"), GOOD, books(mapping(rss=0))).locked


def test_future_alone_proves_nothing_yet():
    """MCL_FUTURE locks what is mapped from now on."""
    assert proof.judge("app", ("future",), GOOD, books(mapping("/a", frozenset(("rd",))))).locked


def test_a_failed_lock_under_a_limit_names_the_limit():
    """ENOMEM without CAP_IPC_LOCK is the limit, with need and limit in the words."""
    judged = proof.judge("app", BOTH, Message(RECORD, error=12), books(cap=False))
    assert not judged.locked
    assert codes(judged) == ["memlock-limit"]
    assert "6 MiB" in judged.findings[0].what
    assert "8 MiB" in judged.findings[0].what


def test_a_failed_lock_with_the_capability_is_not_the_limit():
    """EPERM although CAP_IPC_LOCK is effective, under a filter: seccomp."""
    kept = books()
    filtered = replace(kept, status=replace(kept.status, seccomp=2))
    assert codes(proof.judge("app", BOTH, Message(RECORD, error=1), filtered)) == ["lock-denied"]
    assert codes(proof.judge("app", BOTH, Message(RECORD, error=1), kept)) == ["lock-failed"]


def test_no_descriptor_for_the_shim_is_not_called_a_lack_of_memory():
    """EMFILE is of the socket that it asks by; the remedy is about descriptors."""
    kept = books()
    few = replace(kept, limits={**kept.limits, "nofile": (4, 4)})
    (found,) = proof.judge("app", BOTH, Message(RECORD, error=24), few).findings
    assert found.code == "lock-failed"
    assert "no descriptor left" in found.what and "RLIMIT_NOFILE is 4" in found.what
    assert "open files" in found.try_now and "descriptors" in found.for_good


def test_a_capability_in_a_user_namespace_counts_for_nothing():
    """can_do_mlock asks the initial user namespace."""
    inside = replace(books(), initial_userns=False)
    judged = proof.judge("app", BOTH, Message(RECORD, error=12), inside)
    assert codes(judged) == ["memlock-limit"]
    assert "user namespace" in judged.findings[0].what


def test_too_little_headroom_is_said_with_the_numbers():
    """Less than one thread's stack left, under a limit that applies."""
    judged = proof.judge("app", BOTH, GOOD, books(cap=False))
    assert judged.locked
    assert codes(judged) == ["memlock-headroom"]
    assert judged.headroom_bytes == 4 * MIB
    assert judged.findings[0].values["thread_stack_bytes"] == 8 * MIB


def test_enough_headroom_is_not_mentioned():
    """Room for a thread's stack, or a lock that does not cover the future."""
    assert codes(proof.judge("app", BOTH, GOOD, books(cap=False, memlock=64 * MIB))) == []
    assert codes(proof.judge("app", ("current",), GOOD, books(cap=False))) == []


def stack(start: int, end: int) -> Mapping:
    return Mapping(start, end, "rw-p", 0, "00:00", 0, "[stack]")


def test_the_stack_may_be_touched_down_to_its_limit():
    """acct_stack_growth measures from the mapping's end; a page stays in hand."""
    end = 0x7FFF_F000_0000
    floor = proof.stack_floor((stack(end - 132 * 1024, end),), 8 * MIB, PAGE)
    assert floor == end - 8 * MIB + PAGE


def test_the_stack_may_not_come_near_what_lies_below():
    """The kernel keeps 256 pages free below a stack that grows."""
    end = 0x7FFF_F000_0000
    below = replace(mapping("/lib"), start=end - 3 * MIB, end=end - 2 * MIB)
    floor = proof.stack_floor((below, stack(end - 132 * 1024, end)), UNLIMITED, PAGE)
    assert floor == end - 2 * MIB + 257 * PAGE + PAGE


def test_without_a_stack_nothing_is_touched():
    """No mapping of that name, no address."""
    assert proof.stack_floor((mapping(),), 8 * MIB, PAGE) == 0


# ---- the flags that were used

ONFAULT = (*BOTH, "onfault")
CURRENT, FUTURE = 1, 2


@pytest.mark.parametrize(
    ("asked", "recorded", "used"),
    [
        (ONFAULT, CURRENT | FUTURE | 4, ONFAULT),
        (ONFAULT, CURRENT | FUTURE, BOTH),
        (ONFAULT, CURRENT, ONFAULT),
        (ONFAULT, 0, ONFAULT),
        (BOTH, CURRENT | FUTURE, BOTH),
        (BOTH, 0, BOTH),
        (("future", "onfault"), FUTURE, ("future",)),
        ((), 0, ()),
    ],
)
def test_of_the_recorded_flags_only_a_missing_onfault_is_believed(asked, recorded, used):
    """Anything else would let a record lower what is to be proven."""
    assert proof.flags_used(asked, Message(RECORD, flags=recorded)) == used


def test_without_onfault_all_must_be_resident():
    """The proof asks what the flags that were used promise, and a warning says which they were."""
    fell_back = Message(RECORD, flags=CURRENT | FUTURE)
    absent = proof.judge("app", ONFAULT, fell_back, books(mapping(rss=0)))
    assert (absent.locked, codes(absent)) == (False, ["unlocked-mappings", "lock-onfault"])
    present = proof.judge("app", ONFAULT, fell_back, books())
    assert (present.locked, present.flags, codes(present)) == (True, BOTH, ["lock-onfault"])


def test_headroom_is_counted_in_the_stacks_that_threads_get():
    """The limit at exec counts, not the one that was restored."""
    without = books(cap=False)
    assert codes(proof.judge("app", BOTH, GOOD, without)) == ["memlock-headroom"]
    assert codes(proof.judge("app", BOTH, GOOD, without, stack_at_exec=256 << 10)) == []
