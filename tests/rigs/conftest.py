"""The rigs: booted once for all tests of a session that want one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import installs, launching
from tests.rigs import cluster as clusters
from tests.rigs import debs
from tests.rigs import docker as dockers
from tests.rigs import manager as managers
from tests.rigs import podman as podmans
from tests.rigs.services import SERVICE, Service
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rigs.cluster import Cluster
    from tests.rigs.docker import Docker
    from tests.rigs.manager import Manager
    from tests.rigs.podman import Podman


def can_make_namespaces() -> bool:
    """Tell whether mounts can be made in namespaces of our own."""
    probe = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--cgroup",
        "mount",
        "-t",
        "tmpfs",
        "x",
        "/mnt",
    ]
    return subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture(scope="session")
def movable_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the installation without a link to where it came from, but the interpreter's."""
    folder = tmp_path_factory.mktemp("rtlaunch")
    (folder / "bin").mkdir(mode=0o755)
    folder.chmod(0o755)
    shutil.copy2(launching.stub(), folder / "bin" / "rtlaunch")
    (folder / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    launching.copy_libraries(folder / launching.LIBRARIES)
    return folder


@pytest.fixture(scope="session")
def manager(movable_install: Path) -> Iterator[Manager]:
    """A systemd of its own."""
    if os.geteuid() != 0:
        skip("not-root")
    if not managers.SYSTEMD.exists() or not shutil.which("systemctl"):
        skip("no-systemd")
    if not can_make_namespaces():
        skip("no-mount")
    with managers.booted(movable_install) as booted:
        yield booted


@pytest.fixture
def service(manager: Manager, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A unit named for the test."""
    manager.write("/opt/service.py", SERVICE)
    name = re.sub("[^a-z0-9]+", "-", request.node.name).strip("-")[:60]
    made = Service(manager, name)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def podman(movable_install: Path, targets: Path) -> Iterator[Podman]:
    """A podman of its own, with the installed rtlaunch in its base image."""
    if os.geteuid() != 0:
        skip("not-root")
    if not all(map(shutil.which, ("podman", "conmon", *podmans.RUNTIMES))):
        skip("no-podman")
    if not can_make_namespaces():
        skip("no-mount")
    with podmans.opened(movable_install, targets) as opened:
        yield opened


@pytest.fixture(scope="session")
def docker(movable_install: Path, targets: Path) -> Iterator[Docker]:
    """A dockerd of its own, with the installed rtlaunch in its base image."""
    if os.geteuid() != 0:
        skip("not-root")
    if not can_make_namespaces():
        skip("no-mount")
    try:
        tools = dockers.fetched(installs.ROOT / "build" / "docker")
    except debs.Unavailable:
        skip("no-docker")
    with dockers.opened(movable_install, targets, tools) as opened:
        yield opened


@pytest.fixture(params=podmans.RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each of the container runtimes."""
    return str(request.param)


@pytest.fixture(scope="session")
def cluster(movable_install: Path, targets: Path) -> Iterator[Cluster]:
    """A Slurm cluster of one node, and MPI on it."""
    need_slurm()
    with clusters.booted(movable_install, targets) as booted:
        yield booted


@pytest.fixture(scope="session")
def confined(movable_install: Path, targets: Path) -> Iterator[Cluster]:
    """A Slurm cluster of two nodes, which hold each step and its memory in cgroups."""
    need_slurm()
    if not clusters.can_hold_steps():
        skip("no-memory-cgroup")
    with clusters.booted(movable_install, targets, f"rtlaunch-rig-{os.getpid()}-slurm") as booted:
        yield booted


def need_slurm() -> None:
    if os.geteuid() != 0:
        skip("not-root")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        skip("no-slurm")
    if not can_make_namespaces():
        skip("no-mount")
