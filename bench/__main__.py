"""Run the measurements and hold them against the budgets: ``python -m bench [NAME...]``.

Exits 1 if a budget is broken or could not be checked, 2 on a usage error.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import (
    children,
    faults,
    inject,
    launch,
    leases,
    locked,
    lockpid,
    memory,
    overhead,
    rest,
)
from bench.stage import Stage, compile_programs
from bench.talk import interpreter_of
from bench.verdict import BenchError, Row, table

MEASUREMENTS: dict[str, Callable[[Stage], list[Row]]] = {
    "launch": launch.measure,
    "rest": rest.measure,
    "record": faults.measure_record,
    "storm": faults.measure_storm,
    "overhead": overhead.measure,
    "children": children.measure,
    "locked": locked.measure,
    "lockpid": lockpid.measure,
    "leases": leases.measure,
    "threads": memory.measure_threads,
    "malloc": memory.measure_malloc,
    "reserve": memory.measure_reserve,
    "inject": inject.measure,
}
CHECKOUT_RTLAUNCH = Path(__file__).resolve().parent.parent / ".venv" / "bin" / "rtlaunch"


def parse() -> argparse.Namespace:
    """Read the command line."""
    default = str(CHECKOUT_RTLAUNCH) if CHECKOUT_RTLAUNCH.exists() else shutil.which("rtlaunch")
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rtlaunch", metavar="PATH", default=default)
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(MEASUREMENTS))
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"no measurement {unknown[0]!r}; there are: {', '.join(MEASUREMENTS)}")
    if chosen.rtlaunch is None:
        parser.error("rtlaunch is not on PATH; name it: --rtlaunch PATH")
    return chosen


def attempt(name: str, stage: Stage) -> list[Row]:
    """Take one measurement; one that cannot be taken becomes a row that says so."""
    began = time.monotonic()
    try:
        rows = MEASUREMENTS[name](stage)
    except (BenchError, OSError, KeyError, subprocess.SubprocessError) as error:
        print(f"\n{name}: {error!r}\n{stage.said()}")
        rows = [Row(name, None, note=str(error))]
    print(f"({name}: {time.monotonic() - began:.0f} s)", flush=True)
    return rows


def main() -> int:
    """Measure what was asked for, everything by default; return the exit status."""
    chosen = parse()
    with tempfile.TemporaryDirectory(prefix="rtlaunch-bench-") as scratch:
        try:
            stage = Stage(shutil.which(chosen.rtlaunch) or chosen.rtlaunch, Path(scratch))
            compile_programs(stage.scratch)
            stage = replace(stage, interpreter=interpreter_of(stage))
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            print(f"bench: {error}\n{stage.said()}", file=sys.stderr)
            return 1
        rows = [row for name in chosen.names or MEASUREMENTS for row in attempt(name, stage)]
    print(f"\n{table(rows)}")
    return int(any(row.broken for row in rows))


if __name__ == "__main__":
    sys.exit(main())
