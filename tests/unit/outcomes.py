"""Outcomes of launches, filled as the engine does, for the tests of what shows them."""

from __future__ import annotations

from rtlaunch.core.budget import Budget, Need, Room
from rtlaunch.core.findings import Finding
from rtlaunch.core.outcome import (
    BY_RTLAUNCH,
    BY_TARGET,
    ENDED,
    REFUSED,
    Faults,
    Image,
    Limit,
    Outcome,
    UnlockedMapping,
)
from rtlaunch.core.units import UNLIMITED

START = 5_000_000_000_000
MASKS = {"inheritable": 0, "permitted": 1 << 14, "effective": 1 << 14, "bounding": 3, "ambient": 0}


def started() -> Outcome:
    """Return what is known of every launch once it was decided on."""
    outcome = Outcome()
    outcome.rtlaunch.version, outcome.rtlaunch.protocol = "1.2.3", 1
    outcome.time.started_at, outcome.time.monotonic_ns = 1_790_000_000_123_456_789, START
    outcome.target.argv = ("python3", "-c", "pass")
    outcome.host.name, outcome.host.where = "box", "login-session"
    outcome.options = {"lock": ("current,future", "default"), "nice": ("-5", "cli")}
    outcome.limits = {"memlock": Limit(asked="max", before=(8 << 20, 8 << 20))}
    outcome.caps.launcher = MASKS
    need = Need("lower-bound", 4 << 20, 512 << 10, 0, 4718592, 4718592, 4718592, 524288, 524288)
    outcome.budget = Budget(need, Room(UNLIMITED, None, UNLIMITED, 8 << 30, UNLIMITED))
    return outcome


def clean() -> Outcome:
    """Return a run of a locked program that took no fault."""
    outcome = started()
    outcome.state = ENDED
    outcome.time.forked_ns, outcome.time.entered_ns = START + 1000, START + 2000
    outcome.time.ended_ns = START + 9000
    target = outcome.target
    target.pid, target.uid, target.gid = 1234, 0, 0
    target.images = (Image(path="/usr/bin/python3.11", at_ns=START + 2000, locked=True),)
    lock = outcome.lock
    lock.via, lock.flags = "preload", ("current", "future")
    lock.locked_bytes, lock.resident_bytes = 11_744_051, 12_582_912
    lock.headroom_bytes, lock.stack_bytes, lock.lock_ns = UNLIMITED, 524_288, 3_100_000
    outcome.limits["memlock"].after = (UNLIMITED, UNLIMITED)
    outcome.heap.allocator = "glibc"
    outcome.heap.variables = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}
    outcome.watch.source = "perf"
    outcome.watch.before_arm = Faults(major=7, minor=900)
    outcome.watch.after_arm = Faults(major=0, minor=2)
    outcome.watch.lost = outcome.watch.unseen = outcome.watch.faults_omitted = 0
    outcome.exit.by, outcome.exit.code, outcome.exit.rtlaunch_code = BY_TARGET, 0, 0
    return outcome


def faulted() -> Outcome:
    """Return a run that took major faults."""
    outcome = clean()
    outcome.watch.after_arm = Faults(major=1000, minor=None)
    outcome.watch.sites = ({"mapping": "/lib/x.so", "address": 0x7F00DEADB000, "count": 3},)
    outcome.watch.faults = ({"at_ns": START + 5000, "ip": 0xFFFFFFFF81000000, "tid": 1235},)
    return outcome


def unlocked() -> Outcome:
    """Return a run whose second image was not locked, allowed by name."""
    outcome = clean()
    outcome.target.images = (
        *outcome.target.images,
        Image(path="/opt/app", at_ns=START + 3000, locked=False, why="RLIMIT_MEMLOCK is 8 MiB"),
    )
    outcome.lock.errno = 12
    outcome.lock.unlocked_mappings = (
        UnlockedMapping(0x7F0000000000, 0x7F0000002000, "[heap]", 4096, "not resident"),
    )
    outcome.findings = (Finding("memlock-limit", "8 MiB", waived=True),)
    return outcome


def refused(code: str = "memlock-limit") -> Outcome:
    """Return a launch that was refused before anything started."""
    outcome = started()
    outcome.state = REFUSED
    outcome.exit.by, outcome.exit.rtlaunch_code = BY_RTLAUNCH, 125
    outcome.findings = (
        Finding("swap-on", "2 GiB"),
        Finding(code, "8 MiB", "because", {"soft": 8 << 20, "hard": UNLIMITED, "path": "/x"}),
    )
    return outcome


EVERY = {
    "nothing": Outcome,
    "started": started,
    "clean": clean,
    "faulted": faulted,
    "unlocked": unlocked,
    "refused": refused,
}
