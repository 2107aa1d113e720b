"""rtlaunch status PID: one reading of a process that runs, in words or as the report has them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import books, schema
from tests.host import wait_until
from tests.kernel import processes
from tests.kernel.runners import call, refused_as, started

LOCKED, NOT_LOCKED = 0, 1


def reading(rtlaunch, pid: int) -> dict:
    """Return the report of one reading, which must fit the schema."""
    ran = call(rtlaunch, "status", pid, "--json")
    assert ran.code in (LOCKED, NOT_LOCKED), ran.err
    report = json.loads(ran.out)
    assert schema.errors(report, closed=True) == []
    return report


def test_an_ordinary_process_is_not_locked(rtlaunch, targets):
    """Exit 1, and every mapping that the kernel could lock is named."""
    with started(targets / "sleepers", "read") as runner:
        ran = call(rtlaunch, "status", runner.pid)
        assert ran.code == NOT_LOCKED
        assert ran.out.startswith(f"not locked: sleepers[{runner.pid}]: 0.0 MiB")
        report = reading(rtlaunch, runner.pid)
        assert report["lock"]["ok"] is False
        named = {each["address"] for each in report["lock"]["unlocked_mappings"]}
        lockable = {hex(each.start) for each in books.smaps(runner.pid) if each.lockable}
        assert named == lockable


def test_what_rtlaunch_started_is_locked(rtlaunch, targets):
    """Exit 0 for a program that was launched, with the kernel's own numbers."""
    with processes.running(rtlaunch, (), (targets / "sleepers", "read")) as running:
        ran = call(rtlaunch, "status", running.target)
        assert ran.code == LOCKED
        assert ran.out.startswith(f"locked: sleepers[{running.target}]: ")
        report = reading(rtlaunch, running.target)
        assert report["lock"]["ok"] is True
        assert report["lock"]["locked_bytes"] == books.locked_bytes(running.target)
        assert report["lock"]["unlocked_mappings"] == []


def test_a_lock_on_fault_is_a_lock(rtlaunch, targets):
    """Pages that nobody has touched are not missed where that was meant."""
    options = ("--lock", "current,future,onfault")
    with processes.running(rtlaunch, options, (targets / "sleepers", "read")) as running:
        assert call(rtlaunch, "status", running.target).code == LOCKED


def test_each_thread_has_its_faults_policy_and_cpus(rtlaunch, targets):
    """They are those of /proc/PID/task/TID, one entry for each thread."""
    with started(targets / "sleepers", "read", "accept", "epoll-forever") as runner:
        wait_until(lambda: len(books.threads(runner.pid)) == 5, "its threads do not start")
        os.sched_setaffinity(books.threads(runner.pid)[1], {0})
        found = {each["tid"]: each for each in reading(rtlaunch, runner.pid)["threads"]}
        assert sorted(found) == books.threads(runner.pid)
        for tid, thread in found.items():
            stat = Path(f"/proc/{runner.pid}/task/{tid}/stat").read_text()
            fields = books.after_name(stat)
            assert [thread["major_faults"], thread["minor_faults"]] == [
                int(fields[9]),
                int(fields[7]),
            ]
            assert (thread["policy"], thread["priority"], thread["nice"]) == (
                "other",
                0,
                os.getpriority(os.PRIO_PROCESS, tid),
            )
        assert found[books.threads(runner.pid)[1]]["cpu_list"] == "0"


def test_limits_headroom_and_capabilities_are_those_of_the_process(rtlaunch, targets):
    """They are read from the process, not from the reader."""
    words = ["prlimit", "--memlock=65536:131072", "setpriv", "--reuid=65534", "--clear-groups"]
    with started(*words, targets / "sleepers", "read") as runner:
        report = reading(rtlaunch, runner.pid)
        assert report["limits"]["memlock"]["after"] == {"soft": 65536, "hard": 131072}
        assert report["lock"]["headroom_bytes"] == 65536
        assert report["caps"]["target"]["effective"] == []
        assert report["target"]["uid"] == 65534
        assert report["target"]["argv"][0] == str(targets / "sleepers")


def test_nothing_is_stopped_for_it(rtlaunch, targets):
    """A process that sleeps is not woken: it has not gone to sleep again since."""
    with started(targets / "sleepers", "read") as runner:
        wait_until(lambda: processes.state(runner.pid) == "S", "it does not sleep")
        before = processes.switches(runner.pid)
        reading(rtlaunch, runner.pid)
        assert processes.switches(runner.pid) == before


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_what_cannot_be_told_is_125(rtlaunch, as_user, targets, as_json):
    """No process, and books that are closed, are neither locked nor unlocked."""
    with started(targets / "sleepers", "read") as runner:
        ran = call(as_user("limited"), "status", runner.pid, *as_json)
        assert refused_as(ran) == "proof-unreadable"
        pid = runner.pid
    ran = call(rtlaunch, "status", pid, *as_json)
    assert refused_as(ran) == "process-missing"
    if as_json:
        report = json.loads(ran.out)
        assert schema.errors(report, closed=True) == []
        assert report["verdict"] == "refused"
