"""``plan --as docker`` and ``--as compose``: run as printed, locked as launched."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.rigs.containers import BASE
from tests.rigs.printed import BOOKS, as_script, assert_locked_alike, plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Launcher
    from tests.rigs.docker import Docker

OPTIONS = [(), ("--user", "nobody", "--nice", "-5", "--limit", "nofile=200")]


def launched(docker: Docker, *options: str) -> str:
    """Return what a launch says that was typed into docker run, with all that it takes."""
    caps = ("--cap-add=IPC_LOCK", "--cap-add=SYS_NICE")
    done = docker.run(BASE, ["rtlaunch", *options, "--", *BOOKS], *caps)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_container_as_printed_is_locked_as_under_rtlaunch(
    rtlaunch: Launcher, docker: Docker, options: tuple[str, ...]
) -> None:
    """The line that is printed, in a shell that knows IMAGE: VmLck is the launched one's."""
    script = plan(rtlaunch, "docker", *options, "--", *BOOKS)
    printed = as_script(script, docker.environment())
    assert printed.returncode == 0, printed.stderr
    assert_locked_alike(printed.stdout, launched(docker, *options))


@contextmanager
def composed(docker: Docker, folder: Path, text: str) -> Iterator[str]:
    """Bring up what was printed, to its end; give what its containers said."""
    (folder / "compose.yaml").write_text(text)
    compose = partial(docker.compose, cwd=folder)
    try:
        up = compose("up")
        assert up.returncode == 0, up.stderr
        yield compose("logs", "--no-color", "--no-log-prefix").stdout
    finally:
        compose("down")


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_compose_file_as_printed_is_locked_as_under_rtlaunch(
    rtlaunch: Launcher, docker: Docker, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """compose finds nothing to object to, and VmLck is the launched one's."""
    with composed(docker, tmp_path, plan(rtlaunch, "compose", *options, "--", *BOOKS)) as said:
        assert_locked_alike(said, launched(docker, *options))


def test_a_compose_file_keeps_the_words(rtlaunch: Launcher, docker: Docker, tmp_path: Path) -> None:
    """Dollars, quotes and braces arrive as they were typed."""
    words = ("/bin/sh", "-c", 'echo "$@"', "x", "$A ${B} %% {a: 'b'} \\ \u00e9 #c")
    with composed(docker, tmp_path, plan(rtlaunch, "compose", "--", *words)) as said:
        assert words[-1] in said.splitlines()
