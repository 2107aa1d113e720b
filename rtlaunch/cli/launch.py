"""The launch path: from the words of a command line to an exit status, with nothing heavy imported.

Here alone findings become messages and exit codes. Whatever is no plain
launch (help, version, subcommands) is typer's, imported only then.
"""

from __future__ import annotations

import gc
import os

from rtlaunch.cli.voice import DENIED, Voice
from rtlaunch.core import argv, settings
from rtlaunch.core.findings import EXIT_REFUSED, Finding, Refusal
from rtlaunch.engine import inherit
from rtlaunch.engine.launch import Story, launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtlaunch.core.options import Options
    from rtlaunch.core.outcome import Outcome


def main(words: Sequence[str]) -> int:
    """Do what the command line says; return the exit status."""
    story = Story()
    voice = Voice(story, list(words))
    try:
        return answer(words, story, voice)
    except DENIED as error:
        finding = denied(error)
    return voice.last_words(finding)  # the error is gone, and what its frames held


def answer(words: Sequence[str], story: Story, voice: Voice) -> int:
    """Do what the command line says; return the exit status."""
    try:
        inherited = inherit.take_down()
    except FileNotFoundError:
        return voice.refused(no_proc())
    try:
        completing = argv.COMPLETE_VARIABLE in inherited.environ
        line = None if completing else argv.split(words)
        if line and line.verb == argv.FIT and argv.HELP not in line.raw:
            from rtlaunch.cli import fit

            return fit.run(line, inherited, voice, story)
        if line is None or line.verb != argv.RUN:
            from rtlaunch.cli import app

            gc.enable()
            inherit.unblock_held()
            return app.main(words)
        return run(line, inherited, voice, story)
    except Refusal as refusal:
        if voice.options is None:  # they could not be read: its report is still to be written
            from rtlaunch.cli import early

            early.report(words, inherited.environ, voice, refusal.finding)
        return voice.refused(refusal.finding)
    finally:
        if not story.forked:
            inherit.reap_helper()


def run(line: argv.Line, inherited: inherit.Inherited, voice: Voice, story: Story) -> int:
    """Launch the command of ``line``; the status is the target's, or that of a Refusal."""
    options, command, findings = order(line.raw, line.command, inherited.environ)
    perform(options, command, findings, inherited, voice, story)
    voice.end()
    code = story.outcome.exit.rtlaunch_code
    return EXIT_REFUSED if code is None else code


def perform(
    options: Options,
    command: Sequence[str],
    findings: tuple[Finding, ...],
    inherited: inherit.Inherited,
    voice: Voice,
    story: Story,
) -> None:
    """Launch ``command`` and write the report, of a Refusal too, which is raised again."""
    voice.configure(options)
    for finding in findings:
        voice.finding(finding)
    try:
        voice.open_report()
        if findings and voice.report is not None:
            story.outcome.findings = findings
        failure = attempt(options, command, inherited, voice, story)
        if failure:
            raise Refusal(failure)
    except Refusal as refusal:
        write_refusal(story.outcome, refusal.finding)
        raise
    finally:
        if voice.report is not None:
            voice.close_report()


def attempt(
    options: Options,
    command: Sequence[str],
    inherited: inherit.Inherited,
    voice: Voice,
    story: Story,
) -> Finding | None:
    """Launch the command; return what the kernel denied us that we cannot do without.

    As a finding: the error would keep all that its frames hold, descriptors as well.
    """
    try:
        launch(options, command, inherited, voice, story)
    except DENIED as error:
        return denied(error)
    return None


def denied(error: BaseException) -> Finding:
    """Return the finding for an error that nobody expected; nothing may be imported for it."""
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    where = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else ""
    return Finding(
        "launch-failed",
        f"rtlaunch itself cannot go on: {str(error) or 'no memory is left'}",
        why="the limits that a program is given hold for who starts it and stays beside it, too",
        values={"errno": getattr(error, "errno", None), "where": where},
    )


def write_refusal(outcome: Outcome, finding: Finding) -> None:
    """Write a refusal into the outcome."""
    from rtlaunch.core.outcome import BY_RTLAUNCH, REFUSED

    outcome.state, outcome.exit.by = REFUSED, BY_RTLAUNCH
    outcome.exit.rtlaunch_code = finding.exit_code
    outcome.findings = (*outcome.findings, finding)


def order(
    raw: settings.Raw, typed: Sequence[str], environ: Mapping[str, str]
) -> tuple[Options, list[str], tuple[Finding, ...]]:
    """Return options, command and warnings from command line, environment and profile.

    Refusal for a value that is none, and for a profile that cannot be used.
    """
    name = settings.profile_asked(raw, environ)
    profile = None
    if name:
        from rtlaunch.linux import profiles

        profile = profiles.load(name, environ, os.geteuid())
    resolved = settings.resolve(raw, environ, profile)
    command = settings.command_asked(typed, profile)
    return resolved.options, list(command), resolved.findings


def no_proc() -> Finding:
    """Return the finding for a machine without /proc."""
    return Finding(
        "proc-missing",
        "/proc is not mounted",
        why="without the kernel's books nothing can be proven",
    )
