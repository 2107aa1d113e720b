"""The launch path's parser: what is whose on a command line, and how a wrong one is put right."""

import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import argv
from rtlaunch.core.findings import Refusal
from rtlaunch.core.options import TABLE


def refused(*words):
    """The finding of a line that must be refused."""
    with pytest.raises(Refusal) as caught:
        argv.split(words)
    assert caught.value.finding.code == "usage"
    assert caught.value.finding.exit_code == 125
    return caught.value.finding


# --- what is whose ---------------------------------------------------------------------------


def test_what_follows_the_dashes_is_the_targets():
    """Every word of it, whatever it looks like, a further -- included."""
    line = argv.split(["--", "./app", "--nice", "5", "-h", "--", "plan"])
    assert line == argv.Line("run", {}, ("./app", "--nice", "5", "-h", "--", "plan"))


@pytest.mark.parametrize("words", [("--nice", "-5"), ("--nice=-5",)])
def test_a_negative_value_is_a_value(words):
    """--nice -5 and --nice=-5 are the same."""
    assert argv.split([*words, "--", "app"]).raw == {"nice": ("-5",)}


def test_dashes_that_are_an_options_value_end_nothing():
    """The first -- that is not an option's value does."""
    line = argv.split(["--report", "--", "--", "app"])
    assert line == argv.Line("run", {"report": ("--",)}, ("app",))


def test_an_equals_sign_splits_once_and_the_value_may_be_empty():
    """A value may have equals signs of its own."""
    assert argv.split(["--limit=nofile=5", "--report=", "--", "app"]).raw == {
        "limit": ("nofile=5",), "report": ("",),
    }  # fmt: skip


def test_the_last_of_an_option_counts_and_repeatable_ones_add_up():
    """As every launcher has it."""
    line = "--nice 1 --nice 2 --limit cpu=1 --limit cpu=2 --quiet --no-quiet -- app"
    assert argv.split(line.split()).raw == {
        "nice": ("2",), "limit": ("cpu=1", "cpu=2"), "quiet": ("false",),
    }  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_switch_can_be_turned_off(row):
    """Each has its --no-; what takes a value, and help and version, have none."""
    if row.kind == "switch":
        assert argv.split([f"--no-{row.name}", "--", "app"]).raw == {row.name: ("false",)}
    else:
        assert f"--no-{row.name}" not in argv.SPELLED


def test_short_switches_can_stand_together():
    """-qv is -q -v."""
    assert argv.split(["-qv", "--", "app"]).raw == {"quiet": ("true",), "verbose": ("true",)}


@pytest.mark.parametrize(
    "words", [["-h"], ["--help"], ["-q", "-h", "./app"], ["--help", "--", "x"]]
)
def test_help_is_help_wherever_it_stands_before_the_command(words):
    """Even on a line that would be wrong without it."""
    assert argv.split(words).verb == "help"


def test_version_with_verbose_keeps_the_switch():
    """--version -v tells more than --version."""
    line = argv.split(["-V", "-v"])
    assert (line.verb, line.raw["verbose"]) == ("version", ("true",))


def test_options_without_a_command_leave_it_to_the_profile():
    """So that ``rtlaunch --profile robot`` starts the profile's own command."""
    assert argv.split(["--profile", "robot"]) == argv.Line("run", {"profile": ("robot",)}, ())


def test_a_subcommand_takes_the_options_of_a_run_behind_it():
    """What ``plan`` shows is what the same words without it would do."""
    line = argv.split(["plan", "--json", "--memlock", "8M", "--", "./app", "-x"])
    raw = {"json": ("true",), "memlock": ("8M",)}
    assert line == argv.Line("plan", raw, ("./app", "-x"))


def test_a_program_called_like_a_subcommand_runs_behind_the_dashes():
    """There is no name that cannot be launched."""
    assert argv.split(["--", "plan"]) == argv.Line("run", {}, ("plan",))


def test_check_needs_no_command():
    """Without one it looks at the host."""
    assert argv.split(["check"]) == argv.Line("check", {}, ())


def test_explain_takes_its_words_as_they_are():
    """They are codes of findings, not options of a run."""
    assert argv.split(["explain", "memlock-limit"]).command == ("memlock-limit",)


# --- lines that are wrong --------------------------------------------------------------------

