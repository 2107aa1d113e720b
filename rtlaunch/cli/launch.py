"""The launch path: from the words of a command line to an exit status, with nothing heavy imported.

Here alone findings become messages and exit codes. Whatever is no plain
launch (help, version, subcommands) is typer's, imported only then.
"""

from __future__ import annotations

import gc
import os

from rtlaunch.cli.voice import STDERR, Voice
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
    try:
        perform(options, command, findings, inherited, voice, story)
        voice.summary()
    except ImportError as error:
        if story.outcome.exit.rtlaunch_code is None:
            raise
        say_taken_away(error)
    code = story.outcome.exit.rtlaunch_code
    return EXIT_REFUSED if code is None else code


def say_taken_away(error: ImportError) -> None:
    """Say that there is no report, in words that are here: those for a finding may be gone too.

    It takes an installation without a pack (docs/decisions/0013), removed while the program ran.
    """
    line = (
        "rtlaunch: the report is not written: rtlaunch was taken away while the program ran"
        f" ({error}); the exit status is the program's own\n"
    )
    try:
        os.write(STDERR, line.encode("utf-8", "surrogateescape"))
    except OSError:
        return


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
        launch(options, command, inherited, voice, story)
    except Refusal as refusal:
        write_refusal(story.outcome, refusal.finding)
        raise
    finally:
        if voice.report is not None:
            voice.close_report()


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
