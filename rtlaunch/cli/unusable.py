"""What is said where rtlaunch itself cannot be loaded: a library that is gone, or cannot be mapped.

It must import nothing of ours: who knows what else is missing.
"""

from __future__ import annotations

import sys

EXIT_REFUSED = 125  # core.findings has the table


def say(error: ImportError) -> int:
    """Say why nothing can be run; return the exit code."""
    print(
        f"rtlaunch: failed [launch-failed]: this installation cannot be loaded: {error}",
        "  try now: findmnt -no OPTIONS -T FILE   # noexec? Python maps libraries as well",
        "  for good: install it anew, on a file system mounted without noexec",
        sep="\n",
        file=sys.stderr,
    )
    return EXIT_REFUSED
