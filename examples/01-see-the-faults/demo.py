"""Show what a page fault does to a control loop, and that rtlaunch keeps it away.

Compiles loop.c, runs it twice under the same attack, once plain and once under
rtlaunch, and prints the kernel's own counts side by side. Exits 1 unless the
plain run took at least 1,000 major faults and the locked one none.

Everything lives in a temporary directory, gone at the end; the host is not touched.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from attack import Attack, Round, choose, kernels_own

HERE = Path(__file__).resolve().parent
TABLE_ENTRIES = 512 * 1024  # doubles: 4 MiB, 1024 pages; all in all below a memlock limit of 8 MiB
ROUNDS = 10
ROUND_SECONDS = 0.2
PLAIN_AT_LEAST = 1000
DEADLINE_SECONDS = 10
NO_DISK = {"tmpfs", "ramfs"}  # pages of such files cannot be written out without swap
AFTER_ARM = ("watch", "after_arm", "major")
HEADER = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
MAJFLT = 9  # index in /proc/PID/stat after the command's name: field 12 (proc_pid_stat(5))


class Run(NamedTuple):
    """One run of the loop, in the kernel's counts and the loop's own."""

    major: int
    vmlck_kb: int
    mappings: int
    locked: int
    last_round: Round
    cycles: int
    late: int
    worst_ns: int
    report: dict[str, object] | None


class DemoError(Exception):
    """The demonstration could not be carried out; the text says why."""


def filesystem_of(directory: Path) -> str:
    """Return the type of the file system that holds ``directory``, "?" where it cannot be told."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "?"


def scratch_parent() -> Path:
    """Return a directory for temporary files on a disk: only such pages can be pushed out."""
    tried = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()]
    for directory in tried:
        if filesystem_of(directory) not in NO_DISK and os.access(directory, os.W_OK):
            return directory
    names = ", ".join(map(str, tried))
    raise DemoError(f"no writable directory on a disk (tried {names}); set TMPDIR to one")


def compile_loop(binary: Path) -> None:
    """Compile loop.c, and beside it the thread that attacks where we cannot from outside."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise DemoError("no C compiler; try: apt install gcc libc6-dev")
    sources = [str(HERE / "loop.c"), str(HERE / "inside.c")]
    subprocess.run([compiler, "-O2", "-pthread", "-o", str(binary), *sources], check=True)


def write_table(path: Path) -> None:
    """Write the loop's table: a sine."""
    step = 2 * math.pi / TABLE_ENTRIES
    values = array.array("d", (math.sin(step * entry) for entry in range(TABLE_ENTRIES)))
    path.write_bytes(values.tobytes())


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file and have it on the disk: a page that waits to be written cannot be pushed out."""
    shutil.copy(source, target)
    with target.open("rb") as copy:
        os.fsync(copy.fileno())


def majors(pid: int) -> int:
    """Read the kernel's count of major faults of ``pid``, all threads."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return int(text.rpartition(")")[2].split()[MAJFLT])


def vmlck_kb(pid: int) -> int:
    """Read how much of ``pid`` is locked, kB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))


def count_locked(pid: int) -> tuple[int, int]:
    """Return how many mappings of ``pid`` could be locked, and how many are (``lo`` in smaps)."""
    lines = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines()
    headers = [line for line in lines if HEADER.match(line)]
    flags = [line.split()[1:] for line in lines if line.startswith("VmFlags:")]
    ours = [flag for header, flag in zip(headers, flags, strict=True) if not kernels_own(header)]
    return len(ours), sum("lo" in flag for flag in ours)


def last_words(process: subprocess.Popen[str]) -> dict[str, int]:
    """Wait for the loop's last line and take it apart."""
    out, _ = process.communicate(timeout=DEADLINE_SECONDS)
    words = out.split()
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def first_words(process: subprocess.Popen[str]) -> int:
    """Wait until the loop says that it is ready; return its pid."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], DEADLINE_SECONDS)[0]:
        raise DemoError(f"{process.args!r} said nothing for {DEADLINE_SECONDS} s")
    words = process.stdout.readline().split()
    if words[:1] != ["ready"]:
        raise DemoError(f"the loop did not start (exit status {process.wait(DEADLINE_SECONDS)})")
    return int(words[1])


def under_attack(process: subprocess.Popen[str], attack: Attack) -> Run:
    """Attack a loop that was just started, read the kernel's books, and end it."""
    pid = first_words(process)
    at_start = majors(pid)
    for _ in range(ROUNDS):
        last_round = attack.round(pid)
        time.sleep(ROUND_SECONDS)
    lockable, locked = count_locked(pid)
    locked_kb, major = vmlck_kb(pid), majors(pid) - at_start
    os.kill(pid, signal.SIGTERM)
    said = last_words(process)
    return Run(
        major, locked_kb, lockable, locked, last_round, said["cycles"], said["late"],
        said["worst_ns"], None,
    )  # fmt: skip


