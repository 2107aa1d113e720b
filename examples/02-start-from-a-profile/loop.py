"""A control loop in Python: 1 kHz, look-ups in a table, and a line of a log in each cycle.

Why: it is an ordinary Python program that does what one can do in Python, and knows nothing of
memory locking: what it needs is imported and made before the loop begins, the collector is off,
and what lives for ever is frozen. It says ``ready PID`` once it runs, works until its standard
input ends, then says how it went.
"""

from __future__ import annotations

import array
import gc
import math
import os
import sys
import threading
import time

PERIOD_NS = 1_000_000
ENTRIES = 512 * 1024
LOGGED = 64


class Loop:
    def __init__(self) -> None:
        step = 2 * math.pi / ENTRIES
        self.table = array.array("d", (math.sin(step * entry) for entry in range(ENTRIES)))
        self.log = [""] * LOGGED
        self.noise = 1
        self.cycles = self.late = self.worst_ns = 0

    def measure(self) -> int:
        self.noise = (self.noise * 1664525 + 1013904223) & 0xFFFFFFFF
        return self.noise >> 13  # an entry of the table

    def control(self) -> None:
        command = sum(self.table[self.measure()] for _ in range(8))
        self.log[self.cycles % LOGGED] = f"cycle {self.cycles} command {command}"

    def run(self, stop: threading.Event) -> None:
        wake = time.monotonic_ns()
        while not stop.is_set():
            wake += PERIOD_NS
            time.sleep(max(0, wake - time.monotonic_ns()) / 1e9)
            began = time.monotonic_ns()
            self.control()
            took = time.monotonic_ns() - began
            self.worst_ns = max(self.worst_ns, took)
            self.late += took > PERIOD_NS
            self.cycles += 1


def main() -> None:
    loop, stop = Loop(), threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    gc.collect()
    gc.freeze()  # what is here now is never looked at again
    gc.disable()  # reference counts free what has no cycles
    thread.start()
    print("ready", os.getpid(), flush=True)
    sys.stdin.read()
    stop.set()
    thread.join()
    print("cycles", loop.cycles, "late", loop.late, "worst_ns", loop.worst_ns)


main()
