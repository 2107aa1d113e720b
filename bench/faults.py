"""Major faults: how soon each is answered, and whether a storm is accounted to the last one.

The delay is taken from outside: ``--on-major signal:USR1`` sends the target a
signal once a fault's record is made, and the target's own clock says when it
came. So it is the fault itself, the record's delay and the signal's: never too good.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from bench.sampling import percentile
from bench.stage import Stage, read_report, run
from bench.talk import talking
from bench.verdict import BenchError, Row

ANSWERED = 10_000
P50_BUDGET_US, P99_BUDGET_US = 100, 2000
PERCENTS = (0.1, 1, 10, 25, 50, 75, 90, 99, 99.9, 100)
STORM = 1_000_000


def under_watch(stage: Stage, name: str, *options: str) -> tuple[list[str], str]:
    """Return the beginning of a command whose faults are watched, and where its report will be.

    Its target gets a file that is not there yet as its last argument so far.
    """
    hole, report = stage.path(f"{name}.hole"), stage.path(f"{name}.json")
    prefix = stage.under("--lock", "none", "--watch", "perf", "--report", report, *options)
    return [*prefix, stage.path("faults"), hole], report


def read_watch(report: str) -> dict[str, Any]:
    """Return what a report says of the watch; BenchError unless perf was its source."""
    watch: dict[str, Any] = read_report(report)["watch"]
    if watch["source"] != "perf":
        raise BenchError(f"the watch source was {watch['source']}, not perf")
    return watch


def measure_record(stage: Stage) -> list[Row]:
    """Measure how long after a major fault its record is made and answered."""
    command, report = under_watch(stage, "record", "--on-major", "signal:USR1")
    numbers = [int(line) for line in run(stage, [*command, "answered", str(ANSWERED)]).split()]
    read_watch(report)
    delays = [number for number in numbers if number >= 0]
    if not delays:
        raise BenchError("no fault was answered by its signal")
    print(f"\nfault to record, {len(delays)} faults: microseconds at percentiles")
    for percent in PERCENTS:
        print(f"  {percent:>5}  {percentile(delays, percent) / 1000:.1f}")
    return [
        Row("fault to record: faults without an answer", len(numbers) - len(delays), 0),
        Row("fault to record: p50", percentile(delays, 50) / 1000, P50_BUDGET_US, " us"),
        Row("fault to record: p99", percentile(delays, 99) / 1000, P99_BUDGET_US, " us"),
    ]


def storm(stage: Stage, name: str, stopped: bool) -> list[Row]:
    """Take a million faults without a pause: recorded, lost and unseen must add up to all.

    ``stopped``: rtlaunch gets no processor meanwhile, so that nearly all of them are lost.
    """
    command, report = under_watch(stage, f"storm-{name}")
    with talking(stage, [*command, "storm"]) as talker:
        if stopped:
            os.kill(talker.launcher_pid, signal.SIGSTOP)
        try:
            own = talker.batch(STORM)
        finally:
            os.kill(talker.launcher_pid, signal.SIGCONT)
    watch = read_watch(report)
    major, lost, unseen = int(watch["after_arm"]["major"]), int(watch["lost"]), int(watch["unseen"])
    recorded = len(watch["faults"]) + int(watch["faults_omitted"])
    print(
        f"\nstorm, watcher {name}: the target took {own}, the report counts {major}:"
        f" {recorded} recorded + {lost} lost + {unseen} unseen"
    )
    if stopped and not lost:
        raise BenchError("nothing was lost: stopping rtlaunch had no effect")
    return [
        Row(f"storm, watcher {name}: faults that the count has not", abs(own - major), 0),
        Row(f"storm, watcher {name}: faults in no account", abs(major - recorded - lost), 0),
    ]


def measure_storm(stage: Stage) -> list[Row]:
    """Measure a watcher that does what it can, and one that can do nothing."""
    return [*storm(stage, "awake", stopped=False), *storm(stage, "stopped", stopped=True)]
