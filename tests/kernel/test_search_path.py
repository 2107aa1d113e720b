"""PATH is searched as execvp(3) of this C library searches it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rtlaunch.engine.classify import classify
from tests.kernel.execve import offer
from tests.kernel.programs import TEXT, found_in, true_at, write

if TYPE_CHECKING:
    from pathlib import Path


def search_directories(here: Path) -> None:
    """Make directories that hold a file called `it`, each with something else about it."""
    true_at(here / "good" / "it")
    true_at(here / "other" / "it")
    true_at(here / "denied" / "it").chmod(0o644)
    (here / "directory" / "it").mkdir(parents=True)
    (here / "nothing").mkdir()
    for name, content in {"script": f"#!{here}/none\n", "text": TEXT, "empty": ""}.items():
        (here / name).mkdir()
        write(here / name / "it", content)
    write(here / "file", "")


SEARCHES = (
    "good", "nothing:good", "good:other", "denied:good", "denied:nothing", "directory:good",
    "directory", "script:good", "script", "text:good", "none:good", "file:good", "nothing",
    "", ":good", "good:", "nothing:", "nothing::good", "denied:script",
)  # fmt: skip


@pytest.mark.parametrize("search", SEARCHES)
def test_path_is_searched_as_execvp_searches_it(
    search: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The C library's execvp runs the file, with the argv, or ends with the errno, that we say."""
    search_directories(here)
    monkeypatch.chdir(here / "other")
    path = ":".join(str(here / name) if name else "" for name in search.split(":"))
    monkeypatch.setenv("PATH", path)
    target, verdict = classify(("it", "a b"), path), offer(["it", "a b"])
    if target.broken:
        assert target.broken.errno == verdict.errno
    else:
        assert os.path.realpath(target.images[-1].path) == verdict.program
        assert target.argv == verdict.argv


def test_path_unset_is_the_c_librarys_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PATH, execvp looks where we look."""
    monkeypatch.delenv("PATH")
    program = classify(("true",), None).images[-1].path
    assert os.path.realpath(program) == offer(["true"]).program


def test_a_command_that_is_nowhere_says_where_it_was_sought(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names PATH, and the file beside us that was perhaps meant."""
    monkeypatch.chdir(here)
    true_at(here / "it")
    (finding,) = found_in(classify(("it",), "/nonexistent"))
    assert (finding.code, finding.exit_code) == ("command-not-found", 127)
    assert "/nonexistent" in finding.what
    assert "./it" in finding.what
