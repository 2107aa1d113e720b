"""How long ``rtlaunch lock PID`` stops anybody: the longest gap of any thread, by its own clock.

The measure is what mlockall itself takes there, called by the program: that too keeps its one
caller from running.
"""

from __future__ import annotations

import json

from bench.sampling import Samples, percentile, ratio, show_raw
from bench.stage import Stage, run
from bench.talk import Talker, talking
from bench.verdict import Row

THREADS, MEGABYTES = 64, 1024
ROUNDS, WARMING = 20, 2
BUDGET = 1.2
LOCK, FORGET, LONGEST, UNLOCK = 1, 2, 3, 4  # what crowd.c understands
OURS, SELF = "longest gap of any thread", "mlockall itself"
TOLD = "stop that rtlaunch tells"


def one_round(stage: Stage, crowd: Talker) -> dict[str, int]:
    """Let it lock itself, and be locked by us; return the times, ns."""
    took = {SELF: crowd.batch(LOCK)}
    crowd.batch(UNLOCK)
    crowd.batch(FORGET)
    said = run(stage, [stage.rtlaunch, "lock", str(crowd.pid), "--json"])
    took[OURS] = crowd.batch(LONGEST)
    took[TOLD] = int(json.loads(said)["lock"]["stopped_ns"])
    crowd.batch(UNLOCK)
    return took


def measure(stage: Stage) -> list[Row]:
    """Compare the longest gap of any thread with the time of mlockall."""
    samples: Samples = {OURS: [], SELF: [], TOLD: []}
    with talking(stage, [stage.path("crowd"), str(THREADS), str(MEGABYTES)]) as crowd:
        for at in range(WARMING + ROUNDS):
            took = one_round(stage, crowd)
            for name in samples if at >= WARMING else ():
                samples[name].append(took[name])
    show_raw(f"lock of {THREADS} threads and {MEGABYTES} MiB", samples)
    worst = percentile(samples[OURS], 100) / 1e6
    what = f"lock PID, {THREADS} threads, {MEGABYTES} MiB"
    return [
        Row(f"{what}: longest stop / mlockall itself", ratio(samples, OURS, SELF), BUDGET),
        Row(f"{what}: longest stop of all rounds", worst, unit=" ms"),
    ]