CORRECTED = [
    ("./app -x", "put -- before the command:  rtlaunch -- ./app -x"),
    ("--nice -5 ./app", "put -- before the command:  rtlaunch --nice -5 -- ./app"),
    ("-q './my app' 'a;b'", "put -- before the command:  rtlaunch -q -- './my app' 'a;b'"),
    ("./app -- x", "put -- before the command:  rtlaunch -- ./app -- x"),
    ("-", "put -- before the command:  rtlaunch -- -"),
    ("plan ./app", "put -- before the command:  rtlaunch plan -- ./app"),
    ("-q plan -- ./app", "the options of plan come after it:  rtlaunch plan -q -- ./app"),
]


@pytest.mark.parametrize(("line", "message"), CORRECTED)
def test_a_line_that_is_not_understood_is_printed_corrected(line, message):
    """Quoted, with all options kept."""
    assert refused(*shlex.split(line)).what == message


@pytest.mark.parametrize(("line", "message"), CORRECTED)
def test_the_corrected_line_is_right(line, message):
    """Copied into a shell, it is taken."""
    assert refused(*shlex.split(line)).what == message
    argv.split(shlex.split(message.partition(":  ")[2])[1:])


WRONG = [
    ("--memlok 8M -- app", "unknown option --memlok; did you mean --memlock?",
     "rtlaunch --memlock 8M -- app"),
    ("--memlok=8M -- app", "unknown option --memlok; did you mean --memlock?",
     "rtlaunch --memlock=8M -- app"),
    ("--mem 8M -- app", "unknown option --mem; did you mean --memlock?",
     "rtlaunch --memlock 8M -- app"),
    ("--xyzzy -- app", "unknown option --xyzzy", "rtlaunch --help"),
    ("--\x1b[1m -- app", "unknown option '--\\x1b[1m'", "rtlaunch --help"),
    ("-x -- app", "unknown option -x", "rtlaunch --help"),
    ("-qx -- app", "unknown option -x", "rtlaunch --help"),
    ("-q=1 -- app", "unknown option -=", "rtlaunch --help"),
    ("--quiet=1 -- app", "--quiet takes no value: '1' is too much", "rtlaunch --quiet -- app"),
    ("--nice", "--nice needs a value: --nice N", ""),
    ("--nice -- app", "--nice took -- as its value: --nice N -- COMMAND [ARG...]", ""),
    ("--report --", "--report took -- as its value: --report PATH|fd:N -- COMMAND [ARG...]", ""),
    ("--", "no command after --: rtlaunch [OPTIONS] -- COMMAND [ARG...]", ""),
    ("plan --", "no command after --: rtlaunch plan [OPTIONS] -- COMMAND [ARG...]", ""),
    ("-- --", "no command after --: rtlaunch [OPTIONS] -- COMMAND [ARG...]", ""),
    ("-q -- -- app", "-- is there twice", "rtlaunch -q -- app"),
    ("watch 12", "the subcommand watch is not in this version yet", ""),
    ("plan -V -- app", "unknown option -V", "rtlaunch --help"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "what", "try_now"), WRONG)
def test_a_wrong_line_is_refused_by_name(line, what, try_now):
    """The message names the word, and the line that would be right if there is one."""
    finding = refused(*line.split())
    assert (finding.what, finding.try_now) == (what, try_now)


@given(st.lists(st.text(min_size=0, max_size=6)))
def test_quoted_words_are_the_same_words_to_a_shell(words):
    """Whatever they contain."""
    assert shlex.split(argv.quoted(words)) == words


@given(
    st.lists(st.text(max_size=12) | st.sampled_from(["--", "-", "-q", "--nice", "plan", "--no"]))
)
def test_any_line_is_taken_or_refused_as_usage(words):
    """No line makes the parser do anything else."""
    try:
        argv.split(words)
    except Refusal as refusal:
        assert refusal.finding.code == "usage"


def test_parsing_imports_nothing_that_is_slow():
    """A launch pays for these modules before its target runs."""
    slow = "typing re enum collections contextlib signal threading json dataclasses functools"
    code = (
        f"import sys; sys.path.insert(0, {sys.path[0]!r}); before = set(sys.modules)\n"
        "from rtlaunch.core import argv, settings\n"
        "line = argv.split(['--limit', 'nofile=8', '--nice=1', '--', 'app'])\n"
        "settings.resolve(line.raw, {'RTLAUNCH_ARM': '2s'}, None)\n"
        f"print(*(set({slow.split()!r}) & (set(sys.modules) - before)))"
    )
    run = [sys.executable, "-I", "-S", "-c", code]
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == "\n"
