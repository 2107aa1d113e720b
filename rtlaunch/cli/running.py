"""``rtlaunch status PID``, ``lock PID`` and ``unlock PID``: a process that already runs.

Typer's words in, a line or the report's JSON out. Whatever is refused is an exit status of 125
and, with ``--json``, a report of that as well.
"""

from __future__ import annotations

import json
import sys

from rtlaunch.cli import surroundings
from rtlaunch.cli.launch import write_refusal
from rtlaunch.core import kinds, running
from rtlaunch.core.argv import PROGRAM, quoted
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.options import BY_NAME
from rtlaunch.core.outcome import Outcome
from rtlaunch.core.units import shown
from rtlaunch.engine import lockpid, reading, survey
from rtlaunch.report import reading as words
from rtlaunch.report import text
from rtlaunch.report.document import document
from rtlaunch.report.verdict import lock_ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NOT_LOCKED = 1
MOST_PIDS = 1 << 22  # include/linux/threads.h, PID_MAX_LIMIT


def status(pid_text: str, as_json: bool) -> int:
    """Print one reading of a process; return 0 if it is locked, 1 if not, Refusal if unknown."""
    pid = read_pid("status", pid_text)

    def look(outcome: Outcome) -> tuple[Finding, ...]:
        reading.suitable(pid)
        reading.read_settled(pid, outcome)
        return ()

    outcome = tell(("status", pid_text), pid, as_json, look, words.status)
    return 0 if lock_ok(outcome) else NOT_LOCKED


def lock(pid_text: str, lock_text: str | None, stack_text: str | None, as_json: bool) -> int:
    """Lock a process and prove it; return 0. Refusal where it is not locked afterwards."""
    pid = read_pid("lock", pid_text)
    flags = read_option("lock", lock_text)
    if not flags:
        raise usage("--lock none locks nothing", f"{PROGRAM} unlock {pid}")
    stack_bytes = read_option("prefault-stack", stack_text)

    def do(outcome: Outcome) -> tuple[Finding, ...]:
        return lockpid.lock(pid, flags, stack_bytes, outcome)

    tell(("lock", pid_text), pid, as_json, do, words.locked)
    return 0


def unlock(pid_text: str, as_json: bool) -> int:
    """Unlock a process; return 0. Refusal where it cannot be stopped."""
    pid = read_pid("unlock", pid_text)
    tell(
        ("unlock", pid_text),
        pid,
        as_json,
        lambda outcome: lockpid.unlock(pid, outcome),
        words.unlocked,
    )
    return 0


def tell(
    line: tuple[str, ...],
    pid: int,
    as_json: bool,
    do: Callable[[Outcome], tuple[Finding, ...]],
    write: Callable[[Outcome], str],
) -> Outcome:
    """Do it, and print what came of it; a Refusal goes on, with its remedy for such a process."""
    outcome = Outcome()
    typed = quoted((PROGRAM, *line))
    try:
        survey.see_own_books()
        warnings = do(outcome)
    except Refusal as refusal:
        finding = running.with_remedy(refusal.finding, pid, typed)
        if as_json:
            full = surroundings.with_remedy(finding, list(line))
            write_refusal(outcome, full)
            print_document(outcome)
        raise Refusal(finding) from refusal
    outcome.findings = tuple(running.with_remedy(each, pid, typed) for each in warnings)
    if as_json:
        print_document(outcome)
    else:
        print(write(outcome))
    for each in outcome.findings:
        print(text.message(each), file=sys.stderr)
    return outcome


def print_document(outcome: Outcome) -> None:
    """Print the report as JSON; where we run is told as in that of a launch."""
    host = survey.read_host()
    outcome.host.name, outcome.host.kernel, outcome.host.arch = host.name, host.kernel, host.arch
    outcome.host.page_bytes = host.page_bytes
    surroundings.describe(outcome, None)
    outcome.time.ended_at = None  # the process goes on
    print(json.dumps(document(outcome), indent=2))


def read_pid(verb: str, word: str) -> int:
    """Return a process's number; Refusal ``usage`` for what is none."""
    if not (word.isascii() and word.isdecimal() and 0 < int(word) <= MOST_PIDS):
        raise usage(f"{shown(word)} is no process id", f"{PROGRAM} {verb} PID")
    return int(word)


def read_option(name: str, given: str | None) -> Any:
    """Read an option of a run by its own kind, its default if it was not given."""
    row = BY_NAME[name]
    try:
        return kinds.read(row, row.default if given is None else given)
    except ValueError as error:
        raise usage(f"{row.long}: {error}", f"{PROGRAM} lock --help") from error


def usage(what: str, try_now: str) -> Refusal:
    """Return the refusal of a line that makes no sense."""
    return Refusal(Finding("usage", what, try_now=try_now))