def run_loop(prefix: list[str], where: Path, attack: Attack) -> Run:
    """Run the loop behind ``prefix`` with its own copies of binary and table, under the attack."""
    where.mkdir()
    for name in ("loop", "table"):
        copy_synced(where.parent / name, where / name)
    command = [*prefix, str(where / "loop"), str(where / "table")]
    environment = {**os.environ, **attack.environment()}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        return under_attack(process, attack)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def run_locked(rtlaunch: str, where: Path, attack: Attack) -> Run:
    """Run the loop under rtlaunch and add rtlaunch's own report to what we saw."""
    report = where.parent / "report.json"
    run = run_loop([rtlaunch, "--report", str(report), "--"], where, attack)
    return run._replace(report=json.loads(report.read_text(encoding="utf-8")))


def from_report(run: Run, *path: str) -> str:
    """Pick one value out of the report, as text; a dash for the run that has none."""
    if run.report is None:
        return "-"
    value: object = run.report
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return str(value)


def table(plain: Run, locked: Run) -> str:
    """Lay the two runs side by side."""
    both = (plain, locked)
    rows: list[tuple[str, list[str]]] = [
        ("", ["plain", "under rtlaunch"]),
        ("major faults, by the kernel", [f"{run.major:,}" for run in both]),
        ("major faults, by rtlaunch", [from_report(run, *AFTER_ARM) for run in both]),
        ("worst cycle", [f"{run.worst_ns / 1e6:.3f} ms" for run in both]),
        ("cycles over 1 ms", [f"{run.late:,} of {run.cycles:,}" for run in both]),
        ("locked memory (VmLck)", [f"{run.vmlck_kb:,} kB" for run in both]),
        ("mappings locked", [f"{run.locked} of {run.mappings}" for run in both]),
        ("page-outs refused (EINVAL)",
         [f"{run.last_round.refused} of {sum(run.last_round)}" for run in both]),
        ("rtlaunch's verdict", [from_report(run, "verdict") for run in both]),
    ]  # fmt: skip
    return "\n".join(f"  {name:<28}{left:>16}{right:>18}" for name, (left, right) in rows)


def complaints(plain: Run, locked: Run) -> list[str]:
    """Say what of the promise was not kept; nothing when all was."""
    reported = from_report(locked, *AFTER_ARM)
    checks = [
        (plain.major >= PLAIN_AT_LEAST,
         f"the attack did not bite: {plain.major} major faults in the plain run"),
        (locked.major == 0, f"the locked run took {locked.major} major faults"),
        (reported == "0", f"rtlaunch's report counts {reported} major faults"),
        (locked.locked == locked.mappings,
         f"{locked.mappings - locked.locked} mappings of the locked run are not locked"),
        (locked.last_round.taken == 0,
         f"{locked.last_round.taken} mappings of the locked run took the page-out"),
    ]  # fmt: skip
    return [words for kept, words in checks if not kept]


def describe(attack: Attack) -> None:
    """Tell what is about to happen."""
    print(
        "A 1 kHz control loop looks 8 values up in a 4 MiB table in each cycle.\n"
        f"Attack: {attack.words}; {ROUNDS} rounds.",
        flush=True,
    )


def show(rtlaunch: str, scratch: Path) -> int:
    """Run both, print the table; return the exit status."""
    compile_loop(scratch / "loop")
    write_table(scratch / "table")
    attack = choose(scratch)
    describe(attack)
    plain = run_loop([], scratch / "plain", attack)
    locked = run_locked(rtlaunch, scratch / "locked", attack)
    print(f"\n{table(plain, locked)}\n")
    broken = complaints(plain, locked)
    for words in broken:
        print(f"NOT AS PROMISED: {words}")
    if not broken:
        print("The same program, unchanged: under rtlaunch none of its memory could be taken away.")
    return 1 if broken else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="See the faults, then see none.")
    parser.add_argument("--rtlaunch", metavar="PATH", default=shutil.which("rtlaunch"))
    return parser.parse_args()


def main() -> int:
    """Return 0 if all was as promised, 1 if not."""
    chosen = parse()
    if chosen.rtlaunch is None:
        print("rtlaunch is not on PATH; name it: demo.py --rtlaunch PATH", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="see-the-faults-", dir=scratch_parent()) as scratch:
            return show(chosen.rtlaunch, Path(scratch))
    except (DemoError, OSError, subprocess.SubprocessError) as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
