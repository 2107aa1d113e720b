"""The launch path's own parser: words of the command line in, texts by option out.

It knows the shape of a line and no values (:mod:`rtlaunch.core.settings` reads those),
and says for each line that is wrong how to write it. The typer command takes the same
options from the same table; a property test holds the two equal.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.options import ACTION, BY_NAME, SETTINGS, SWITCH, TABLE, Row
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtlaunch.core.settings import Raw

PROGRAM = "rtlaunch"
RUN, HELP, VERSION, COMPLETION = "run", "help", "version", "completion"
FIT = "fit"
WITH_RUN_OPTIONS = ("plan", "check", FIT)  # their words are those of a run, and some of their own
SUBCOMMANDS = (*WITH_RUN_OPTIONS, "explain", "hugepages", "status", "lock", "unlock")
RESERVED = ("watch", "verify")  # of later versions
COMPLETIONS = ("--install-completion", "--show-completion")  # typer's own
COMPLETE_VARIABLE = "_RTLAUNCH_COMPLETE"  # set by the shell's completion script, also typer's

JSON = Row("json", ACTION, "", "", "as JSON", "")
FOR = Row("for", "slack", "TIME", "none", "time to measure; then SIGTERM ends the program", "")
WRITE = Row("write", "text", "FILE.toml", "none", "profile to make of what was measured", "")
ENGINES = ("systemd", "docker", "compose", "kubernetes", "limits.d", "env")
AS = Row("as", "choice", "ENGINE", "none", f"in the words of {', '.join(ENGINES)}", "",
         choices=ENGINES)  # fmt: skip
OWN_OPTIONS = {FIT: (FOR, WRITE, JSON), "plan": (AS, JSON)}
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


class Line(Record):
    """A command line taken apart.

    ``verb`` is ``run``, ``help``, ``version``, ``completion`` or a subcommand; ``raw`` the
    texts by option; ``command`` the target's words, or those of a subcommand without
    options of a run.
    """

    verb: str
    raw: Raw = {}  # noqa: RUF012  (never written to: records are not changed)
    command: tuple[str, ...] = ()


class Scan(Record):
    """The options at the front of a line: their texts, and where they end.

    ``end`` is the index of the first word that is no option, the ``--`` itself if there is
    one; ``swallowed`` an option that took a ``--`` as its value, with its metavar.
    """

    raw: Raw
    end: int
    swallowed: str = ""


def spellings(rows: Sequence[Row]) -> dict[str, tuple[Row, str]]:
    """Map every spelling (``--quiet``, ``--no-quiet``, ``-q``) to its row and a switch's text."""
    spelled: dict[str, tuple[Row, str]] = {}
    for row in rows:
        spelled[row.long] = (row, "true")
        if row.short:
            spelled[f"-{row.short}"] = (row, "true")
        if row.kind == SWITCH:
            spelled[f"--no-{row.name}"] = (row, "false")
    return spelled


SPELLED = spellings(TABLE)


def split(words: Sequence[str]) -> Line:
    """Take ``words`` (without the program's name) apart.

    Raises Refusal ``usage`` with the corrected line where one can be given.
    """
    first = words[0] if words else ""
    if first in SUBCOMMANDS:
        return _split_subcommand(first, words)
    if first in RESERVED:
        raise _usage(f"the subcommand {first} is not in this version yet")
    if first in COMPLETIONS:
        return Line(COMPLETION, {}, tuple(words))
    scan = _scan(words, 0, SPELLED)
    for verb in (HELP, VERSION):
        if verb in scan.raw:
            return Line(verb, scan.raw, tuple(words[scan.end :]))
    return Line(RUN, scan.raw, _command(words, 0, scan))


def _split_subcommand(verb: str, words: Sequence[str]) -> Line:
    """Take apart a line that begins with a subcommand."""
    if verb not in WITH_RUN_OPTIONS:
        return Line(verb, {}, tuple(words[1:]))
    scan = _scan(words, 1, spellings((*SETTINGS, BY_NAME[HELP], *OWN_OPTIONS.get(verb, (JSON,)))))
    if HELP in scan.raw:
        return Line(verb, scan.raw, ())
    return Line(verb, scan.raw, _command(words, 1, scan))


