"""A target that rtlaunch locked, against the same program that calls mlockall itself at main()."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.sampling import ratio, show_raw
from bench.stage import Stage
from bench.talk import alternate, talking
from bench.verdict import Row

MEGABYTES = 96  # large enough that our shim and the prefaulted stack are less than 1 %
PROGRAMS, ROUNDS, STEPS = 10, 10, 2_000_000
LOOP_BUDGET, VMLCK_BUDGET = 1.05, 1.0
OURS, SELF = "locked by rtlaunch", "locks itself"


def vmlck_kb(pid: int) -> int:
    """Return what is locked of a process, kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))


def compare_vmlck(stage: Stage, commands: dict[str, list[str]]) -> tuple[int, int]:
    """Return VmLck of both programs once each has its memory, kB."""
    with ExitStack() as stack:
        talkers = [stack.enter_context(talking(stage, commands[name])) for name in (OURS, SELF)]
        for talker in talkers:
            talker.batch(1)
        ours, own = (vmlck_kb(talker.pid) for talker in talkers)
    print(f"VmLck: {ours} kB by rtlaunch, {own} kB by itself")
    return ours, own


def measure(stage: Stage) -> list[Row]:
    """Compare the time of a loop over memory, and VmLck."""
    program = [stage.path("batch"), "work", str(MEGABYTES)]
    commands = {OURS: [*stage.under(), *program], SELF: [*program, "self"]}
    samples = alternate(stage, commands, STEPS, PROGRAMS, ROUNDS)
    show_raw(f"loop over {MEGABYTES} MiB, each of {STEPS} steps", samples, per=STEPS)
    ours, own = compare_vmlck(stage, commands)
    return [
        Row("locked / self-locked: loop", ratio(samples, OURS, SELF), LOOP_BUDGET),
        Row("locked / self-locked: VmLck differs", abs(ours / own - 1) * 100, VMLCK_BUDGET, " %"),
    ]
