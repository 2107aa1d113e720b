"""A container's last words: kubelet's /dev/termination-log, stood in for by a file of the test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rtlaunch.cli import termination
from rtlaunch.core.where import Where

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment as kubelet gives it."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")


def test_last_words_are_whole_lines_of_4096_bytes(pod: None, tmp_path: Path) -> None:
    """What was there is replaced; kubelet reads no more than 4096 bytes."""
    log = tmp_path / "log"
    log.write_text("old " * 4000)
    termination.leave("\n".join(["first", "x" * 4000, "y" * 200]), str(log))
    assert log.read_text() == "first\n" + "x" * 4000 + "\n"
    termination.leave("z" * 5000, str(log))
    assert log.read_text() == "z" * 4096


def test_no_file_is_made_for_last_words(pod: None, tmp_path: Path) -> None:
    """Where there is none nobody reads it."""
    termination.leave("words", str(tmp_path / "log"))
    assert not (tmp_path / "log").exists()


def test_last_words_go_to_a_regular_file_only(pod: None, tmp_path: Path) -> None:
    """A link, a FIFO, a folder are left alone, and none of them holds us up."""
    (tmp_path / "other").write_text("kept")
    (tmp_path / "link").symlink_to("other")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", ""):
        termination.leave("words", str(tmp_path / name))
    assert (tmp_path / "other").read_text() == "kept"


def test_outside_of_containers_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of that name on a host is somebody's."""
    monkeypatch.setattr(termination.surroundings, "here", lambda: Where("plain", "a test says so"))
    (tmp_path / "log").write_text("kept")
    termination.leave("words", str(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "kept"
