"""Everything on the command line but a launch: help, completion, version, plan, check, explain.

The options of a run are made from the table in :mod:`rtlaunch.core.options`, never
written here. The caller had the line judged by :mod:`rtlaunch.core.argv`, so that a
wrong one gets the same words everywhere; typer renders, completes and dispatches. A
launch must not import this module: typer costs more than five bare interpreters.
"""

from __future__ import annotations

import inspect
import io
import keyword
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from rtlaunch.core import argv
from rtlaunch.core.findings import CODES, EXIT_REFUSED, Finding, Refusal
from rtlaunch.core.options import BY_NAME, SETTINGS, SWITCH, Row
from rtlaunch.linux import profiles

try:
    import typer
except ImportError as error:
    raise Refusal(
        Finding(
            "launch-failed",
            f"typer, which renders the help, cannot be imported: {error}",
            try_now="pip install --force-reinstall rtlaunch",
        )
    ) from None

# Part of typer since 0.26, yet not among the names that it exports.
from typer._click.exceptions import ClickException

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rtlaunch.core.settings import Raw

HELP = "Start COMMAND so that it takes no page fault once it runs, prove that, and watch it."
EPILOG = (
    "Exit code: COMMAND's own, or 128+N if signal N ended it; 123: a watched limit was exceeded; "
    "125: refused, see rtlaunch explain CODE; 126: not executable; 127: not found."
)
SETTINGS_HELP = {"help_option_names": [f"-{BY_NAME['help'].short}", BY_NAME["help"].long]}
OPTIONS_FIRST = {**SETTINGS_HELP, "allow_interspersed_args": False}


def main(words: Sequence[str]) -> int:
    """Run any command line that is not a launch; return its exit status.

    Raises Refusal for what typer or a subcommand refuses. Output that cannot be written
    is 125, without a word: there may be nowhere to say it.
    """
    nowhere = None
    if sys.stdout is None:  # closed when we were started
        sys.stdout = nowhere = io.StringIO()
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except OSError:
        _abandon_stdout()
        return EXIT_REFUSED
    return EXIT_REFUSED if nowhere is not None and nowhere.tell() else status


def typer_parse(words: Sequence[str]) -> tuple[Raw, tuple[str, ...]]:
    """Take the line of a run apart as typer does: texts by option, and the command.

    Raises Refusal ``usage`` where typer refuses, or where ``--`` is missing or doubled.
    """
    raw, rest = _typer_options(words)
    if not rest and "--" not in words:
        return raw, ()
    end = len(words) - len(rest) - 1
    # Typer does not tell a -- that ends the options from one that is the last one's value.
    ended = end >= 0 and words[end] == "--" and _parses_alone(words[:end])
    if not rest or rest[0] == "--" or not ended:
        raise Refusal(Finding("usage", "no command, or no -- before it, or two"))
    return raw, rest


# --- typer -----------------------------------------------------------------------------------


def _dispatch(words: Sequence[str]) -> int:
    """Let typer run the line; sys.exit by its completion becomes a status too."""
    try:
        status = _command().main(
            list(words), prog_name=argv.PROGRAM, standalone_mode=False, windows_expand_args=False
        )
    except SystemExit as leaving:
        status = EXIT_REFUSED if leaving.code else 0
    except ClickException as error:
        raise _usage(error) from None
    return int(status or 0)


