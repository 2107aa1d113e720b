"""``plan --as docker`` and ``--as kubernetes`` under podman: run as printed, locked as launched."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.host import wait_until
from tests.rigs.containers import BASE
from tests.rigs.printed import BOOKS, as_script, assert_locked_alike, plan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.launching import Launcher
    from tests.rigs.podman import Podman


@pytest.fixture
def docker(podman: Podman, tmp_path: Path) -> dict[str, str]:
    """An environment in which ``docker`` is podman, as podman-docker makes it, and IMAGE is set."""
    tool = tmp_path / "docker"
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(podman.words())} "$@"\n')
    tool.chmod(0o755)
    environ = podman.environment()
    return {**environ, "PATH": f"{tmp_path}:{environ['PATH']}", "IMAGE": BASE}


@pytest.mark.parametrize("options", [(), ("--user", "nobody")])
def test_a_container_as_printed_is_locked_as_under_rtlaunch(
    rtlaunch: Launcher, podman: Podman, docker: dict[str, str], options: tuple[str, ...]
) -> None:
    """VmLck is the launched one's; the stacks differ by where the kernel began them."""
    script = plan(rtlaunch, "docker", *options, "--", *BOOKS)
    printed = as_script(script, docker)
    assert printed.returncode == 0, printed.stderr
    launched = podman.run(BASE, ["rtlaunch", *options, "--", *BOOKS], "--cap-add=IPC_LOCK")
    assert launched.returncode == 0, launched.stderr
    assert_locked_alike(printed.stdout, launched.stdout)


def test_an_image_that_nobody_named_is_asked_for(
    rtlaunch: Launcher, docker: dict[str, str]
) -> None:
    """The printed line says what is missing, and starts nothing."""
    del docker["IMAGE"]
    script = plan(rtlaunch, "docker", "--", "true")
    done = as_script(script, docker)
    assert done.returncode != 0
    assert "IMAGE: an image with rtlaunch and the program in it" in done.stderr


def test_a_pod_as_printed_is_locked(rtlaunch: Launcher, podman: Podman) -> None:
    """podman play kube takes the pod; the program is locked, with the words that it was given."""
    words = ("/bin/sh", "-c", 'echo "$@"; cat /proc/$$/status; sleep 1000', "x", "$A % {a: 'b'}")
    pod = plan(rtlaunch, "kubernetes", "--", *words).replace('"IMAGE"', f'"{BASE}"')
    try:
        podman("play", "kube", "--network=none", "-", input=pod, stdin=None)
        wait_until(lambda: "VmLck" in podman("logs", "sh-sh").stdout, "the program said nothing")
        said = podman("logs", "sh-sh").stdout.splitlines()
    finally:
        podman("pod", "rm", "--force", "--time=0", "--ignore", "sh", check=False)
    assert said[0] == "$A % {a: 'b'}"
    (locked,) = (line for line in said if line.startswith("VmLck"))
    assert int(locked.split()[1]) > 1000
