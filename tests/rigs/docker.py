"""A real dockerd, and compose, in a place of their own that leaves no trace on the host.

Debian's packages, unpacked and not installed: an installation starts the daemon on the host. No
network is made for it, nor a firewall; compose makes its networks within the place.

The daemon has pids of its own: ``container.pid`` is nevertheless the host's number, by the cgroup.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests import books
from tests.host import wait_until
from tests.rigs.containers import (
    BASE,
    PATIENCE_S,
    Container,
    Engine,
    cgroups_of,
    folder_for,
    place,
    processes,
)
from tests.rigs.debs import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rigs.containers import Place

DOCKER = ("docker.io", "containerd", "tini")  # 62 MB; docker-init is a link to tini's
COMPOSE = (
    "docker-compose", "python3-attr", "python3-cached-property", "python3-certifi",
    "python3-chardet", "python3-charset-normalizer", "python3-distro", "python3-distutils",
    "python3-docker", "python3-dockerpty", "python3-docopt", "python3-dotenv", "python3-idna",
    "python3-jsonschema", "python3-packaging", "python3-pkg-resources", "python3-pyrsistent",
    "python3-requests", "python3-six", "python3-texttable", "python3-urllib3",
    "python3-websocket", "python3-yaml",
)  # fmt: skip
DAEMON = (
    "dockerd", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none",
)  # fmt: skip


START_S = 30  # it takes less than one


class Docker(Engine):
    """docker; its daemon is asked by a socket, so that nothing needs to enter the place."""

    name = "docker"
    usual = ("--network=none",)

    def __init__(self, place: Place, targets: Path, tools: Path) -> None:
        super().__init__(place, targets)
        self.tools = tools

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line of ``docker WORDS``."""
        return [str(self.tools / "usr/bin/docker"), *map(str, words)]

    def environment(self) -> dict[str, str]:
        """Return the environment of docker itself; in a shell that has it, ``docker`` is ours."""
        return {
            "PATH": f"{self.tools}/usr/bin:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "DOCKER_HOST": socket_in(self.folder),
            "DOCKER_CONFIG": str(self.folder),
            "DOCKER_BUILDKIT": "1",  # the older one makes stages that nothing uses
            "IMAGE": BASE,  # what a printed plan asks for
        }

    def wait_for_daemon(self) -> None:
        """Wait until it answers; AssertionError with its log if it does not."""
        try:
            wait_until(lambda: self("version", check=False).returncode == 0, "no answer", START_S)
        except AssertionError:
            raise AssertionError((self.folder / "log").read_text()[-4000:]) from None

    def removal(self, name: str) -> list[str]:
        """Return the words that remove a container, running or not, or none at all."""
        return ["rm", "--force", name]

    def container(self, name: str) -> Container:
        """Return a container by its name."""
        return DockerContainer(self, name)

    def compose(self, *words: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run ``docker-compose WORDS`` to its end."""
        libraries = self.tools / "usr/lib/python3/dist-packages"
        return subprocess.run(
            [self.tools / "usr/bin/docker-compose", *words], text=True, timeout=PATIENCE_S,
            env={**self.environment(), "PYTHONPATH": str(libraries), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
            **how,
        )  # fmt: skip


class DockerContainer(Container):
    """One whose pids are the daemon's, which are not the host's."""

    @property
    def pid(self) -> int:
        """The host's number for its PID 1; 0 once it has ended."""
        for cgroup in cgroups_of(self.engine.place.name, self.inspect("{{.Id}}")):
            for pid in processes(cgroup):
                if books.status(pid)["NSpid"].split()[-1] == "1":
                    return pid
        return 0


def socket_in(folder: Path) -> str:
    """Return the address of the daemon's socket."""
    return f"unix://{folder}/docker.sock"


@contextmanager
def opened(installation: Path, targets: Path, tools: Path) -> Iterator[Docker]:
    """Open the place, the daemon in it, with the base image; leave the host as it was."""
    with folder_for("docker") as folder:
        found = f"PATH={tools}/usr/sbin:{tools}/usr/bin:{os.environ['PATH']}"
        daemon = ("env", found, *DAEMON, f"--host={socket_in(folder)}")
        with place("docker", *daemon, folder=folder) as opened_place:
            docker = Docker(opened_place, targets, tools)
            docker.wait_for_daemon()
            docker.import_base(installation)
            yield docker


def fetched(folder: Path) -> Path:
    """Return where docker and compose are, fetched into ``folder`` once; Unavailable if not."""
    return unpacked((*DOCKER, *COMPOSE), folder)
