"""A service that says what the kernel has locked of it, and ends when it is told to."""

import signal
import sys
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
status = Path("/proc/self/status").read_text().splitlines()
print(*(line for line in status if line.startswith(("Uid:", "VmLck:"))), sep="\n", flush=True)
if "--once" not in sys.argv:
    signal.pause()