def _abandon_stdout() -> None:
    """Point stdout at /dev/null, so that the interpreter's last flush cannot fail again."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@cache
def _command() -> Any:
    """Build the application: the options of a run in front, the subcommands behind."""
    app = typer.Typer(
        name=argv.PROGRAM,
        help=HELP,
        epilog=EPILOG,
        context_settings=OPTIONS_FIRST,
        invoke_without_command=True,
        subcommand_metavar="-- COMMAND [ARG...]",
        pretty_exceptions_enable=False,
    )
    app.callback()(_taking(_front, (*SETTINGS, BY_NAME["version"])))
    for function in (_plan, _check, _fit):
        verb = function.__name__[1:]
        own = argv.OWN_OPTIONS.get(verb, (argv.JSON,))
        with_run_options = _taking(function, (*SETTINGS, *own), _target())
        app.command(verb, context_settings=OPTIONS_FIRST)(with_run_options)
    for ordinary in (_explain, _hugepages, _status, _lock, _unlock):
        app.command(ordinary.__name__[1:], context_settings=SETTINGS_HELP)(ordinary)
    return typer.main.get_command(app)


def _taking(
    function: Callable[..., int], rows: Sequence[Row], *more: inspect.Parameter
) -> Callable[..., int]:
    """Give ``function`` the signature that has a typer option for each row, and ``more``."""

    def call(**values: object) -> int:
        return function(values)

    made = cast("Any", call)
    parameters = [*map(_parameter, rows), *more]
    made.__signature__ = inspect.Signature(parameters)
    made.__annotations__ = {item.name: item.annotation for item in parameters}
    made.__doc__ = function.__doc__
    return call


def _parameter(row: Row) -> inspect.Parameter:
    """Make the keyword parameter of one row, as typer reads it."""
    negative = f"/--no-{row.name}" if row.kind == SWITCH else ""
    short = (f"-{row.short}",) if row.short else ()
    option = typer.Option(
        None,
        row.long + negative,
        *short,
        metavar=row.metavar or None,
        help=row.help + (f" (default {row.default})" if row.takes_value else ""),
        show_default=False,
        rich_help_panel=row.section or None,
        autocompletion=_completer(row),
    )
    kinds: dict[bool, Any] = {True: str | None, False: bool | None}
    annotation = list[str] | None if row.repeatable else kinds[row.takes_value]
    name = row.field + "_" * keyword.iskeyword(row.field)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation
    )


def _target() -> inspect.Parameter:
    """Make the parameter that takes the words after ``--``."""
    return inspect.Parameter(
        "command",
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Argument(None, metavar="-- COMMAND [ARG...]", show_default=False),
        annotation=list[str] | None,
    )


def _completer(row: Row) -> Callable[[str], list[str]] | None:
    """Return what completes the row's values in a shell, None where nothing is known."""
    known: dict[str, Callable[[], Sequence[str]]] = {
        "choice": lambda: row.choices,
        "children": lambda: row.choices,
        "codes": lambda: [code for code, (_, _, waivable) in CODES.items() if waivable],
        "text": lambda: profiles.names(os.environ),
    }
    words = known.get(row.kind)
    if words is None:
        return None
    return lambda incomplete: [word for word in words() if word.startswith(incomplete)]


def _raw(values: Mapping[str, object], rows: Sequence[Row]) -> Raw:
    """Turn typer's values into texts by option, as the launch path's parser gives them."""
    raw: dict[str, tuple[str, ...]] = {}
    for row in rows:
        value = values.get(row.field)
        if isinstance(value, bool):
            raw[row.name] = ("true" if value else "false",)
        elif isinstance(value, str):
            raw[row.name] = (value,)
        elif isinstance(value, list | tuple) and value:
            raw[row.name] = tuple(value)
    return raw


def _typer_options(words: Sequence[str]) -> tuple[Raw, tuple[str, ...]]:
    """Parse by typer alone: the texts by option, and the words left over."""
    try:
        context = _command().make_context(argv.PROGRAM, list(words))
    except ClickException as error:
        raise _usage(error) from None
    rest = (*context._protected_args, *context.args)
    return _raw(context.params, (*SETTINGS, BY_NAME["version"])), rest


def _usage(error: ClickException) -> Refusal:
    return Refusal(Finding("usage", error.format_message(), try_now=f"{argv.PROGRAM} --help"))


