"""``rtlaunch --version``: one line; with -v what a report of a defect should begin with."""

from __future__ import annotations

import os
import sys

from rtlaunch import __version__
from rtlaunch.core.protocol import PROTOCOL
from rtlaunch.engine import shims
from rtlaunch.linux import host, profiles


def run(verbose: bool) -> int:
    """Print the version; with ``verbose`` one line for each of :func:`details`."""
    print("\n".join([f"rtlaunch {__version__}", *(details() if verbose else ())]))
    return 0


def details() -> list[str]:
    """Return one line for each thing that decides how this installation works here."""
    name = os.uname()
    python = ".".join(map(str, sys.version_info[:3]))
    facts = (
        ("protocol", str(PROTOCOL)),
        ("shims", f"{', '.join(sorted(shims.installed())) or 'none'} ({shims.NATIVE})"),
        ("profiles", f"{', '.join(profiles.names(os.environ)) or 'none'} ({profiles.SHIPPED_DIR})"),
        ("kernel", f"{name.sysname} {name.release} {name.machine}"),
        ("python", f"{python} ({sys.executable})"),
        ("watch source", watch_source()),
    )
    width = max(len(subject) for subject, _ in facts)
    return [f"  {subject:{width}}  {text}" for subject, text in facts]


def watch_source() -> str:
    """Return perf or proc, and why."""
    paranoid = host.sysctl("kernel.perf_event_paranoid")
    setting = f"kernel.perf_event_paranoid is {'unknown' if paranoid is None else paranoid}"
    error = host.watch_error()
    return f"proc ({error}; {setting})" if error else f"perf ({setting})"
