"""examples/03-containers, built and run by podman, with this machine's files for the registry's.

What needs a network or a kubelet is not tried: the build stage that installs a compiler, huge pages
of a pod.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.host import wait_until
from tests.rigs.containers import LOCKS
from tests.rigs.examples import EXAMPLES, PYTHON_APP, STATIC_APP, build_all, locked_kib
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rigs.podman import Podman

# What is left of the Kubernetes pod where there is neither a kubelet nor huge pages.
NOT_HERE = ("hugepages", "RTLAUNCH_HEAP", "requests:", "limits:")


@pytest.fixture(scope="module")
def images(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both images."""
    build_all(podman, tmp_path_factory.mktemp("context"))


def test_the_python_image_runs_locked(podman: Podman, images: None, runtime: str) -> None:
    """Its entrypoint is rtlaunch, its command the program; a compiler is not in it."""
    done = podman.run(PYTHON_APP, ["python3", "/app/app.py", "--once"], LOCKS, runtime=runtime)
    assert done.returncode == 0, done.stderr
    assert locked_kib(done.stdout) > 8192
    assert podman.run(PYTHON_APP, ["cc"], LOCKS).returncode == 127


def test_the_static_image_runs_locked(podman: Podman, images: None, runtime: str) -> None:
    """What no preload reaches is locked by ptrace, with podman's own capabilities and filter."""
    done = podman.run(STATIC_APP, [], LOCKS, runtime=runtime)
    assert done.returncode == 0, done.stderr
    assert locked_kib(done.stdout) > 256
    assert locked_kib(podman.run(STATIC_APP, [], "--entrypoint=/app/app").stdout) == 0


def test_what_compose_and_pods_take_away_leaves_enough(podman: Podman, images: None) -> None:
    """The capabilities, user, read-only root and memory of compose.yaml, as podman's own flags."""
    flags = (
        "--cap-drop=ALL", "--cap-add=IPC_LOCK,SETUID,SETGID", "--read-only", "--memory=128m",
        "--env=RTLAUNCH_USER=65534:65534", "--env=RTLAUNCH_NO_NEW_PRIVS=1",
    )  # fmt: skip
    with podman.started(PYTHON_APP, [], *flags) as container:
        container.wait_for("VmLck")
        assert locked_kib(container.logs()) > 8192
        assert "Uid:\t65534" in container.logs()
        container.stop()
        assert container.code == 0


@pytest.fixture
def pod(podman: Podman, images: None, tmp_path: Path) -> Iterator[Path]:
    """A place for a pod's file; the pod is taken down."""
    if not shutil.which("catatonit"):
        skip("no-catatonit")
    path = tmp_path / "pod.yaml"
    yield path
    podman("pod", "rm", "--force", "--time=0", "rtlaunch-example")


@pytest.mark.parametrize("name", ["podman-kube.yaml", "kubernetes.yaml"])
def test_the_pods_run_locked(podman: Podman, pod: Path, name: str) -> None:
    """As podman plays them: a user with CAP_IPC_LOCK alone, locked, ended in order."""
    lines = (EXAMPLES / name).read_text().splitlines()
    if name == "kubernetes.yaml":
        lines = [line for line in lines if not any(word in line for word in NOT_HERE)]
    text = "\n".join(lines).replace("resources:", "").replace("localhost/app", PYTHON_APP)
    pod.write_text(text.replace("registry.example/app:1", PYTHON_APP) + "\n")
    podman("play", "kube", "--network=none", pod)
    container = "rtlaunch-example-app"
    wait_until(lambda: "VmLck" in podman("logs", container).stdout, "it does not run")
    said = podman("logs", container).stdout
    assert locked_kib(said) > 8192
    assert "Uid:\t65534" in said
    podman("stop", container)
    state = json.loads(podman("inspect", container).stdout)[0]["State"]
    assert state["ExitCode"] == 0
