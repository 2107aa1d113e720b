"""Drafts of the report in exec mode: who writes them, and that nothing ever waits for that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import books
from tests.host import wait_until
from tests.kernel.detached import (
    EXEC,
    GONE_WITHIN_S,
    is_stopped,
    major_in,
    stop_writer,
    take_faults,
    watchers_of,
    written,
)
from tests.kernel.faulting import make_file
from tests.kernel.processes import children, is_alive, stat, state, status, switches
from tests.skips import skip
from tests.standing import PYTHON, Standing, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launching import Launcher

DISK_BYTES = 16 << 20
AT_REST_S = 2.5  # longer than what lies between two drafts
UNTOUCHED = ("--lock", "current")  # so that a file mapped later takes faults


@pytest.fixture
def file(here: Path) -> Path:
    """A file that can be pushed out of memory."""
    return make_file(here / "watched", 64)


@pytest.fixture
def disk(here: Path) -> Iterator[Path]:
    """A file system of our own, thawed and unmounted afterwards."""
    image, folder = here / "image", here / "disk"
    folder.mkdir()
    with image.open("wb") as made:
        made.truncate(DISK_BYTES)
    if not all(map(shutil.which, ("mke2fs", "fsfreeze"))):
        skip("no-frozen-disk")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], check=False).returncode:
        skip("no-frozen-disk")
    try:
        yield folder
    finally:
        subprocess.run(["fsfreeze", "-u", folder], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["umount", folder], check=True)


@contextmanager
def faulting(
    launcher: Launcher, targets: Path, file: Path, **how: Any
) -> Iterator[tuple[Standing, int]]:
    """Run a faulter in exec mode; yield it and its side process once its first draft is there."""
    with standing(launcher, *EXEC, *UNTOUCHED, "--", targets / "faulter", file, **how) as held:
        wait_until(held.report_path.exists, "no report while it runs")
        (watcher,) = watchers_of(held.report_path)
        wait_until(lambda: not children(watcher), "who wrote the draft is not reaped")
        yield held, watcher


def json_maps(pid: int) -> list[str]:
    """Return the mappings of what Python's json is made of, in a process."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in lines if "/_json." in line]


def test_what_writes_a_draft_is_not_in_the_side_process(rtlaunch: Launcher) -> None:
    """While the program runs, with a draft there, json's library is not mapped beside it."""
    line = "import json; print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", line], **pipes) as control:  # type: ignore[call-overload]
        control.stdout.readline()
        mapped = json_maps(control.pid)
        control.communicate(b"\n")
    if not mapped:
        skip("json-built-in")
    with standing(rtlaunch, *EXEC, "--", *PYTHON) as held:
        wait_until(held.report_path.exists, "no report while it runs")
        (watcher,) = watchers_of(held.report_path)
        assert json_maps(watcher) == []


def test_a_draft_has_what_was_found_before_the_start(rtlaunch: Launcher) -> None:
    """It may be the last that is written: warnings of options and preflight are in it, in order."""
    env = {**os.environ, "RTLAUNCH_MLOCK": "1"}
    env.pop("NOTIFY_SOCKET", None)
    with standing(rtlaunch, *EXEC, "--notify", "--", *PYTHON, env=env) as held:
        wait_until(held.report_path.exists, "no report while it runs")
        draft = json.loads(held.report_path.read_text())
        held.end()
    whole = written(held.report_path)
    codes = [[found["code"] for found in one["findings"]] for one in (draft, whole)]
    assert codes == [["environment-unknown", "notify-missing"]] * 2


def test_nothing_is_left_of_a_draft(rtlaunch: Launcher, targets: Path, file: Path) -> None:
    """No zombie, no file but the report, and no wake-up after it is written."""
    with faulting(rtlaunch, targets, file) as (held, watcher):
        take_faults(held)
        counted = books.major_faults(held.process.pid)
        wait_until(lambda: major_in(held.report_path) == counted, "the faults are not reported")
        wait_until(lambda: rests(watcher), "the side process does not come to rest", 5 * AT_REST_S)
        assert children(watcher) == []
        assert os.listdir(rtlaunch.folder) == [held.report_path.name]


def rests(pid: int) -> bool:
    """Tell whether no thread of a process wakes up for a while."""
    before, end = switches(pid), time.monotonic() + AT_REST_S
    while time.monotonic() < end:
        if switches(pid) != before:
            return False
        time.sleep(0.1)
    return True


def test_who_writes_holds_nothing_of_the_watch(
    rtlaunch: Launcher, targets: Path, file: Path
) -> None:
    """No socket of the shim's, no perf event, no pidfd; in the side process' session, its child."""
    with faulting(rtlaunch, targets, file) as (held, watcher):
        writer = stop_writer(held, watcher)
        wait_until(lambda: has_let_go(writer), "it holds what watches")
        assert (int(stat(writer)[1]), int(stat(writer)[3])) == (watcher, watcher)
        assert children(held.process.pid) == []


def has_let_go(writer: int) -> bool:
    """Let a writer go on for a moment, and tell whether it has closed what is not for it."""
    os.kill(writer, signal.SIGCONT)
    assert is_stopped(writer)
    fds = {entry.name: os.readlink(entry) for entry in Path(f"/proc/{writer}/fd").iterdir()}
    others = [link for fd, link in fds.items() if int(fd) > 2]
    return not [link for link in others if link.startswith(("socket:", "anon_inode:"))]


