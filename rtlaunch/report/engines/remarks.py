"""What is said in comments, in more than one engine's form."""

from __future__ import annotations

from rtlaunch.core.argv import quoted
from rtlaunch.core.printable import one_line
from rtlaunch.report.text import PREFIX, headline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtlaunch.core.wanted import Wanted

NOBODY_WATCHES = "no launcher is there to watch"
NOBODY_REPORTS = "no launcher is there to report"

# What no word of an engine's has, where rtlaunch itself is not there: option and reason.
WITHOUT_LAUNCHER = {
    "thread-stack": "a limit that small must be raised again before main(), and nobody would",
    "thp": "PR_SET_THP_DISABLE has no directive and no tool",
    "heap-pages": "pages are what GLIBC_TUNABLES gives them; nobody checks that they came",
    "watch": NOBODY_WATCHES,
    "arm": NOBODY_WATCHES,
    "on-major": NOBODY_WATCHES,
    "on-minor": NOBODY_WATCHES,
    "max-major": NOBODY_WATCHES,
    "max-minor": NOBODY_WATCHES,
    "mode": "the program is started as itself",
    "signal-to": "no launcher is there to pass signals on",
    "rewrite": "no launcher is there to pass signals on",
    "map-exit": "the exit status is the program's own (systemd: SuccessExitStatus=)",
    "pdeathsig": "no launcher is there to die",
    "notify": "no launcher is there to have READY=1 said",
    "allow": "allowed here and now; the guest itself knows --best-effort alone",
    "report": NOBODY_REPORTS,
    "log-format": NOBODY_REPORTS,
    "quiet": NOBODY_REPORTS,
    "verbose": NOBODY_REPORTS,
}


def heading(wanted: Wanted, engine: str) -> list[str]:
    """Return the first lines: what this is, and every finding that the engine cannot mend."""
    command = one_line(quoted(wanted.command))
    return [f"made by: rtlaunch plan --as {engine}, for: {command}", *findings(wanted)]


def findings(wanted: Wanted) -> list[str]:
    """Return a line for each finding."""
    return [headline(finding).removeprefix(PREFIX) for finding in wanted.findings]


def alone(wanted: Wanted) -> list[str]:
    """Say what the guest does without a launcher, and what it does not."""
    if not wanted.guest:
        return ["nothing locks this program: that was allowed"]
    lines = [
        "locked by the guest alone, before main(); it needs no Python. A lock that fails ends",
        "the program with 125 and one line on stderr, or not at all with --best-effort. No watch,",
        "and no proof but the guest's own: mlockall said yes, and VmLck is not 0.",
    ]
    if wanted.options.heap is not None:
        lines.append("--heap: taken when the program first allocates, not before main()")
    if wanted.options.children not in ("none", "all"):
        lines.append("--children: the guest knows no names; here the program alone is locked")
    return lines


def comments(lines: Iterable[str]) -> list[str]:
    """Return lines as comments; a backslash at the end would take the next line with it."""
    return [f"# {one_line(line).rstrip(chr(92))}".rstrip() for line in lines]


def as_text(lines: Iterable[str]) -> str:
    """Return the whole text, with the newline of its last line."""
    return "\n".join(lines) + "\n"
