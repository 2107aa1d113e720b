"""What people read on stderr and from ``plan``: outcomes and findings in, lines out.

Pure; every line ends without a newline of its own. Whether a line is shown, and
where, is the command line's choice. It must not decide: no finding is weighed,
no verdict reached here.
"""

from __future__ import annotations

from rtlaunch.core import spelling, units
from rtlaunch.core.findings import ERROR, INFO, WARNING, first_refusal
from rtlaunch.core.options import DEFAULT, SETTINGS
from rtlaunch.core.printable import one_line
from rtlaunch.report.verdict import lock_ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options
    from rtlaunch.core.outcome import Outcome

PREFIX = "rtlaunch: "
INDENT = "  "
LABELS = {ERROR: "refused", WARNING: "warning", INFO: "note"}
ALLOWED = "allowed"
WARNED = ("why", "try now", "more")  # what of a remedy a warning shows: the program runs on

FROM = {"cli": "the command line", "environment": "the environment", "profile": "the profile"}


# --- findings --------------------------------------------------------------------------------


def label(finding: Finding) -> str:
    """Return what kind of line a finding makes: refused, warning, note or allowed."""
    return ALLOWED if finding.waived and finding.severity == ERROR else LABELS[finding.severity]


def headline(finding: Finding) -> str:
    """Return the first line of a message: what was found, with its numbers."""
    return f"{PREFIX}{label(finding)} [{finding.code}]: {one_line(finding.what)}"


def refusal(finding: Finding, verbose: bool = False) -> str:
    """Return the whole of a refusal: what, who set it, what to do, where to read on."""
    return "\n".join([headline(finding), *details(finding, verbose)])


def details(finding: Finding, verbose: bool = False, only: Sequence[str] = ()) -> list[str]:
    """Return the indented lines below a headline; what is not known is left out.

    ``only`` names the rows that are wanted, all if it is empty.
    """
    rows = (
        ("why", finding.why if verbose else ""),
        ("set by", finding.set_by),
        ("try now", finding.try_now),
        ("for good", finding.for_good),
        ("more", f"rtlaunch explain {finding.code}"),
    )
    wanted = [(name, text) for name, text in rows if text and (not only or name in only)]
    return [line for name, text in wanted for line in _hanging(name, text)]


def _hanging(name: str, text: str) -> list[str]:
    first, *rest = map(one_line, text.split("\n"))
    return [f"{INDENT}{name}: {first}", *(INDENT * 3 + line for line in rest)]


def message(finding: Finding, verbose: bool = False) -> str:
    """Return the message for any finding: a refusal whole, a warning with its cure, else a line."""
    if finding.refuses:
        return refusal(finding, verbose)
    if finding.severity == WARNING and not finding.waived:
        return "\n".join([headline(finding), *details(finding, verbose, WARNED)])
    return headline(finding)


def not_locked(code: str) -> str:
    """Return the line that is never silenced but by -q: the program runs unlocked, and why."""
    return f"{PREFIX}not locked: {code}"


def step(text: str) -> str:
    """Return the line of -v for an action that was done, in the action's own words."""
    return PREFIX + one_line(text)


# --- the summary -----------------------------------------------------------------------------


def summary(outcome: Outcome) -> str:
    """Return the one line that a run comes down to."""
    tellers = (_lock_part, _heap_part, _lease_part, _fault_part, _exit_part)
    return PREFIX + "; ".join(filter(None, (tell(outcome) for tell in tellers)))


def begun(outcome: Outcome) -> str:
    """Return the one line for a target that was just told to go."""
    return PREFIX + _lock_part(outcome, "runs")


def _heap_part(outcome: Outcome) -> str:
    """Say what heap was found: ``heap 64 MiB on 2 MiB pages``."""
    heap = outcome.heap
    if heap.asked_bytes is None or heap.found_bytes is None:
        return ""
    found, asked, pages = (
        units.format_size(size)
        for size in (heap.found_bytes, heap.asked_bytes, heap.page_bytes or 0)
    )
    size = asked if heap.found_bytes >= heap.asked_bytes else f"{found} of {asked} asked"
    return f"heap {size} on {pages} pages"


def _lease_part(outcome: Outcome) -> str:
    """Say what was leased: ``512 huge pages of 2 MiB``."""
    parts = []
    for lease in outcome.hugepages:
        size = units.format_size(lease.page_bytes or 0)
        where = "" if lease.node is None else f" on node {lease.node}"
        parts.append(f"{lease.got} of {lease.asked} huge pages of {size}{where}")
    return f"leased {', '.join(parts)}" if parts else ""


