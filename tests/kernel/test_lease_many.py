"""Many leases at once: no promise is broken, and the pool ends as the administrator set it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from tests.kernel import hugepools
from tests.kernel.processes import adopting

LAUNCHES = 30
KILLED = 10
MOST_PAGES = 12
LONGEST_MS = 300
ROUNDS = 3
SPREAD_S = 1.5  # s, over which launches start and launchers are killed


@pytest.fixture(autouse=True)
def pools():
    with hugepools.own_pools():
        yield


def one_round(rtlaunch, target, environ, chance, administrator):
    """Start all, kill some, wait for all; return what the survivors exited with and said."""
    running = []
    for number in range(LAUNCHES):
        pages = chance.randint(1, MOST_PAGES)
        lease = ["--hugepages", f"2M:{pages}" + ("@0" if number % 5 == 0 else "")]
        words = [*lease, "--", target, pages, "2048", chance.randint(0, LONGEST_MS)]
        running.append((chance.uniform(0, SPREAD_S), words))
    started, killed = [], set()
    doomed = {at: chance.uniform(0, SPREAD_S) for at in chance.sample(range(LAUNCHES), KILLED)}
    began = time.monotonic()
    for at, (_, words) in enumerate(running):
        started.append(rtlaunch.start(*words, env=environ))
        for victim, when in doomed.items():
            if victim <= at and victim not in killed and time.monotonic() - began > when:
                killed.add(victim)
                os.kill(started[victim].pid, signal.SIGKILL)
        time.sleep(SPREAD_S / LAUNCHES * chance.random())
    for victim in set(doomed) - killed:
        os.kill(started[victim].pid, signal.SIGKILL)
    ended = [(at, process.communicate(timeout=30), process) for at, process in enumerate(started)]
    return [
        (words[1], process.returncode, out, err)
        for (at, (out, err), process), (_, words) in zip(ended, running, strict=True)
        if at not in doomed
    ]


@pytest.mark.timeout(180)
def test_thirty_leases_a_third_killed_and_an_administrator(rtlaunch, targets, tmp_path):
    """Survivors touch all that they were promised; after gc the pool is the administrator's."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    environ = {**os.environ, "RTLAUNCH_STATE_DIR": str(tmp_path / "state")}
    with adopting():
        for at in range(ROUNDS):
            administrator = hugepools.Administrator(seed + at, most=60, pause_s=0.02)
            administrator.start()
            try:
                ran = one_round(rtlaunch, targets / "huge", environ, chance, administrator)
            finally:
                last = administrator.stop()
            assert [told for told in ran if told[1:3] != (0, "touched\n")] == []
            reap_orphans()
            gc = subprocess.run(
                [rtlaunch.program, "hugepages", "gc"],
                env=environ, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (gc.returncode, gc.stderr) == (0, "")
            now = [hugepools.number("nr_hugepages", pool) for pool in hugepools.NODES[:1]]
            assert (now, hugepools.number("nr_hugepages")) == ([last], last)
            assert hugepools.number(hugepools.OVERCOMMIT) == 0


def reap_orphans():
    """Reap the targets that a killed launcher left to us, once they have ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            time.sleep(0.005)
    raise AssertionError("a target does not end")
