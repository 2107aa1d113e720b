"""``rtlaunch check``: could this command, or any, be locked here, and what stands against it.

It asks the same questions as a launch (survey, preflight), really locks memory
in a forked child, and reads the machine's settings. It starts nothing and
changes nothing.
"""

from __future__ import annotations

import json
import sys
from errno import EINVAL

from rtlaunch.cli import surroundings
from rtlaunch.cli.launch import order
from rtlaunch.cli.plan import as_typed
from rtlaunch.core import hostcheck, plan, preflight, settings
from rtlaunch.core.argv import quoted
from rtlaunch.core.findings import EXIT_REFUSED, Refusal, first_refusal
from rtlaunch.core.hostcheck import Line
from rtlaunch.core.remedy import Context, with_remedy
from rtlaunch.engine.apply import PERFORM
from rtlaunch.engine.survey import judge, survey
from rtlaunch.linux import host
from rtlaunch.report import document, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options
    from rtlaunch.core.steps import Step
    from rtlaunch.core.target import Target
    from rtlaunch.core.where import Where

SCHEMA = "rtlaunch.check/1"

STAND_IN = ("true",)  # asked about when no command is: the least of dynamic programs

# What libc.so.6 and ld.so of glibc map in any program (2.36, x86_64: 2.1 MiB).
GLIBC_BYTES = 2 << 20
GLIBC_LOADER = "/ld-linux"


def run(
    raw: settings.Raw,
    command: Sequence[str] | None,
    environ: Mapping[str, str],
    as_json: bool,
) -> int:
    """Print the table and the findings; return 0 if a launch would start, 125 if not.

    Refusal for a command line, environment or profile that makes no sense.
    """
    options, asked, warnings = order_or_stand_in(raw, command, environ)
    facts, judged = judge(options, survey(options, asked, environ))
    lines = (
        Line("program", target_text(facts.target), about(judged, "command-", "target-")),
        Line("shim", shim_text(facts), about(judged, "shim-")),
        *host_lines(options, facts),
    )
    found = [*warnings, *judged, *of_lines(lines, options)]
    place = surroundings.here()
    context = Context(tuple(as_typed(raw)), quoted(asked))
    findings = [with_remedy(finding, place, context) for finding in once(found)]
    if as_json:
        print(json.dumps(as_document(place, lines, findings), indent=2))
    else:
        print(as_text(place, facts, asked, lines, findings))
    sys.stdout.flush()
    return EXIT_REFUSED if first_refusal(findings) else 0


def order_or_stand_in(
    raw: settings.Raw, command: Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[Options, list[str], tuple[Finding, ...]]:
    """Return options, command and warnings; without a command the profile's, else a stand-in."""
    if command:
        return order(raw, command, environ)
    try:
        return order(raw, (), environ)
    except Refusal:  # no command anywhere; whatever else it was is refused once more
        return order(raw, STAND_IN, environ)


# --- looking ---------------------------------------------------------------------------------


def about(findings: Sequence[Finding], *prefixes: str) -> Finding | None:
    """Return the first finding whose code begins so."""
    return next((found for found in findings if found.code.startswith(prefixes)), None)


def target_text(target: Target) -> str:
    """Say what the command is, through every image of its chain."""
    if target.broken or not target.images:
        return f"{target.command}: cannot be run"
    chain = " -> ".join(f"{image.path} ({image.kind})" for image in target.images)
    elf = target.images[-1].elf
    return f"{chain}, {elf.machine}, {elf.linkage}" if elf else chain


def shim_text(facts: Facts) -> str:
    """Say which shim would be preloaded."""
    return facts.shim.path if facts.shim else f"none for {facts.host.arch}"


def host_lines(options: Options, facts: Facts) -> tuple[Line, ...]:
    """Read the machine, try the lock in a child, and judge both."""
    need = least_bytes(options, facts)
    actions = plan.before_exec(options, facts)
    return hostcheck.lines(
        host.read_facts(
            memlock=(preflight.memlock_after(options, facts), facts.limits["memlock"].hard),
            may_lock_all=preflight.will_hold_ipc_lock(options, facts),
            trial=host.try_lock(need, lambda: perform(actions)),
            seccomp=host.seccomp_filter(),
            need_bytes=need,
        )
    )


def perform(actions: Sequence[Step]) -> None:
    """Do in the child of the trial what a launch does before exec; OSError where it fails."""
    for action in actions:
        try:
            PERFORM[type(action).__name__](action)
        except ValueError as error:  # resource.setrlimit turns EINVAL into this
            raise OSError(EINVAL, str(error)) from error


def least_bytes(options: Options, facts: Facts) -> int:
    """Return what the program certainly locks: its segments, glibc's if it uses it, the stack."""
    program = facts.target.program
    if program is None or program.elf is None:
        return max(options.prefault_stack, facts.host.page_bytes)
    libc = GLIBC_BYTES if GLIBC_LOADER in program.interpreter else 0
    return program.elf.load_bytes + libc + options.prefault_stack


def of_lines(lines: Sequence[Line], options: Options) -> list[Finding]:
    """Return the findings of the lines, those that were allowed marked so."""
    return [preflight.waive(line.finding, options) for line in lines if line.finding]


def once(findings: Sequence[Finding]) -> list[Finding]:
    """Return each code's first finding: a launch's own before what the host check adds."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.code, finding)
    return list(first.values())


# --- showing ---------------------------------------------------------------------------------


def rows(lines: Sequence[Line], findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    """Return state, subject and text of each line; the state is the finding's label, or ok."""
    labels = {finding.code: text.label(finding) for finding in findings}
    return [
        (labels[line.finding.code] if line.finding else "ok", line.subject, line.text)
        for line in lines
    ]


def as_text(
    place: Where,
    facts: Facts,
    command: Sequence[str],
    lines: Sequence[Line],
    findings: Sequence[Finding],
) -> str:
    """Return the table and the findings for people."""
    who = f"{place.user or place.uid} on {facts.host.name}, {facts.host.kernel} {facts.host.arch}"
    head = [f"check of: {quoted(command)}", f"as: {who}", f"where: {place.kind} ({place.why})"]
    blocks = [
        head,
        text.table(rows(lines, findings)),
        text.finding_lines(findings),
        [text.answer(findings)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def as_document(place: Where, lines: Sequence[Line], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the object that ``--json`` prints; it only grows."""
    refusing = first_refusal(findings)
    codes = [line.finding.code if line.finding else None for line in lines]
    return {
        "schema": SCHEMA,
        "where": document.plain(place),
        "checks": [
            {"subject": subject, "state": state, "text": told, "code": code}
            for (state, subject, told), code in zip(rows(lines, findings), codes, strict=True)
        ],
        "findings": [document.finding(finding) for finding in findings],
        "would_start": refusing is None,
        "refused_by": refusing.code if refusing else None,
    }
