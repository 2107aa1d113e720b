"""Debian's packages without installing them: fetched by apt, unpacked into a folder of our own.

For what an installation would start (a daemon), or put into the machine's way (a kernel).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Unavailable(Exception):
    """What a rig is made of cannot be had here."""


def output(*words: str | Path, **how: Any) -> str:
    """Run a command that must succeed; return what it printed."""
    try:
        done = subprocess.run(words, check=True, capture_output=True, text=True, **how)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{words[0]}: {getattr(error, 'stderr', '') or error}") from error
    return done.stdout


def unpacked(packages: Sequence[str], folder: Path) -> Path:
    """Return ``folder`` with these in it, fetched once; Unavailable where apt has none."""
    if folder.exists():
        return folder
    made = folder.with_name(f"{folder.name}.{os.getpid()}")
    made.mkdir(parents=True)
    try:
        output("apt-get", "-qq", "download", *packages, cwd=made)
        for package in sorted(made.glob("*.deb")):
            output("dpkg-deb", "-x", package, made)
            package.unlink()
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
