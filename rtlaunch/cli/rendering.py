"""``rtlaunch plan --as ENGINE``: the same plan, for another engine to do."""

from __future__ import annotations

import os
import sys

from rtlaunch.cli import surroundings
from rtlaunch.cli.launch import order
from rtlaunch.cli.plan import as_typed
from rtlaunch.core import heap
from rtlaunch.core.argv import AS, JSON, quoted
from rtlaunch.core.findings import EXIT_REFUSED, Finding, Refusal, first_refusal
from rtlaunch.core.record import replace
from rtlaunch.core.units import did_you_mean, shown
from rtlaunch.core.wanted import Wanted
from rtlaunch.core.way import PRELOAD, PTRACE, UNREACHED
from rtlaunch.engine import shims
from rtlaunch.engine.survey import judge, survey
from rtlaunch.report.engines import ENGINES, Engine
from rtlaunch.report.text import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtlaunch.core.facts import Facts
    from rtlaunch.core.options import Options
    from rtlaunch.core.settings import Raw


def run(
    name: str, raw: Raw, typed: Sequence[str], environ: Mapping[str, str], as_json: bool
) -> int:
    """Print the plan in the engine's words and return 0.

    125 for what the engine could not start as planned, with nothing printed that would run
    unlocked. Refusal for a line that makes no sense.
    """
    engine = chosen(name, as_json)
    options, command, warnings = order(raw, typed, environ)
    options = without_launcher(name, options) if engine.standalone else options
    facts, found = judge(options, survey(options, command, environ))
    counted = tuple(each for each in (*warnings, *found) if each.code.startswith(engine.judged))
    refusing = first_refusal(counted)
    if refusing:
        words = [*as_typed(raw), "--", *command]
        mended = out_of_reach(name, refusing, words) if engine.standalone else refusing
        sys.stderr.write(refusal(surroundings.with_remedy(mended, words)) + "\n")
        return EXIT_REFUSED
    sys.stdout.write(rendered(name, engine, wanted(engine, options, facts, counted)))
    sys.stdout.flush()
    return 0


def out_of_reach(name: str, finding: Finding, words: list[str]) -> Finding:
    """Return a finding with the way out, where a preload does not reach the program."""
    if finding.code not in UNREACHED:
        return finding
    line = quoted(("rtlaunch", *words))
    return replace(
        finding,
        set_by=f"the form of {AS.long} {name}, in which a preload is the only way in",
        try_now=f"{line}   # where it can, it locks such a program by ptrace",
        for_good="rtlaunch itself in front of the command, in a unit as in a script",
    )


def rendered(name: str, engine: Engine, what: Wanted) -> str:
    """Return the text; Refusal where the engine's form has no way to write a word of it."""
    try:
        text = engine.render(what)
        text.encode()
    except UnicodeEncodeError:
        why = "its command has bytes that are no UTF-8"
    except ValueError as error:
        why = str(error)
    else:
        return text
    raise Refusal(Finding("usage", f"{AS.long} {name} cannot write this plan: {why}"))


def chosen(name: str, as_json: bool) -> Engine:
    """Return the engine of that name; Refusal where there is none, or ``--json`` as well."""
    if as_json:
        what = f"{AS.long} {name} and {JSON.long} are two forms of one output: give one of them"
        raise Refusal(Finding("usage", what))
    if name not in ENGINES:
        known = ", ".join(ENGINES)
        what = f"{AS.long}: {shown(name)} is not one of {known}{did_you_mean(name, ENGINES)}"
        raise Refusal(Finding("usage", what))
    return ENGINES[name]


def without_launcher(name: str, options: Options) -> Options:
    """Return the options for a form in which a preload is the only way in."""
    if options.via == PTRACE:
        what = f"--via ptrace takes a launcher, and in the form of {AS.long} {name} there is none"
        raise Refusal(Finding("usage", what, for_good="put rtlaunch itself before the command"))
    return replace(options, via=PRELOAD)


def own_name() -> str:
    """Return our name in passwd(5), or our number."""
    return surroundings.user_name() or str(os.getuid())


def wanted(engine: Engine, options: Options, facts: Facts, findings: tuple[Finding, ...]) -> Wanted:
    """Return what the engine is to do."""
    path = os.path.abspath(facts.target.path)
    unreached = any(finding.code in UNREACHED for finding in findings)
    return Wanted(
        command=(path, *facts.target.argv[1:]),
        directory=directory(),
        uid=facts.who.euid,
        owner=facts.account.name if facts.account else own_name(),
        account=facts.account,
        options=options,
        guest="" if unreached or not engine.standalone else guest(facts),
        tunables=tunables(options, facts),
        preload=facts.environ.get("LD_PRELOAD", ""),
        findings=findings,
    )


def directory() -> str:
    """Return where the program would be started; the root where our own directory was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def guest(facts: Facts) -> str:
    """Return the path of the guest that locks by itself; Refusal where it cannot be preloaded."""
    machine = facts.target.machine or facts.host.arch
    path = shims.path_of("standalone", machine)
    if not os.path.exists(path):
        raise Refusal(
            Finding(
                "shim-missing",
                f"this installation has no guest for {machine} that locks without a launcher",
                why="it is what locks the program before main()",
                values={"machine": machine},
            )
        )
    if any(separator in path for separator in shims.SEPARATORS):
        raise Refusal(
            Finding(
                "shim-path",
                f"LD_PRELOAD cannot carry the guest's path {path!r}",
                why="ld.so splits LD_PRELOAD at spaces and colons",
                values={"path": path},
                for_good="install rtlaunch where the path has neither",
            )
        )
    return path


def tunables(options: Options, facts: Facts) -> str:
    """Return GLIBC_TUNABLES for the heap, which takes its size when it first grows."""
    if facts.heap is None:
        return ""
    told = heap.settings(options, facts)
    if options.heap is not None:
        told[heap.TOP_PAD] = str(options.heap)
    return heap.merge(told, facts.environ.get(heap.VARIABLE, ""))
