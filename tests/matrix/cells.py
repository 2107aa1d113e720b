"""One cell of the matrix: a kind of program, started by one user in one way, and what came of it.

What rtlaunch says is not believed: smaps and the count of major faults are read here, while every
mapping of the program is pushed out over and over.

    locked             every lockable mapping is locked and in memory, the kernel refused to push
                       out any of it, and the program worked on without one major fault
    refused:CODE       it was refused by that name, and not one line of the program's came
    not-possible:WHY   it was locked, and cannot live with that: it broke in a way that its kind
                       names, or before it was ready, of which rtlaunch had warned by that code
    unlocked:CODE      it ran unlocked, and that was said by that name
    UNLOCKED, ...      it ran unlocked without saying so; whatever is written in such capitals is
                       wrong in every cell
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests import books
from tests.host import wait_until
from tests.kernel import attack
from tests.standing import finish

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.launching import Launcher
    from tests.matrix.kinds import Kind

ROUNDS = 3
DEADLINE_S = 30
SETTLED_S = 5
VIAS = ("preload", "ptrace", "auto")
SILENT = "UNLOCKED, and did not say so"
CODE = "([a-z0-9-]+)"
REFUSALS = (125, 126)


@dataclass(frozen=True)
class Made:
    """A program of a kind, made: its command line and its environment."""

    kind: Kind
    command: tuple[str, ...]
    environment: dict[str, str]


def make(kind: Kind, folder: Path) -> Made:
    """Make a program in a folder of its own, and write it out: dirty pages cannot be pushed out."""
    folder.mkdir(mode=0o755)
    command = kind.make(folder)
    os.sync()
    return Made(kind, tuple(command), {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})


class Steps:
    """A program that says it is ready, and then takes one step a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def line(self) -> str:
        """Return the program's next line, "" at the end; AssertionError where none comes."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        assert ready, f"it says nothing more, after {self.said!r}"
        line = self.process.stdout.readline()
        self.said += line
        return line

    def step(self) -> bool:
        """Have it do one step; tell whether it did."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        return self.line() != ""


STREAMS: dict[str, Any] = {
    "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
}  # fmt: skip


@contextmanager
def running(words: Sequence[str], made: Made, folder: Path) -> Iterator[Steps]:
    process = subprocess.Popen(words, env=made.environment, cwd=folder, **STREAMS)
    try:
        yield Steps(process)
    finally:
        finish(process)


# ---- without rtlaunch


def faults_without(made: Made, folder: Path) -> int:
    """Return the major faults that the same attack costs the program alone; it is the control."""
    with running(made.command, made, folder) as steps:
        assert steps.line().startswith("ready"), steps.process.communicate()
        pid = steps.process.pid
        before = books.major_faults(pid)

        def faulted() -> bool:
            attack.page_out(pid)
            return steps.step() and books.major_faults(pid) > before

        with suppress(AssertionError):
            wait_until(faulted, "the attack has no effect", SETTLED_S)
        return books.major_faults(pid) - before


# ---- with it


def found(made: Made, launcher: Launcher, via: str) -> str:
    """Run one cell; return what it turned out to be."""
    report = launcher.report_path()
    words = launcher.words("--report", report, "--via", via, "--", *made.command)
    with running(words, made, launcher.folder) as steps:
        greeted = steps.line().startswith("ready")
        seen = under_attack(steps) if greeted else ""
        out, err = steps.process.communicate(timeout=DEADLINE_S)
    document = json.loads(report.read_text()) if report.exists() else {}
    over = Over(steps.process.returncode, steps.said + out, err, document)
    if broke(made.kind, over):
        return f"not-possible:{made.kind.breaks[0]}"
    return over.of_one_that_ran(seen, via) if greeted else over.of_one_that_did_not()


def broke(kind: Kind, over: Over) -> bool:
    """Tell whether a locked program broke in the way of its kind, at its start or any later."""
    return bool(kind.breaks[0]) and over.says_locked() and over.code and kind.breaks[1] in over.err


def under_attack(steps: Steps) -> str:
    """Return what the kernel says of a program that runs: "locked", or what is wrong."""
    pid = target_of(steps.process.pid)
    if not pid:
        return "GONE, before anybody could look"
    unlocked = books.not_locked(pid)
    if unlocked:
        return f"unlocked: {unlocked[0]}"
    with suppress(AssertionError):  # a thread that starts this moment is being filled
        wait_until(lambda: books.not_held(pid) == [], "not in memory", SETTLED_S)
    missing = books.not_held(pid)
    return f"NOT IN MEMORY: {missing[0]}" if missing else attacked(pid, steps)


def attacked(pid: int, steps: Steps) -> str:
    before = books.major_faults(pid)
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(attack.page_out(pid))
        if not steps.step():
            return "BROKEN under attack"
    faults = books.major_faults(pid) - before
    taken, refused = (sum(getattr(each, name) for each in rounds) for name in ("taken", "refused"))
    if faults or taken or not refused:
        return f"FAULTED: {faults} major faults, {taken} of {taken + refused} page-outs taken"
    return "locked"


def target_of(launcher: int) -> int:
    """Return the living child of rtlaunch; the entry leaves another one to be reaped."""
    alive = [pid for pid in books.children(launcher) if books.status(pid)["State"][0] != "Z"]
    return alive[0] if alive else 0


@dataclass
class Over:
    """A run that is over: what was said of it."""

    code: int
    out: str
    err: str
    report: dict[str, Any]

    def codes(self) -> list[str]:
        """Return the codes that were said on stderr, where a person reads them."""
        return re.findall(rf"^rtlaunch: (?:[^\[\n]*\[|not locked: ){CODE}", self.err, re.MULTILINE)

    def refused(self) -> str:
        """Return the code of the refusal; "" for none."""
        said = re.search(rf"^rtlaunch: refused \[{CODE}\]", self.err, re.MULTILINE)
        return said[1] if said and self.code in REFUSALS else ""

    def unlocked(self) -> str:
        """Return the code by which both the report and stderr own up to no lock; "" for none."""
        said = re.search(rf"^rtlaunch: not locked: {CODE}", self.err, re.MULTILINE)
        return said[1] if said and self.report["lock"]["ok"] is False else ""

    def says_locked(self) -> bool:
        """Tell whether the report says that it was locked."""
        return bool(self.report) and self.report["lock"]["ok"] is True

    def of_one_that_ran(self, seen: str, via: str) -> str:
        """Judge a program that came to its main()."""
        if seen.startswith("unlocked"):
            said = self.unlocked()
            return f"unlocked:{said}" if said else f"{SILENT}: {seen}"
        if seen != "locked":
            return seen
        if not self.says_locked():
            return f"LOCKED, and the report says no: {self.err}"
        if via not in ("auto", self.report["lock"]["via"]):
            return f"LOCKED, by {self.report['lock']['via']}"
        return seen if self.code == 0 else f"LOCKED, and ended with {self.code}: {self.err}"

    def of_one_that_did_not(self) -> str:
        """Judge a program that never said that it was ready."""
        if self.refused() and not self.out:
            return f"refused:{self.refused()}"
        if self.says_locked() and self.codes():
            return f"not-possible:{self.codes()[0]}"
        return f"ENDED with {self.code}, and nothing said why: {self.err}"
