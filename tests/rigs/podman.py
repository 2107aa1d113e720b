"""A real podman, with crun and runc, in a place of its own that leaves no trace on the host.

Containers share the host's pids: what /proc says of ``container.pid`` is the kernel's own view.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.rigs.containers import Engine, folder_for, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

RUNTIMES = ("crun", "runc")

# Podman would raise both limits to what it finds fit, which needs CAP_SYS_RESOURCE. A --ulimit on
# the command line takes the place of all of them: repeat these two.
ULIMITS = ("nofile=20000:20000", "nproc=32768:32768")
SETTINGS = f"""\
[containers]
default_ulimits = {json.dumps(ULIMITS)}
log_driver = "k8s-file"
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""


class Podman(Engine):
    """podman; it has no daemon, each of its commands enters the place."""

    name = "podman"

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line of ``podman WORDS`` in there."""
        inside = ["nsenter", "-t", str(self.place.holder), "-m", "-C", "-n", "-i", "--"]
        return [*inside, "podman", *map(str, words)]

    def environment(self) -> dict[str, str]:
        """Return the environment of podman itself, of which a container sees nothing."""
        path = os.environ.get("PATH", "/usr/bin:/bin")
        folder = str(self.folder)
        settings = str(self.folder / "containers.conf")
        return {"PATH": path, "HOME": folder, "TMPDIR": "/run", "CONTAINERS_CONF": settings}

    def with_ulimits(self, flags: Sequence[str]) -> list[str]:
        """Return these flags, with the limits that are no more podman's once one is given."""
        given = any(flag.startswith("--ulimit") for flag in flags)
        return [*(f"--ulimit={limit}" for limit in ULIMITS if given), *flags]

    def removal(self, name: str) -> list[str]:
        """Return the words that remove a container, running or not, or none at all."""
        return ["rm", "--force", "--time=0", "--ignore", name]


@contextmanager
def opened(installation: Path, targets: Path) -> Iterator[Podman]:
    """Open the place, with the base image in it; leave the host as it was."""
    with folder_for("podman") as folder, place("podman", folder=folder) as opened_place:
        (folder / "containers.conf").write_text(SETTINGS)
        podman = Podman(opened_place, targets)
        podman.import_base(installation)
        yield podman
