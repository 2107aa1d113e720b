"""Launches whose rtlaunch is killed on the way, and what is left of them, seen from outside.

Each has a session of its own, so that whoever survives is found, and folders of its own for
state, report and temporary files, so that whatever is left is found.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests import launching
from tests.kernel.processes import alive_in, end_session, session, state, status

if TYPE_CHECKING:
    from collections.abc import Sequence

GONE_WITHIN = 2.0  # s after the death of rtlaunch

NEVER, STARTED, SURVIVED, FINISHED = "never started", "started", "survived", "finished"


def spaced_installation(folder: Path) -> Path:
    """Make an installation whose path has a space, so that the state directory is needed."""
    return launching.installation_at(folder / "an installation")


def can_trace() -> bool:
    """Tell whether strace is there and may inject."""
    if not shutil.which("strace"):
        return False
    command = ["strace", "-o", os.devnull, "-e", "inject=getpid:signal=TERM", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Doomed:
    """One launch that is to be killed."""

    def __init__(self, folder: Path, program: Path, target: Path, pdeathsig: str) -> None:
        self.folder = folder
        self.record = folder / "started"
        self.target = target.name
        self.pdeathsig = pdeathsig
        for name in ("state", "tmp", "reports", "cwd"):
            (folder / name).mkdir(parents=True)
        report = folder / "reports" / "report.json"
        options = ["--pdeathsig", pdeathsig, "--report", report]
        self.words = list(map(str, [program, *options, "--", target, self.record]))

    def start(self, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start it, below a tracer, say."""
        environ = {
            **os.environ,
            "RTLAUNCH_STATE_DIR": str(self.folder / "state"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        with open(os.devnull, "r+") as null:
            return subprocess.Popen(
                [*prefix, *self.words],
                stdin=null,
                stdout=null,
                stderr=null,
                env=environ,
                cwd=self.folder / "cwd",
                start_new_session=True,
            )

    def kill_after(self, seconds: float) -> None:
        """Run it, and kill rtlaunch after so long."""
        process = self.start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        self.session = process.pid

    def kill_at(self, call: str, count: int) -> None:
        """Run it, and kill rtlaunch as it enters the system call ``call`` for the Nth time."""
        inject = f"inject={call}:signal=KILL:when={count}"
        prefix = ["strace", "-qq", "-o", str(self.folder / "trace"), "-e", f"trace={call}"]
        process = self.start([*prefix, "-e", inject])
        deadline = time.monotonic() + 20
        while process.poll() is None:
            assert time.monotonic() < deadline, f"not killed in {call} {count}"
            time.sleep(0.01)
            if self.record.exists() and process.poll() is None:
                self.end_target(process.pid)  # it may be a call that comes only after that
        self.session = process.pid

    def end_target(self, leader: int) -> None:
        for pid in session(leader):
            if status(pid, "Name") == self.target:
                with suppress(ProcessLookupError):  # it may end by itself meanwhile
                    os.kill(pid, signal.SIGTERM)

    def autopsy(self) -> tuple[str, list[str]]:
        """Return what became of the launch, and all that is wrong with what is left."""
        deadline = time.monotonic() + GONE_WITHIN
        while (left := self.wrong_processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        survived = bool(alive_in(self.session))
        end_session(self.session)
        wrong = [*left, *self.wrong_files(), *self.wrong_record()]
        if self.finished():
            return FINISHED, wrong
        return SURVIVED if survived else STARTED if self.record.exists() else NEVER, wrong

    def finished(self) -> bool:
        return any((self.folder / "reports").iterdir())

    def wrong_processes(self) -> list[str]:
        """Return who is alive and may not be; a proven target may, if nothing ends it."""
        return [
            f"{pid} ({status(pid, 'Name')}) lives on in state {state(pid)}"
            for pid in alive_in(self.session)
            if not self.may_live(pid)
        ]

    def may_live(self, pid: int) -> bool:
        """Tell whether this is a target that reached main(), is locked, and is to live on."""
        return (
            self.pdeathsig == "none"
            and state(pid) in "SR"
            and self.record.exists()
            and self.record.read_text().startswith(f"{pid} ")
            and status(pid, "VmLck") not in ("", "0 kB")
        )

    def wrong_record(self) -> list[str]:
        """Return what is wrong with the target's own account of how it began."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [f"main() ran unlocked: {line}" for line in lines if int(line.split()[1]) <= 0]

    def wrong_files(self) -> list[str]:
        """Return the files that were left: none but a whole report and the shim's one link."""
        left = [path for name in ("tmp", "cwd") for path in (self.folder / name).iterdir()]
        left += [path for path in (self.folder / "state").iterdir() if not is_alias(path)]
        for path in (self.folder / "reports").iterdir():
            if path.name != "report.json" or not json.loads(path.read_text())["complete"]:
                left.append(path)
        return [f"{path} is left" for path in left]


def is_alias(path: Path) -> bool:
    """Tell whether a file of the state directory is the lasting name of a shim, or of both."""
    return bool(re.fullmatch(r"shim-[0-9a-f]+-[0-9a-f]+(\.so)?", path.name)) and path.is_symlink()
