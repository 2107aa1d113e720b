"""The shape of memory: what idle threads lock, what a heap spares, what it costs to have it.

Beside rtlaunch stand what people use today: prlimit alone, which locks nothing, and a mlockall
shim of five lines, which locks all and shapes nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.locked import vmlck_kb
from bench.stage import Stage, read_report, run
from bench.talk import talking
from bench.verdict import BenchError, Row

DIET = ("--thread-stack", "256K", "--arenas", "1")
DIET_BUDGET_MB = 6.0
HEAP = ("--heap", "256M")  # 36 MiB on average, and room for what mixing leaves between blocks

SHIM = """\
#include <sys/mman.h>
__attribute__((constructor)) static void lock(void)
{
    mlockall(MCL_CURRENT | MCL_FUTURE);
}
"""

# What takes memory from the kernel or gives it back; write and clone tell where and who.
MEMORY_CALLS = "mmap,munmap,mremap,brk,mprotect,madvise"
MARKS = "write,clone,clone3"

HEAP_BYTES = 4 << 30
PAGES = {"base": "base", "thp": "thp", "2M": "huge"}  # as rtlaunch has it: as reserve.c has it
HUGE_BYTES = 2 << 20
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
ROUNDS = 5
TIMES = ("reserve", "lock", "memset", "populate")
MEMSET_BUDGET, POPULATE_BUDGET = 1.2, 1.1


# --- idle threads ----------------------------------------------------------------------------


def measure_threads(stage: Stage) -> list[Row]:
    """Read VmLck of 8 idle threads: by default, on the diet, with prlimit, with a plain shim."""
    program = stage.path("idle")
    shim = compile_shim(stage)
    commands = {
        "rtlaunch": [*stage.under(), program],
        "rtlaunch, --arenas 1": [*stage.under("--arenas", "1"), program],
        "rtlaunch, on the diet": [*stage.under(*DIET), program],
        "rtlaunch, on the diet, --heap 1M": [*stage.under(*DIET, "--heap", "1M"), program],
        "prlimit --memlock alone": ["prlimit", "--memlock=8388608", program],
        "a mlockall shim of five lines": ["env", f"LD_PRELOAD={shim}", program],
    }
    rows = []
    for name, command in commands.items():
        with talking(stage, command) as talker:
            locked = vmlck_kb(talker.pid) / 1024
        budget = DIET_BUDGET_MB if "diet" in name else None
        rows.append(Row(f"8 idle threads, {name}: VmLck", locked, budget, " MiB"))
    return rows


def compile_shim(stage: Stage) -> str:
    """Compile the shim that anybody would write first; return its path."""
    library = stage.path("five-lines.so")
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"]
    subprocess.run(command, input=SHIM.encode(), check=True)
    return library


# --- malloc ----------------------------------------------------------------------------------


def measure_malloc(stage: Stage) -> list[Row]:
    """Count faults and system calls of malloc and free, in main and 4 threads, from the first."""
    rows = []
    for name, options in (("plain rtlaunch", ()), ("--heap 256M", HEAP)):
        faults = sum(map(int, run(stage, mixing(stage, *options)).split()[1:]))
        calls = count_calls(stage, mixing(stage, *options))
        budget = 0 if options else None
        rows.append(Row(f"malloc and free, {name}: faults", faults, budget))
        rows.append(Row(f"malloc and free, {name}: memory calls", calls, budget))
    return rows


def mixing(stage: Stage, *options: str) -> list[str]:
    """Return the command that mixes sizes under rtlaunch."""
    return [*stage.under(*options), stage.path("mixing")]


def count_calls(stage: Stage, command: list[str]) -> int:
    """Return how many calls for memory the program makes between its marks, by strace."""
    if not shutil.which("strace"):
        raise BenchError("no strace; try: apt install strace")
    log = stage.path("calls")
    traced = ["strace", "-f", "-qq", "-e", "signal=none", "-o", log]
    run(stage, [*traced, "-e", f"trace={MEMORY_CALLS},{MARKS}", *command])
    return len(list(between_marks(Path(log).read_text(encoding="utf-8").splitlines())))


def between_marks(lines: list[str]) -> Iterator[str]:
    """Yield the calls for memory that the marking process and its threads make between marks."""
    marking = next(line.split()[0] for line in lines if 'write(-1, "begin"' in line)
    ours, counting = {marking}, False
    for line in lines:
        pid = line.split()[0]
        if pid == marking and "write(-1, " in line:
            counting = '"begin"' in line
        made = re.search(r"clone3?\b.*= (\d+)$", line)
        if made and pid in ours:
            ours.add(made[1])
        if counting and pid in ours and re.search(rf" ({MEMORY_CALLS.replace(',', '|')})\(", line):
            yield line


# --- what a heap costs -----------------------------------------------------------------------


def measure_reserve(stage: Stage) -> list[Row]:
    """Compare the time to have a heap with a memset, and the lock with MAP_POPULATE, of as much.

    The least of each counts: what else there is, the host's own paging above all, only adds.
    """
    rows = []
    with pool_of(HEAP_BYTES // HUGE_BYTES):
        for pages, kind in PAGES.items():
            samples = [one_round(stage, pages, kind) for _ in range(ROUNDS)]
            reserve, lock, memset, populate = (min(times) for times in zip(*samples, strict=True))
            shown = ", ".join(
                f"{name} {time / 1e6:.0f}"
                for name, time in zip(TIMES, map(min, zip(*samples, strict=True)), strict=True)
            )
            print(f"4 GiB on {pages} pages, ms: {shown}")
            what = f"a heap of 4 GiB on {pages} pages"
            rows.append(Row(f"{what}: reserve / memset", reserve / memset, MEMSET_BUDGET))
            rows.append(Row(f"{what}: lock / MAP_POPULATE", lock / populate, POPULATE_BUDGET))
    return rows


def one_round(stage: Stage, pages: str, kind: str) -> tuple[int, int, int, int]:
    """Return the time from fork to locked, of the lock, of a memset and of populating, ns."""
    reserve, lock = launch_with_heap(stage, pages)
    memset, populate = (
        int(run(stage, [stage.path("reserve"), how, kind, str(HEAP_BYTES)]))
        for how in ("memset", "populate")
    )
    return reserve, lock, memset, populate


def launch_with_heap(stage: Stage, pages: str) -> tuple[int, int]:
    """Return the time from fork to locked and that of mlockall, ns; BenchError on other pages."""
    path = stage.path("heap.json")
    run(stage, [*stage.under("--report", path, "--heap", str(HEAP_BYTES), "--heap-pages", pages),
                "/bin/true"])  # fmt: skip
    report = read_report(path)
    if report["findings"]:
        raise BenchError(report["findings"][0]["what"])
    times = report["time"]
    return times["locked_ns"] - times["forked_ns"], report["lock"]["lock_ns"]


@contextmanager
def pool_of(pages: int) -> Iterator[None]:
    """Have that many huge pages of 2 MiB more; in the end the pool is as it was."""
    before = int(POOL.read_text())
    try:
        POOL.write_text(str(before + pages))
        if int(POOL.read_text()) < before + pages:
            raise BenchError(f"no {pages} huge pages to be had: memory is fragmented or short")
        yield
    finally:
        POOL.write_text(str(before))
