"""``rtlaunch plan``: what a launch would do and everything found, without doing it."""

from __future__ import annotations

import json
import sys

from rtlaunch.cli import surroundings
from rtlaunch.cli.launch import order
from rtlaunch.core import preflight, settings, spelling
from rtlaunch.core.argv import quoted
from rtlaunch.core.findings import EXIT_REFUSED, first_refusal
from rtlaunch.core.mode import Choice, choose
from rtlaunch.core.options import BY_NAME, SETTINGS
from rtlaunch.core.plan import make_plan
from rtlaunch.core.steps import Lock
from rtlaunch.engine.survey import judge, survey
from rtlaunch.report import budget, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtlaunch.core.budget import Budget
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import Options

SCHEMA = "rtlaunch.plan/1"


def run(raw: settings.Raw, typed: Sequence[str], environ: Mapping[str, str], as_json: bool) -> int:
    """Print the plan; return 0 if the launch would start, 125 if it would be refused.

    Refusal for a command line, environment or profile that makes no sense.
    """
    options, command, warnings = order(raw, typed, environ)
    facts, found = judge(options, survey(options, command, environ))
    way, _ = preflight.way_in(options, facts)
    actions = make_plan(options, facts, found, way)
    steps = [action.describe() for action in actions]
    stack = preflight.thread_stack(options, facts)
    costs = [line for action in actions if isinstance(action, Lock) for line in action.costs(stack)]
    words = [*as_typed(raw), "--", *command]
    findings = [surroundings.with_remedy(finding, words) for finding in (*warnings, *found)]
    whole = preflight.budgeted(options, facts)
    chosen = choose(options, facts)
    if as_json:
        document = as_document(options, command, chosen, steps, costs, whole, findings)
        print(json.dumps(document, indent=2, default=str))
    else:
        told, mode = budget.lines(whole, options.fitted), f"{chosen.mode} ({chosen.why})"
        print(text.plan(quoted(command), mode, options, steps, findings, told, costs))
    refusing = first_refusal(findings)
    sys.stdout.flush()
    return 0 if refusing is None else EXIT_REFUSED


def as_typed(raw: settings.Raw) -> list[str]:
    """Return the options as somebody could have typed them, for the lines that remedies print."""
    words = []
    for name, values in raw.items():
        for value in values:
            takes_value = BY_NAME[name].takes_value
            plain = f"--{name}" if value == "true" else f"--no-{name}"
            words += [f"--{name}", value] if takes_value else [plain]
    return words


def as_document(
    options: Options,
    command: list[str],
    chosen: Choice,
    steps: list[str],
    costs: list[str],
    whole: Budget,
    findings: list[Finding],
) -> dict[str, object]:
    """Return the plan as the object that ``--json`` prints; the option values are texts."""
    refusing = first_refusal(findings)
    return {
        "schema": SCHEMA,
        "command": command,
        "mode": chosen.mode,
        "mode_why": chosen.why,
        "options": {
            row.name: {
                "value": spelling.write(row, getattr(options, row.field)),
                "from": options.origin[row.name],
            }
            for row in SETTINGS
        },
        "steps": steps,
        "lock_costs": costs,
        "budget": budget.as_dict(whole),
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity,
                "waived": finding.waived,
                "what": finding.what,
                "why": finding.why,
                "remedy": {
                    "set_by": finding.set_by,
                    "try_now": finding.try_now,
                    "for_good": finding.for_good,
                },
                "values": dict(finding.values),
            }
            for finding in findings
        ],
        "would_start": refusing is None,
        "refused_by": refusing.code if refusing else None,
    }
