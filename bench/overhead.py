"""What being watched costs the target: the same program, under rtlaunch with and without perf.

The target is not locked here: a lock populates what it maps, and so would hide
the cost of the events behind its own.
"""

from __future__ import annotations

from bench.sampling import Samples, ratio, show_raw
from bench.stage import Stage, read_report
from bench.talk import alternate
from bench.verdict import BenchError, Row

# Fresh sets of processes, rounds with each. What has a budget is measured until the median is sure
# to two in a hundred, on a machine that does something else as well.
BUDGETED, INFORMATION = (24, 20), (8, 12)
MANY_CPUS = 64

# Operation: how many in one batch (a few milliseconds), budget.
OPERATIONS: dict[str, tuple[int, float | None]] = {
    "mmap": (1000, 1.15),
    "fault": (4096, 1.1),
    "thread": (200, 1.4),
    "switch": (500, None),
}
NAMES = {"thread": "pthread_create", "switch": "context switch"}


def compare(
    stage: Stage, operation: str, prefixes: dict[str, list[str]], effort: tuple[int, int]
) -> Samples:
    """Measure an operation behind each prefix in turn."""
    count = OPERATIONS[operation][0]
    command = [stage.path("batch"), operation]
    commands = {name: [*prefix, *command] for name, prefix in prefixes.items()}
    samples = alternate(stage, commands, count, *effort)
    show_raw(f"{operation}, each of {count}", samples, per=count)
    return samples


def watched(stage: Stage, operation: str) -> Row:
    """Compare rtlaunch watching by perf with rtlaunch not watching."""
    report = stage.path(f"{operation}.json")
    prefixes = {
        "watched": stage.under("--lock", "none", "--watch", "perf", "--report", report),
        "unwatched": stage.under("--lock", "none", "--watch", "none"),
    }
    budget = OPERATIONS[operation][1]
    samples = compare(stage, operation, prefixes, BUDGETED if budget else INFORMATION)
    source = read_report(report)["watch"]["source"]
    if source != "perf":
        raise BenchError(f"the watch source was {source}, not perf")
    name = NAMES.get(operation, operation)
    return Row(f"watched / unwatched: {name}", ratio(samples, "watched", "unwatched"), budget)


def simulated(stage: Stage, operation: str) -> Row:
    """Compare as many events as many CPUs bring with none; without rtlaunch, for information."""
    events = stage.path("events")
    prefixes = {"events": [events, str(MANY_CPUS)], "none": [events, "0"]}
    samples = compare(stage, operation, prefixes, INFORMATION)
    name = NAMES.get(operation, operation)
    return Row(f"{MANY_CPUS} simulated CPUs: {name}", ratio(samples, "events", "none"))


def measure(stage: Stage) -> list[Row]:
    """Measure each operation, watched and under simulated CPUs."""
    return [
        *(watched(stage, operation) for operation in OPERATIONS),
        *(simulated(stage, operation) for operation in OPERATIONS),
    ]
