"""What is said where rtlaunch itself cannot be loaded: a library that is gone, or cannot be mapped.

It must import nothing of ours: who knows what else is missing.
"""

from __future__ import annotations

import sys

EXIT_REFUSED = 125  # core.findings has the table


NOEXEC = (
    "  try now: findmnt -no OPTIONS -T FILE   # noexec? Python maps libraries as well",
    "  for good: install it anew, on a file system mounted without noexec",
)
LIMITS = (
    "  try now: ulimit -a   # open files (-n), virtual memory (-v), data (-d)",
    "  for good: the limit of the program alone: rtlaunch --limit NAME=VALUE -- COMMAND",
)


def say(error: ImportError | MemoryError | OSError) -> int:
    """Say why nothing can be run; return the exit code."""
    print(
        "rtlaunch: failed [launch-failed]: this installation cannot be loaded: "
        f"{str(error) or 'no memory is left'}",
        *(NOEXEC if isinstance(error, ImportError) else LIMITS),
        sep="\n",
        file=sys.stderr,
    )
    return EXIT_REFUSED
