"""The launch path's parser and the typer command take the same lines, with the same values."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtlaunch.cli import app
from rtlaunch.core import argv
from rtlaunch.core.findings import Refusal
from rtlaunch.core.options import SETTINGS

# Help and completion act when they are seen, and typer leaves the parsing there.
ACTING = ("-h", "--help", "-V", "--version", *argv.COMPLETIONS)
SPELLINGS = [word for word in argv.SPELLED if word not in ACTING]
VALUES = ["", "-5", "8M", "-", "--", "=", "a=b", "none", "--quiet", "--nice", "x y", "é", "\udcff"]

words = st.one_of(
    st.sampled_from(SPELLINGS),
    st.sampled_from(["--", "--", "app", "-q", "-v", "-qv", "-qvx", "-", "---", "-=", "--=x"]),
    st.sampled_from(VALUES),
    st.builds("{}={}".format, st.sampled_from(SPELLINGS), st.sampled_from(VALUES)),
    st.builds(lambda word, end: word[:-end], st.sampled_from(SPELLINGS), st.integers(1, 3)),
    st.text(st.characters(blacklist_characters="hV"), max_size=5),
)


def as_launched(line):
    """What the launch path makes of a line: texts and command, or None if it is refused."""
    try:
        parsed = argv.split(line)
    except Refusal:
        return None
    return (parsed.raw, parsed.command) if parsed.verb == argv.RUN else None


def as_typed(line):
    """What typer makes of it."""
    try:
        return app.typer_parse(line)
    except Refusal:
        return None


def is_a_run(line):
    """Whether nothing in the line acts by being seen, and its first word is no subcommand."""
    first = line[0] if line else ""
    return first not in (*argv.SUBCOMMANDS, *argv.RESERVED) and not set(ACTING) & set(line)


@settings(max_examples=600)
@given(st.lists(words, max_size=8))
@example(["--nice", "-5", "--", "app"])
@example(["--nice", "--", "app"])
@example(["--report", "--", "--", "app"])
@example(["--report", "--", "-q"])
@example(["--", "--", "app"])
@example(["-q", "app", "--", "x"])
@example([])
def test_both_parsers_agree_on_any_line(line):
    """Both take it with equal texts and an equal command, or both refuse it."""
    if is_a_run(line):
        assert as_launched(line) == as_typed(line)


@settings(max_examples=100)
@given(st.lists(st.sampled_from(SETTINGS), max_size=6), st.data())
def test_both_parsers_take_every_right_line(rows, data):
    """Lines of options that exist, each with a value, are taken by both: not only refused alike."""
    line = []
    for row in rows:
        line += [row.long, data.draw(st.sampled_from(VALUES))] if row.takes_value else [row.long]
    line += ["--", "app", "-x"]
    taken = as_launched(line)
    assert taken is not None
    assert taken == as_typed(line)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_typer_knows_every_row(row):
    """An option of the table is one of the typer command, and a switch's --no- too."""
    line = [row.long, "x"] if row.takes_value else [f"--no-{row.name}"]
    raw, command = app.typer_parse([*line, "--", "app"])
    assert raw == {row.name: ("x" if row.takes_value else "false",)}
    assert command == ("app",)