def test_a_draft_that_hangs_does_not_hold_up_the_program(
    rtlaunch: Launcher, targets: Path, file: Path
) -> None:
    """An image that is exec()ed meanwhile is locked, proven and told to go."""
    with faulting(rtlaunch, targets, file) as (held, watcher):
        writer = stop_writer(held, watcher)
        assert held.ask(f"exec {targets / 'faulter'} {file}").startswith("ready")
        assert state(writer) == "T"
        assert children(watcher) == [writer]
        held.end()
    found = written(held.report_path)
    assert [image["locked"] for image in found["target"]["images"]] == [True, True]


def test_what_is_due_while_a_draft_hangs_is_written_after_it(
    rtlaunch: Launcher, targets: Path, file: Path
) -> None:
    """There is one writer at a time; the next begins when it has ended."""
    with faulting(rtlaunch, targets, file) as (held, watcher):
        writer = stop_writer(held, watcher)
        take_faults(held)
        counted = books.major_faults(held.process.pid)
        end = time.monotonic() + AT_REST_S
        while time.monotonic() < end:
            assert children(watcher) == [writer]
            time.sleep(0.1)
        assert major_in(held.report_path) < counted
        os.kill(writer, signal.SIGCONT)
        wait_until(lambda: major_in(held.report_path) == counted, "what was due was not written")


def test_the_final_report_is_not_lost_to_a_draft_that_hangs(
    rtlaunch: Launcher, targets: Path, file: Path
) -> None:
    """The program's end ends the writer too, and what is there then is whole, and alone."""
    with faulting(rtlaunch, targets, file) as (held, watcher):
        writer = stop_writer(held, watcher)
        held.end()
        ended = time.monotonic()
        wait_until(lambda: not is_alive(watcher), "the side process stays")
        assert time.monotonic() - ended < GONE_WITHIN_S
        assert state(writer) == ""
    found = written(held.report_path)
    assert (found["complete"], found["exit"]["code"]) == (True, 0)
    assert os.listdir(rtlaunch.folder) == [held.report_path.name]


def test_a_disk_that_stands_still_stops_nothing_but_the_draft(
    rtlaunch: Launcher, targets: Path, file: Path, disk: Path
) -> None:
    """The writer hangs where no signal reaches it; the watch goes on, and the last word is whole.

    Also that of a writer that comes to itself only after the program has ended.
    """
    rtlaunch.folder = disk
    with faulting(rtlaunch, targets, file) as (held, watcher):
        if subprocess.run(["fsfreeze", "-f", disk], check=False).returncode:
            skip("no-frozen-disk")
        take_faults(held)
        wait_until(lambda: list(map(state, children(watcher))) == ["D"], "no draft hangs")
        assert held.ask(f"exec {targets / 'faulter'} {file}").startswith("ready")
        (writer,) = children(watcher)
        assert state(writer) == "D"
        held.process.communicate(timeout=10)
        wait_until(lambda: is_killed(writer), "who writes is not told to end")
        assert is_alive(watcher)
        subprocess.run(["fsfreeze", "-u", disk], check=True)
    found = written(held.report_path)
    assert (found["complete"], found["exit"]["code"]) == (True, 0)
    assert set(os.listdir(disk)) == {held.report_path.name, "lost+found"}


def is_killed(pid: int) -> bool:
    """Tell whether SIGKILL waits for a process to come to itself."""
    pending = int(status(pid, "SigPnd") or "0", 16)
    return bool(pending >> (signal.SIGKILL - 1) & 1)


def test_who_writes_ends_with_the_side_process(
    rtlaunch: Launcher, targets: Path, file: Path
) -> None:
    """SIGKILL of that one: nobody is left who would write over a later report."""
    with faulting(rtlaunch, targets, file) as (held, watcher):
        writer = stop_writer(held, watcher)
        os.kill(watcher, signal.SIGKILL)
        try:
            wait_until(lambda: not is_alive(writer), "who writes a draft lives on")
        finally:
            with suppress(ProcessLookupError):
                os.kill(writer, signal.SIGKILL)


def test_a_draft_that_cannot_be_written_is_said_once(
    rtlaunch: Launcher, targets: Path, file: Path
) -> None:
    """However many fail; and the report of the end is written where there is room again."""
    said = rtlaunch.folder / "said"
    with said.open("w") as err, faulting(rtlaunch, targets, file, stderr=err) as (held, watcher):
        folder, aside = held.report_path.parent, rtlaunch.folder.with_name("aside")
        folder.rename(aside)
        try:
            for _ in range(2):
                os.kill(stop_writer(held, watcher), signal.SIGCONT)
                wait_until(lambda: not children(watcher), "who tried is not reaped")
        finally:
            aside.rename(folder)
        held.end()
    assert written(held.report_path)["complete"]
    assert said.read_text().count("the report could not be written") == 1


def test_a_draft_does_not_say_when_the_program_ended(rtlaunch: Launcher) -> None:
    """Null while it runs; the report of the end has the time of the end."""
    with standing(rtlaunch, *EXEC, "--", *PYTHON) as held:
        wait_until(held.report_path.exists, "no report while it runs")
        assert json.loads(held.report_path.read_text())["time"]["ended_at"] is None
        time.sleep(0.2)
        before = time.time()
        held.end()
    ended = datetime.fromisoformat(written(held.report_path)["time"]["ended_at"])
    assert ended.timestamp() >= before
