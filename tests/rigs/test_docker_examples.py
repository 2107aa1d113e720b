"""examples/03-containers, built by docker, run by docker and by compose.

With this machine's files for the registry's, so that nothing is fetched: the stage that installs a
compiler is left out by BuildKit, which makes what is used alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import books
from tests.rigs.containers import LOCKS, target
from tests.rigs.examples import EXAMPLES, PYTHON_APP, STATIC_APP, build_all, locked_kib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rigs.containers import Container
    from tests.rigs.docker import Docker

NOBODY = "65534"
IPC_LOCK = 1 << 14


@pytest.fixture(scope="module")
def images(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both images, one also by the name that compose.yaml has for it."""
    build_all(docker, tmp_path_factory.mktemp("context"))
    docker("tag", PYTHON_APP, "app")


def test_the_python_image_runs_locked(docker: Docker, images: None) -> None:
    """Its entrypoint is rtlaunch, its command the program; a compiler is not in it."""
    done = docker.run(PYTHON_APP, ["python3", "/app/app.py", "--once"], LOCKS)
    assert done.returncode == 0, done.stderr
    assert locked_kib(done.stdout) > 8192
    assert docker.run(PYTHON_APP, ["cc"], LOCKS).returncode == 127


def test_the_static_image_runs_locked(docker: Docker, images: None) -> None:
    """What no preload reaches is locked by ptrace, with docker's own capabilities and filter."""
    done = docker.run(STATIC_APP, [], LOCKS)
    assert done.returncode == 0, done.stderr
    assert locked_kib(done.stdout) > 256
    assert locked_kib(docker.run(STATIC_APP, [], "--entrypoint=/app/app").stdout) == 0


@pytest.fixture
def composed(docker: Docker, images: None) -> Iterator[Container]:
    """What ``docker compose up`` makes of compose.yaml, as it is."""
    try:
        up = docker.compose("up", "--detach", cwd=EXAMPLES)
        assert up.returncode == 0, up.stderr
        yield docker.container(docker.compose("ps", "-q", "app", cwd=EXAMPLES).stdout.strip())
    finally:
        docker.compose("down", cwd=EXAMPLES)


def test_the_compose_file_runs_locked(composed: Container) -> None:
    """A user with CAP_IPC_LOCK alone, a read-only root, a memory limit; a stop ends it in order."""
    composed.wait_for("VmLck")
    pid = target(composed)
    status = books.status(pid)
    assert books.not_locked(pid) == []
    assert status["Uid"].split() == [NOBODY] * 4
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (IPC_LOCK, "1")
    assert composed.inspect("{{.HostConfig.Memory}}") == str(128 << 20)
    composed.stop()
    assert composed.code == 0
