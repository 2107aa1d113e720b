"""What a child costs under ``--children none``: fork and exec of a small dynamic program.

The measure is the same parent without rtlaunch. That a fork of a locked program
copies more is a cost of the lock, and the same for a program that locks itself:
that one stands beside it for information.
"""

from __future__ import annotations

from bench.sampling import ratio, show_raw
from bench.stage import Stage
from bench.talk import alternate
from bench.verdict import Row

CHILD = "/bin/true"
PROGRAMS, ROUNDS, EXECS = 10, 10, 30
BUDGET = 1.1
OURS, PLAIN, SELF = "under rtlaunch", "plain", "locks itself"


def measure(stage: Stage) -> list[Row]:
    """Compare a parent under rtlaunch with the same parent that locks itself, and that does not."""
    parent = [stage.path("batch"), "exec", CHILD]
    commands = {
        OURS: [*stage.under("--children", "none"), *parent],
        PLAIN: parent,
        SELF: [*parent, "self"],
    }
    samples = alternate(stage, commands, EXECS, PROGRAMS, ROUNDS)
    show_raw(f"fork + exec of {CHILD}, each of {EXECS}", samples, per=EXECS)
    return [
        Row("child exec under --children none / plain", ratio(samples, OURS, PLAIN), BUDGET),
        Row("child exec under --children none / self-locked", ratio(samples, OURS, SELF)),
    ]
