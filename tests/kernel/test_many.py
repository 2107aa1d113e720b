"""Many launches leave no more behind than one: nothing, counted from outside."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host import descendants, wait_until
from tests.kernel.processes import (
    DEADLINE,
    Lines,
    adopting,
    alive_in,
    children,
    end_session,
    status,
)
from tests.schema import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launching import Launcher

IN_A_ROW = 200
AT_ONCE = 50

# What a batch consists of, in turn: a command line, its exit code and verdict.
GOOD = ["--", "true"]
KINDS: list[tuple[list[str], int, str]] = [
    (GOOD, 0, "clean"),
    (["--", "/no/such/program"], 127, "refused"),
    (["--", "sh", "-c", "exit 3"], 3, "clean"),
    (["--limit", "stack=64K", "--", "true"], 125, "refused"),
    (["--", "sh", "-c", "kill -KILL $$"], 137, "clean"),
    (["--", "/etc"], 126, "refused"),
    (["--lock", "none", "--", "true"], 0, "unlocked"),
    (["--cpu-list", "4095", "--", "true"], 125, "refused"),
]


@pytest.fixture(autouse=True)
def _adopting() -> Iterator[None]:
    with adopting():
        yield


@pytest.fixture
def leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count descriptors, processes and files before and after."""
    folders = [tmp_path / "state", tmp_path / "tmp"]
    for variable, folder in zip(("RTLAUNCH_STATE_DIR", "TMPDIR"), folders, strict=True):
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))

    def counted() -> tuple[list[str], set[int], list[str]]:
        files = [path.name for folder in folders for path in folder.iterdir()]
        return sorted(os.listdir("/proc/self/fd")), descendants(), files

    before = counted()
    yield
    assert counted() == before


def check_report(path: Path, verdict: str) -> None:
    """The report is there, complete, as its schema wants it, and right."""
    report = json.loads(path.read_text())
    assert errors(report) == []
    assert (report["complete"], report["verdict"]) == (True, verdict)


@pytest.mark.usefixtures("leaves_nothing")
def test_two_hundred_launches_in_a_row(rtlaunch: Launcher) -> None:
    """Half of them are refused: each ends as it should, and its report is valid."""
    ended = Counter()
    for index in range(IN_A_ROW):
        words, code, verdict = KINDS[index % len(KINDS)]
        ran = rtlaunch.run(*words)
        assert ran.code == code, ran.err
        check_report(rtlaunch.folder / f"report-{rtlaunch.count}.json", verdict)
        ended[verdict] += 1
    assert ended["refused"] == IN_A_ROW // 2
    left = [path.name for path in rtlaunch.folder.iterdir() if path.suffix != ".json"]
    assert sorted(left) == ["state", "tmp"]


@pytest.mark.usefixtures("leaves_nothing")
def test_fifty_launches_at_once(rtlaunch: Launcher) -> None:
    """All of them run, are locked and watched at one time; each is as small as the others."""
    reports = [rtlaunch.report_path() for _ in range(AT_ONCE)]
    command = ["--", "sh", "-c", "echo ready; read line; exit 9"]
    (reader, end), (told, teller) = os.pipe(), os.pipe()
    how = {"stdin": reader, "stdout": teller, "stderr": None}
    runs = [rtlaunch.start("--report", path, *command, **how) for path in reports]
    for fd in (reader, teller):
        os.close(fd)
    lines = Lines(told)
    try:
        assert [lines.line() for _ in runs] == ["ready"] * AT_ONCE
        wait_until(lambda: len(sizes(runs)) == 1, "they are not of one size", 5)
        assert all(is_running(run.pid, "sh") for run in runs)
    finally:
        os.close(end)
        codes = [run.wait(DEADLINE) for run in runs]
        os.close(told)
    assert codes == [9] * AT_ONCE
    for path in reports:
        check_report(path, "clean")
    pids = {json.loads(path.read_text())["target"]["pid"] for path in reports}
    assert len(pids) == AT_ONCE


def sizes(runs: list[subprocess.Popen[str]]) -> set[tuple[int, str]]:
    """Return how many descriptors and threads each rtlaunch has."""
    return {(len(os.listdir(f"/proc/{run.pid}/fd")), status(run.pid, "Threads")) for run in runs}


@pytest.mark.usefixtures("leaves_nothing")
def test_fifty_that_are_killed_at_once(rtlaunch: Launcher) -> None:
    """SIGKILL of fifty running launchers: fifty targets end with them."""
    how = {"stdout": None, "stderr": None, "start_new_session": True}
    runs = [rtlaunch.start("--", "sleep", "60", **how) for _ in range(AT_ONCE)]
    try:
        wait_until(lambda: all(is_running(run.pid, "sleep") for run in runs), "not all run", 30)
        for run in runs:
            run.kill()
        wait_until(lambda: not any(alive_in(run.pid) for run in runs), "targets live on")
    finally:
        for run in runs:
            run.kill()
            run.wait()
            end_session(run.pid)


def is_running(pid: int, name: str) -> bool:
    """Tell whether rtlaunch has a locked child of that name."""
    return any(
        status(one, "Name") == name and status(one, "VmLck") not in ("", "0 kB")
        for one in children(pid)
    )