def _parses_alone(words: Sequence[str]) -> bool:
    """Whether typer takes ``words`` as options and nothing is left over."""
    try:
        return not _typer_options(words)[1]
    except Refusal:
        return False


# --- the commands ----------------------------------------------------------------------------


def _front(values: Mapping[str, object]) -> int:
    """Start COMMAND so that it takes no page fault once it runs, prove that, and watch it."""
    if values["version"]:
        from rtlaunch.cli import version

        return version.run(bool(values["verbose"]))
    return 0


def _plan(values: Mapping[str, object]) -> int:
    """Show what would be done, and every finding, without doing it: 0 would start, 125 not.

    With --as the same plan in the words of ENGINE, for it to do.
    """
    raw, command = _raw(values, SETTINGS), _words(values["command"])
    environ, as_json = dict(os.environ), bool(values["json"])
    if values["as_"] is not None:
        from rtlaunch.cli import rendering

        return rendering.run(str(values["as_"]), raw, command, environ, as_json)
    from rtlaunch.cli import plan

    return plan.run(raw, command, environ, as_json)


def _check(values: Mapping[str, object]) -> int:
    """Say what on this host, for this user or COMMAND, stands against locking: 0 or 125."""
    from rtlaunch.cli import check

    raw, command = _raw(values, SETTINGS), _words(values["command"])
    return check.run(raw, command or None, dict(os.environ), bool(values["json"]))


def _fit(values: Mapping[str, object]) -> int:
    """Run COMMAND unlocked, measure what it takes, and say how to run it locked.

    Its exit code is COMMAND's own. What was measured goes to stderr, with --json to stdout.
    """
    return 0  # help and completion are typer's; the run itself is a launch (cli.launch)


def _explain(
    code: str = typer.Argument(None, metavar="CODE", help="a finding's code", show_default=False),
) -> int:
    """Explain a finding: what it means, why it matters, what to do; without CODE list them."""
    from rtlaunch.cli import explain

    return explain.run(code)


PID = typer.Argument(metavar="PID", help="a process that runs", show_default=False)
AS_JSON = typer.Option(False, "--json", help="as JSON, in the report's schema")
LOCK, STACK = BY_NAME["lock"], BY_NAME["prefault-stack"]


def _status(pid: str = PID, json: bool = AS_JSON) -> int:
    """Say what is locked of a running process, what is not and why: 0 locked, 1 not."""
    from rtlaunch.cli import running

    return running.status(pid, json)


def _lock(
    pid: str = PID,
    lock: str = typer.Option(LOCK.default, LOCK.long, metavar=LOCK.metavar, help=LOCK.help),
    prefault_stack: str = typer.Option(
        STACK.default, STACK.long, metavar=STACK.metavar, help="main stack touched"
    ),
    json: bool = AS_JSON,
) -> int:
    """Lock a running process, by stopping one of its threads for a moment, and prove it."""
    from rtlaunch.cli import running

    return running.lock(pid, lock, prefault_stack, json)


def _unlock(pid: str = PID, json: bool = AS_JSON) -> int:
    """Unlock a running process, by the same means."""
    from rtlaunch.cli import running

    return running.unlock(pid, json)


def _hugepages(
    action: str = typer.Argument(
        "list", metavar="[list|reserve|release|gc]", help="what to do", show_default=False
    ),
    what: list[str] = typer.Argument(  # noqa: B008  (how typer takes them)
        None, metavar="[SIZE:COUNT[@NODE]]...", help="pages to reserve", show_default=False
    ),
    json: bool = typer.Option(False, argv.JSON.long, help="list as JSON", show_default=False),
) -> int:
    """Show pools and leases of huge pages; reserve some, release these, collect the dead's."""
    from rtlaunch.cli import hugepages

    return hugepages.run(action, _words(what), dict(os.environ), json)


def _words(given: object) -> tuple[str, ...]:
    return tuple(given) if isinstance(given, list | tuple) else ()