def _scan(words: Sequence[str], start: int, spelled: Mapping[str, tuple[Row, str]]) -> Scan:
    """Read options from ``words[start:]`` up to the first word that is none."""
    raw: dict[str, tuple[str, ...]] = {}
    at, swallowed = start, ""
    while at < len(words) and words[at] != "--" and words[at][:1] == "-" and words[at] != "-":
        for row, text in _options_in(words, at, spelled):
            raw[row.name] = (*raw.get(row.name, ()), text) if row.repeatable else (text,)
            if row.takes_value and "=" not in words[at]:
                at += 1
                swallowed = f"{row.long} {row.metavar}" if text == "--" else swallowed
        at += 1
    return Scan(raw, at, swallowed)


def _options_in(
    words: Sequence[str], at: int, spelled: Mapping[str, tuple[Row, str]]
) -> list[tuple[Row, str]]:
    """Return the option of one word with its text; several if it is ``-qv``."""
    word = words[at]
    if word[:2] != "--":
        return [_look_up(words, at, f"-{letter}", spelled) for letter in word[1:]]
    name, equals, value = word.partition("=")
    row, text = _look_up(words, at, name, spelled)
    if not row.takes_value:
        if equals:
            from rtlaunch.core.units import shown

            what = f"{name} takes no value: {shown(value)} is too much"
            raise _usage(what, _with(words, at, name))
        return [(row, text)]
    if equals:
        return [(row, value)]
    if at + 1 == len(words):
        raise _usage(f"{name} needs a value: {name} {row.metavar}")
    return [(row, words[at + 1])]


def _look_up(
    words: Sequence[str], at: int, name: str, spelled: Mapping[str, tuple[Row, str]]
) -> tuple[Row, str]:
    """Return what ``name`` stands for; Refusal with the near name if nothing."""
    if name in spelled:
        return spelled[name]
    raise _unknown_option(words, at, name, spelled)


def _unknown_option(
    words: Sequence[str], at: int, name: str, spelled: Mapping[str, tuple[Row, str]]
) -> Refusal:
    """Say which option was probably meant."""
    from rtlaunch.core.units import near, shown

    longs = [known for known in spelled if known[:2] == "--"]
    meant = near(name, longs) if name[:2] == "--" else ""
    if not meant:
        printable = name if SAFE.issuperset(name) else shown(name)
        return _usage(f"unknown option {printable}", f"{PROGRAM} {BY_NAME[HELP].long}")
    what = f"unknown option {name}; did you mean {meant}?"
    return _usage(what, _with(words, at, meant + words[at][len(name) :]))


def _command(words: Sequence[str], start: int, scan: Scan) -> tuple[str, ...]:
    """Return what follows ``--``; empty if the line ends with its options."""
    rest = tuple(words[scan.end :])
    if not rest and not scan.swallowed:
        return ()
    if not rest or rest[0] != "--":
        raise _missing_dashes(words, start, scan)
    if set(rest) == {"--"}:
        verb = quoted((PROGRAM, *words[:start]))
        raise _usage(f"no command after --: {verb} [OPTIONS] -- COMMAND [ARG...]")
    if rest[1] == "--":
        raise _usage("-- is there twice", _with(words, scan.end))
    return rest[1:]


def _missing_dashes(words: Sequence[str], start: int, scan: Scan) -> Refusal:
    """Say where ``--`` belongs, or that an option took it, or that a subcommand goes first."""
    options, rest = words[: scan.end], words[scan.end :]
    if scan.swallowed:
        option = scan.swallowed.partition(" ")[0]
        return _usage(f"{option} took -- as its value: {scan.swallowed} -- COMMAND [ARG...]")
    if not start and rest[0] in SUBCOMMANDS and options:
        line = quoted((PROGRAM, rest[0], *options, *rest[1:]))
        return _usage(f"the options of {rest[0]} come after it:  {line}")
    line = quoted((PROGRAM, *options, "--", *rest))
    return _usage(f"put -- before the command:  {line}")


def _usage(what: str, try_now: str = "") -> Refusal:
    return Refusal(Finding("usage", what, try_now=try_now))


def _with(words: Sequence[str], at: int, *instead: str) -> str:
    """Return the line that has ``instead`` for the word at index ``at``."""
    return quoted((PROGRAM, *words[:at], *instead, *words[at + 1 :]))


def quoted(words: Sequence[str]) -> str:
    """Write ``words`` as a shell takes them, quoting only where it is needed."""
    return " ".join(
        word if word and SAFE.issuperset(word) else "'" + word.replace("'", "'\"'\"'") + "'"
        for word in words
    )
