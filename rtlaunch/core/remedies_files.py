"""The remedies for a command that execve(2) does not take, by the rule that it broke.

Part of :mod:`rtlaunch.core.remedies`, which says what a row is. Here the code
alone would mislead: chmod helps no directory, and PATH no path with a slash.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.remedies_parts import Row

NOT_THERE: Row = (
    "the path as it was given: for one with a slash PATH is not searched",
    "namei -l %(path)s",
    "correct it where it is written; a service, chroot or container must have it inside",
)

# The rule that was found broken before execve (core/broken.py), or else the errno of that.
BY_RULE: dict[tuple[str, str], Row] = {
    ("command-not-executable", "lookup"): (
        "a directory or a link on the way to it",
        "namei -l %(path)s",
        "chmod +x on the directory that namei shows without x, or another path",
    ),
    ("command-not-executable", "regular"): (
        "the command line: a program is a regular file",
        "ls -ld %(path)s",
        "name the program itself, not what holds it",
    ),
    ("command-not-executable", "E2BIG"): (
        "the arguments and the environment of this launch, against RLIMIT_STACK",
        "env | wc -c; ulimit -s; getconf ARG_MAX",
        "fewer variables where it is started (env -u NAME), arguments in a file, or a larger "
        "stack limit",
    ),
    ("command-not-executable", "ETXTBSY"): (
        "who has the file open for writing",
        "fuser -v %(path)s",
        "wait for the copy or build to end; install by mv, which puts a new file in its place",
    ),
}


def for_file(code: str, values: Mapping[str, object]) -> Row | None:
    """Return the row for a command that was refused by a rule of its own; None for any other."""
    path = str(values.get("path", ""))
    if code == "command-not-found" and "/" in path:
        return NOT_THERE
    keys = ((code, str(values.get(name))) for name in ("rule", "errno"))
    return next((BY_RULE[key] for key in keys if key in BY_RULE), None)
