"""rtlaunch as the entrypoint of a container: PID 1 under podman, by crun and by runc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import books
from tests.rigs.podman import BASE

if TYPE_CHECKING:
    from tests.rigs.podman import Podman

LOCKS = "--cap-add=IPC_LOCK"


def test_the_program_is_locked_and_ends_the_container(podman: Podman, runtime: str) -> None:
    """PID 1's child is locked by the host's own books; its code is the container's."""
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    program = ["rtlaunch", "--", "sh", "-c", script]
    with podman.started(BASE, program, LOCKS, runtime=runtime) as container:
        container.wait_for("ready")
        (child,) = books.children(container.pid)
        assert books.not_locked(child) == []
        assert container.stop() < 2
        assert container.code == 7
