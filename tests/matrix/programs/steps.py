"""Says "ready PID", and does a step of work for each line: some garbage, and a reply."""

import os
import sys

kept = {}
print("ready", os.getpid(), flush=True)
for step, _ in enumerate(sys.stdin):
    kept[step % 16] = bytearray(64 * 1024)
    print("done", step, flush=True)