def _lock_part(outcome: Outcome, unlocked: str = "ran") -> str:
    lock, whom = outcome.lock, program(outcome)
    if not lock_ok(outcome) or lock.locked_bytes is None:
        return f"{unlocked} {whom} unlocked"
    size = locked_size(lock.locked_bytes, lock.resident_bytes)
    took = "" if lock.lock_ns is None else f" in {milliseconds(lock.lock_ns)}"
    return f"locked {size} of {whom}{took}"


def milliseconds(time_ns: int) -> str:
    """Write a time in ms: whole ones, below that tenths, and never 0 for what took time."""
    ms = time_ns / 1e6
    return f"{ms:.0f} ms" if ms >= 1 else f"{max(ms, 0.1):.1f} ms"


def locked_size(locked_bytes: int, resident_bytes: int | None) -> str:
    """Write both sizes in the unit of the larger part: ``11.2 MiB (12.0 resident)``."""
    unit, scale = ("GiB", 1 << 30) if locked_bytes >= 1 << 30 else ("MiB", 1 << 20)
    resident = "" if resident_bytes is None else f" ({resident_bytes / scale:.1f} resident)"
    return f"{locked_bytes / scale:.1f} {unit}{resident}"


def program(outcome: Outcome) -> str:
    """Return the program that ran last and its pid: ``python3[1234]``."""
    images = [image.path for image in outcome.target.images if image.path]
    path = images[-1] if images else next(iter(outcome.target.argv), "the program")
    pid = "" if outcome.target.pid is None else f"[{outcome.target.pid}]"
    return one_line(path.rstrip("/").rsplit("/", 1)[-1]) + pid


def _fault_part(outcome: Outcome) -> str:
    after = outcome.watch.after_arm
    if after is None or after.major is None:
        return "major faults not counted"
    return f"{plural(after.major, 'major fault')} after arming"


def _exit_part(outcome: Outcome) -> str:
    if outcome.exit.signal is not None:
        core = ", core dumped" if outcome.exit.core_dumped else ""
        return f"ended by SIG{units.signal_name(outcome.exit.signal)}{core}"
    return f"exit {outcome.exit.code}" if outcome.exit.code else ""


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 major fault``, ``0 major faults``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# --- the plan --------------------------------------------------------------------------------


def plan(
    command: str,
    mode: str,
    options: Options,
    actions: Sequence[str],
    findings: Sequence[Finding],
    budget: Sequence[str] = (),
    costs: Sequence[str] = (),
) -> str:
    """Return what ``rtlaunch plan`` prints: options, steps, budget, findings, the answer.

    ``command`` is quoted for a shell, ``mode`` says which process model and by
    which rule, ``actions`` are the actions' own descriptions, ``costs`` the lock's.
    """
    blocks = [
        [f"plan for: {one_line(command)}", f"mode: {mode}"],
        option_lines(options),
        ["steps:", *_numbered(actions)],
        *_block("the lock costs:", costs),
        *_block("budget:", budget),
        finding_lines(findings),
        [answer(findings)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def option_lines(options: Options) -> list[str]:
    """Return the options that are not at their default, and where each comes from."""
    rows = [row for row in SETTINGS if options.origin[row.name] != DEFAULT]
    if not rows:
        return ["options: all at their defaults"]
    texts = [spelling.write(row, getattr(options, row.field)) for row in rows]
    name_width, text_width = max(len(row.name) for row in rows), max(map(len, texts))
    return [
        "options (the others are at their defaults):",
        *(
            f"{INDENT}{row.name:{name_width}}  {text:{text_width}}  "
            f"from {FROM[options.origin[row.name]]}"
            for row, text in zip(rows, texts, strict=True)
        ),
    ]


def _block(title: str, lines: Sequence[str]) -> list[list[str]]:
    """Return lines below their title, nothing where there are none."""
    return [[title, *(INDENT + one_line(line) for line in lines)]] if lines else []


def _numbered(actions: Sequence[str]) -> list[str]:
    width = len(str(len(actions)))
    return [f"{INDENT}{at:{width}}. {one_line(text)}" for at, text in enumerate(actions, start=1)]


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """Return every finding as its message, or that there are none."""
    messages = [message(finding).removeprefix(PREFIX) for finding in findings]
    lines = [INDENT + line for text in messages for line in text.split("\n")]
    return ["findings:", *lines] if lines else ["findings: none"]


def answer(findings: Iterable[Finding]) -> str:
    """Return the last line: whether the launch would start."""
    refusing = first_refusal(findings)
    if refusing is None:
        return "would start"
    return f"would be refused: {refusing.code} (exit {refusing.exit_code})"


def table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return aligned lines of state, subject and text."""
    state_width = max(len(state) for state, _, _ in rows)
    subject_width = max(len(subject) for _, subject, _ in rows)
    return [
        f"{INDENT}{state:{state_width}}  {subject:{subject_width}}  {one_line(text)}"
        for state, subject, text in rows
    ]
