"""Our classifier against execve on whatever bytes there are: the short form of `make differential`.

The long form judges a million files in some minutes; here are a few thousand, others in each run,
and all that this system has.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.differential import BATCH, differences, judge, open_room
from tests.kernel.programs import HOST
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.differential import Room

BATCHES = 3
OFTEN = (
    "accepted",
    "signal 11",
    "ENOEXEC",
    "EACCES",
    "ENOENT",
    "EIO",
    "ELIBBAD",
    "ELOOP",
    "ENOTDIR",
)
FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/lib")
MOST = 4000


@pytest.fixture
def furnished(here: Path) -> Room:
    if HOST != "x86_64":
        skip("not-x86")
    return open_room(here)


def test_generated_files_are_judged_as_execve_judges_them(furnished: Room) -> None:
    """Refused with its errno, or accepted as the same program; all that matters occurs."""
    seed = random.getrandbits(32)
    for number in range(BATCHES):
        judged = differences(furnished, seed, number * BATCH, BATCH)
        assert judged.differing == [], f"seed {seed}"
        assert [kind for kind in OFTEN if not judged.kinds[kind]] == [], f"seed {seed}"


def test_what_this_system_has_is_judged_as_execve_judges_it(furnished: Room) -> None:
    """Programs, scripts, libraries, and files that have an x bit for no reason."""
    count = 0
    for count, path in enumerate(executables(), 1):
        (furnished.folder / str(count - 1)).symlink_to(path)
    judged = judge(furnished, 0, count)
    assert [
        (os.readlink(furnished.folder / str(one.number)), one) for one in judged.differing
    ] == []
    assert judged.kinds["accepted"] > 100


def executables() -> Iterator[Path]:
    """Yield up to MOST files that may be executed, each once."""
    seen: set[tuple[int, int]] = set()
    for folder in FOLDERS:
        for directory, _, names in os.walk(folder):
            for path in (Path(directory, name) for name in sorted(names)):
                found = path.stat() if path.exists() else None
                if found is None or not found.st_mode & 0o111:
                    continue
                identity = found.st_dev, found.st_ino
                if identity not in seen and len(seen) < MOST:
                    seen.add(identity)
                    yield path
