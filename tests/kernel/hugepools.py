"""Pools of huge pages as the kernel shows them, and an administrator who sets them."""

from __future__ import annotations

import os
import random
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 2 << 20
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
NODES = sorted(Path("/sys/devices/system/node").glob("node*/hugepages/hugepages-2048kB"))
SYSCTL = Path("/proc/sys/vm/nr_hugepages")
OVERCOMMIT = "nr_overcommit_hugepages"


def number(name: str, pool: Path = POOL) -> int:
    return int((pool / name).read_text())


def persistent(pool: Path = POOL) -> int:
    return number("nr_hugepages", pool) - number("surplus_hugepages", pool)


def set_pool(pages: int, file: Path = POOL / "nr_hugepages") -> None:
    """Set a pool as a shell or sysctl(8) does: the file is opened with O_TRUNC."""
    file.write_text(str(pages))


def need_pools() -> None:
    """Skip where pools cannot be set, or where the administrator uses the pool."""
    if not os.access(POOL / "nr_hugepages", os.W_OK):
        skip("no-huge-pages")
    if number("nr_hugepages") != number("free_hugepages"):
        skip("huge-pages-in-use")


@contextmanager
def own_pools() -> Iterator[None]:
    """Have the machine's pools for ourselves, at 0 pages; at the end all is as it was."""
    need_pools()
    names = ("nr_hugepages", OVERCOMMIT)
    before = {name: number(name) for name in names}
    for name in names:
        (POOL / name).write_text("0")
    try:
        yield
    finally:
        for name, value in before.items():
            (POOL / name).write_text(str(value))


class Administrator(threading.Thread):
    """Raises and lowers the pool by plain writes, to one file or another, until told to stop."""

    def __init__(self, seed: int, most: int, pause_s: float) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.most = most
        self.pause_s = pause_s
        self.over = threading.Event()
        self.last = persistent()
        self.writes = 0

    def run(self) -> None:
        files = [POOL / "nr_hugepages", SYSCTL, *(node / "nr_hugepages" for node in NODES[:1])]
        if len(NODES) > 1:
            files.pop()
        while not self.over.wait(self.random.uniform(0, 2 * self.pause_s)):
            self.last = self.random.randint(0, self.most)
            set_pool(self.last, self.random.choice(files))
            self.writes += 1

    def stop(self) -> int:
        """Stop, and return what was set last."""
        self.over.set()
        self.join()
        return self.last
