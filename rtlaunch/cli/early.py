"""The report of a launch that was refused before its options could be read.

A line, an environment or a profile that makes no sense may still say where the report goes. What
only might be ours is left alone: a wrong guess would overwrite a file of the program's.
"""

from __future__ import annotations

import os

from rtlaunch.cli.launch import write_refusal
from rtlaunch.cli.report_file import ReportFile
from rtlaunch.core import argv, kinds
from rtlaunch.core.findings import Refusal
from rtlaunch.core.options import BY_NAME
from rtlaunch.core.record import replace
from rtlaunch.core.settings import profile_asked, read_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rtlaunch.cli.voice import Voice
    from rtlaunch.core.findings import Finding
    from rtlaunch.core.options import ReportTo
    from rtlaunch.core.settings import Raw

WANTED = ("report", "profile")


def report(words: Sequence[str], environ: Mapping[str, str], voice: Voice, why: Finding) -> None:
    """Write the report of a line that was refused; where it cannot be written that is said."""
    to = report_asked(words, environ)
    if to is None:
        return
    outcome = voice.story.outcome
    write_refusal(outcome, why)
    file = ReportFile(to)
    try:
        file.prepare(outcome)
    except Refusal as unwritable:
        voice.finding(replace(unwritable.finding, waived=True))
        return
    voice.report = file
    voice.close_report()


def report_asked(words: Sequence[str], environ: Mapping[str, str]) -> ReportTo | None:
    """Return where the report of a refused line goes; None where that cannot be told."""
    if words and words[0] in (*argv.SUBCOMMANDS, *argv.RESERVED, *argv.COMPLETIONS):
        return None
    raw = dict(readable(words))
    try:
        for texts in sources(raw, environ):
            if "report" in texts:
                to: ReportTo | None = kinds.read(BY_NAME["report"], texts["report"][-1])
                return to
    except (Refusal, ValueError):
        return None
    return None


def readable(words: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield --report and --profile with their values, as far as the words are surely options.

    An unknown option may have a value, if a ``--`` tells that the program is behind it.
    """
    rest = list(words[: words.index("--")] if "--" in words else words)
    while rest and rest[0][:1] == "-":
        name, equals, value = rest.pop(0).partition("=")
        row = BY_NAME.get(name[2:]) if name[:2] == "--" else None
        if row and row.takes_value and not equals and rest:
            equals, value = "=", rest.pop(0)
        elif row is None and "--" in words and rest and rest[0][:1] != "-":
            rest.pop(0)
        if row and row.name in WANTED and equals:
            yield row.name, (value,)


def sources(raw: Raw, environ: Mapping[str, str]) -> Iterator[Raw]:
    """Yield what each source asks for, the strongest first; Refusal for a profile that is none."""
    from rtlaunch.linux import profiles

    yield raw
    yield read_environment(environ)[0]
    name = profile_asked({name: texts for name, texts in raw.items() if name == "profile"}, environ)
    profile = profiles.load(name, environ, os.geteuid()) if name else None
    while profile:
        yield profile.texts
        profile = profile.parent
