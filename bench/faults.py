"""Major faults: how soon each is answered, and whether a storm is accounted to the last one.

The delay is taken from outside: ``--on-major signal:USR1`` sends the target a
signal once a fault's record is made, and the target's own clock says when it
came. So it is the fault itself, the record's delay and the signal's: never too good.
"""

from __future__ import annotations

from typing import Any

from bench.sampling import percentile
from bench.stage import Stage, read_report, run
from bench.verdict import BenchError, Row

ANSWERED = 10_000
P50_BUDGET_US, P99_BUDGET_US = 100, 2000
PERCENTS = (0.1, 1, 10, 25, 50, 75, 90, 99, 99.9, 100)
STORM = 1_000_000


def take_faults(
    stage: Stage, count: int, how: str, *options: str
) -> tuple[list[int], dict[str, Any]]:
    """Have a watched program take major faults; return its numbers, and the watch's report."""
    hole, report = stage.scratch / "hole", stage.path("faults.json")
    hole.unlink(missing_ok=True)
    prefix = stage.under("--lock", "none", "--watch", "perf", "--report", report, *options)
    written = run(stage, [*prefix, stage.path("faults"), str(hole), str(count), how])
    watch: dict[str, Any] = read_report(report)["watch"]
    if watch["source"] != "perf":
        raise BenchError(f"the watch source was {watch['source']}, not perf")
    return [int(line) for line in written.split()], watch


def measure_record(stage: Stage) -> list[Row]:
    """Measure how long after a major fault its record is made and answered."""
    numbers, _ = take_faults(stage, ANSWERED, "answered", "--on-major", "signal:USR1")
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


def measure_storm(stage: Stage) -> list[Row]:
    """Take a million faults without a pause: recorded, lost and unseen must add up to all."""
    (own,), watch = take_faults(stage, STORM, "storm", "--on-major", "log")
    major = int(watch["after_arm"]["major"])
    recorded = len(watch["faults"]) + int(watch["faults_omitted"])
    lost, unseen = int(watch["lost"]), int(watch["unseen"])
    print(
        f"\nstorm: the target took {own}, the report counts {major}:"
        f" {recorded} recorded + {lost} lost + {unseen} unseen"
    )
    return [
        Row("storm: faults of the target that are not in the count", abs(own - major), 0),
        Row("storm: faults in no account", abs(major - recorded - lost - unseen), 0),
        Row("storm: faults unseen by perf", unseen, 0),
    ]
