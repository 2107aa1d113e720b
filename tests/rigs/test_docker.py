"""rtlaunch as the entrypoint of a container: PID 1 under docker."""
from __future__ import annotations

from typing import TYPE_CHECKING

from tests import books
from tests.rigs.containers import BASE, TARGETS

if TYPE_CHECKING:
    from tests.rigs.docker import Docker

LOCKS = "--cap-add=IPC_LOCK"


def test_the_program_is_locked_and_ends_the_container(docker: Docker) -> None:
    program = ["--", f"{TARGETS}/slow", "0", "7"]
    with docker.started(BASE, program, "--entrypoint=rtlaunch", LOCKS) as container:
        container.wait_for("ready")
        (child,) = books.children(container.pid)
        assert books.not_locked(child) == []
        container.stop()
        assert container.code == 7
