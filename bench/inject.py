"""What it costs to lock a small static program from outside, over its fork and exec alone."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path
from statistics import median

from bench.launch import until_main
from bench.sampling import Samples, in_turn, ratio, show_raw
from bench.stage import HERE, Stage, run
from bench.verdict import BenchError, Row

ROUNDS, LAUNCHES, WARMING_ROUNDS = 100, 20, 10
BUDGET_MS = 2.0
INJECTED, PLAIN = "fork, exec and injection", "fork and exec"
STATIC, DYNAMIC = "rtlaunch, static", "rtlaunch, dynamic"


def packages_of(stage: Stage) -> str:
    """Return the folder that the measured rtlaunch is installed in; BenchError if it is not."""
    prefix = Path(stage.rtlaunch).resolve().parent.parent
    for found in prefix.glob("lib/python3*/site-packages/rtlaunch"):
        return str(found.parent)
    raise BenchError(f"no package rtlaunch below {prefix}")


def compile_static(stage: Stage) -> str:
    """Compile start.c without a loader; return its path."""
    program = stage.path("start-static")
    command = [shutil.which("cc") or "cc", "-O2", "-static", "-o", program, str(HERE / "start.c")]
    subprocess.run(command, check=True)
    return program


def rounds_of(stage: Stage, program: str) -> Samples:
    """Inject, and not, in turn."""
    script = [stage.interpreter, "-I", "-S", str(HERE / "inject_rounds.py"), packages_of(stage)]
    lines = run(stage, [*script, str(ROUNDS + WARMING_ROUNDS), program]).splitlines()
    pairs = [tuple(map(int, line.split())) for line in lines[WARMING_ROUNDS:]]
    return {name: [pair[at] for pair in pairs] for at, name in enumerate((INJECTED, PLAIN))}


def measure(stage: Stage) -> list[Row]:
    """Hold the injection against its budget; show the whole launch beside one by the shim."""
    program = compile_static(stage)
    samples = rounds_of(stage, program)
    show_raw("until main() of a static program", samples)
    pairs = zip(samples[INJECTED], samples[PLAIN], strict=True)
    added_ms = median(one - other for one, other in pairs) / 1e6
    launches = in_turn(
        {
            STATIC: partial(until_main, [*stage.under(), program]),
            DYNAMIC: partial(until_main, [*stage.under(), stage.path("start")]),
        },
        LAUNCHES,
    )
    show_raw("launch, until main()", launches)
    return [
        Row("injection over fork + exec", added_ms, BUDGET_MS, " ms"),
        Row(f"{INJECTED} / {PLAIN}", ratio(samples, INJECTED, PLAIN)),
        Row(f"launch: {STATIC} / {DYNAMIC}", ratio(launches, STATIC, DYNAMIC)),
    ]
