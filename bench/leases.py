"""A lease with many others in the ledger, against the kernel's own write to nr_hugepages.

Both are measured in one process of rtlaunch's interpreter: what a launch does between survey and
fork, and at its end, beside two plain writes of the same pool. The other leases belong to
processes that live; the pages of half of them have been claimed.
"""

from __future__ import annotations

import statistics
import tempfile

from bench.stage import Stage, run
from bench.verdict import BenchError, Row

PAGES, OTHERS, PAIRS, BUDGET = 512, 40, 25, 2.0

SCRIPT = """
import gc, os, signal, sys, time
gc.disable()  # as a launch does
sys.path[:0] = [sys.argv[1]]
from rtlaunch.core.ledger import Lease
from rtlaunch.core.options import HugePages
from rtlaunch.engine import ledger
from rtlaunch.engine.lease import Held, look
from rtlaunch.engine.listener import Listener
from rtlaunch.linux import hugepages as pools
from rtlaunch.linux import processes
from rtlaunch.core.settings import resolve

folder, pages, others, pairs = sys.argv[2], *map(int, sys.argv[3:6])
size = 2 << 20
environ = {"RTLAUNCH_STATE_DIR": folder}
children = []
for _ in range(others):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    children.append(pid)
before = pools.read_size(size, ()).persistent


def write(value):
    began = time.perf_counter()
    pools.write_nr(size, None, value)
    return time.perf_counter() - began


def timed(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


options = resolve({"hugepages": (f"2M:{pages}",)}, {}, None).options
huge = look(options.hugepages, environ)
try:
    with ledger.Books(folder) as books:
        who = [processes.identify(pid) for pid in children]
        books.enter([Lease(size, None, 1, one, 0, at % 2, one) for at, one in enumerate(who)])
        books.provide(size)
        books.save()
    ours, kernels = [], []
    for _ in range(pairs):
        held = Held(options, huge, (), Listener())
        ours.append(timed(held.take) + timed(held.give_back))
        now = pools.read_size(size, ()).persistent
        kernels.append(write(now + pages) + write(now))
    print(*ours)
    print(*kernels)
finally:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with ledger.Books(folder) as books:
        books.bury(True)
        books.reduce(books.sizes())
"""


def measure(stage: Stage) -> list[Row]:
    """Take and give back a lease, and write the pool up and down, in turns."""
    package = run(stage, [stage.interpreter, "-c", "import rtlaunch; print(rtlaunch.__path__[0])"])
    root = package.strip().rpartition("/")[0]
    numbers = map(str, (PAGES, OTHERS, PAIRS))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # a tmpfs, as /run is
        told = run(stage, [stage.interpreter, "-I", "-c", SCRIPT, root, folder, *numbers])
    ours, kernels = ([float(word) for word in line.split()] for line in told.splitlines())
    if len(ours) != PAIRS:
        raise BenchError(f"no figures: {told!r}")
    ratio = statistics.median(one / other for one, other in zip(ours, kernels, strict=True))
    each = f"{statistics.median(ours) * 1e3:.2f} ms, {statistics.median(kernels) * 1e3:.2f} ms"
    what = f"lease of {PAGES} pages, {OTHERS} others, taken and given back / two writes of the pool"
    return [Row(what, ratio, BUDGET, note=each)]
