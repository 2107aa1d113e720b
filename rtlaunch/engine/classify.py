"""Find out what a command is, before anything is changed: the file, its chain, its program.

It follows execvp(3) through PATH and execve(2) through interpreters, looking at
each file by :mod:`rtlaunch.engine.look`. It executes nothing and changes nothing.
What it says is a prediction: execve has the last word, and :func:`diagnose`
explains it.
"""

from __future__ import annotations

import os
from errno import EACCES, ELOOP, ENOENT, ENOEXEC

from rtlaunch.core.record import replace
from rtlaunch.core.target import (
    IMAGES_MAX,
    SEARCH_ON,
    SHELL,
    TEXT,
    Broken,
    Image,
    Target,
    User,
    candidates,
)
from rtlaunch.engine.look import Eye, look, make_eye

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.facts import Account
    from rtlaunch.core.findings import Finding


def classify(
    argv: tuple[str, ...], search_path: str | None, account: Account | None = None
) -> Target:
    """Look ``argv[0]`` up as execvp(3) would and follow it to the program that runs.

    ``search_path`` is PATH, None when unset. ``account`` is the user that the
    program will run as, None for ourselves. Nothing is raised for what files
    hold or lack: that is ``broken`` in the result.
    """
    eye = make_eye(_user_of(account))
    failed = []
    for path in candidates(argv[0], search_path):
        target = _follow(path, argv, eye)
        broken = target.broken
        if broken is None or broken.errno not in SEARCH_ON or "/" in argv[0]:
            return target
        failed.append((target, broken))
    return _unfound(argv, search_path, failed)


def diagnose(errno: int, target: Target, account: Account | None = None) -> Finding:
    """Explain why execve of ``target`` failed with ``errno``, by looking at it once more.

    Now modes are judged for ourselves too, so that the directory is named
    that may not be searched.
    """
    from rtlaunch.core.broken import broken_finding, errno_finding

    ourselves = User(os.geteuid(), frozenset((os.getegid(), *os.getgroups())))
    eye = make_eye(_user_of(account) or ourselves)
    again = _follow(target.path, target.argv, eye).broken
    if again and again.errno == errno:
        return broken_finding(target.command, again)
    images = tuple(image.path for image in target.images)
    return errno_finding(errno, target.command, target.path, images)


def _user_of(account: Account | None) -> User | None:
    if account is None:
        return None
    return User(account.uid, frozenset((account.gid, *account.groups)))


def _unfound(
    argv: tuple[str, ...], search_path: str | None, failed: list[tuple[Target, Broken]]
) -> Target:
    """Choose what to say of a search in vain: what was there and could not run, else nothing found.

    execvp(3) ends with EACCES once any directory gave it, and so exit code 126.
    """
    denied = [pair for pair in failed if pair[1].errno == EACCES]
    there = [pair for pair in denied + failed if pair[0].images or pair[1].rule != "lookup"]
    if there:
        return there[0][0]
    command = argv[0]
    what = f"is in no directory of PATH ({'unset' if search_path is None else search_path})"
    if denied:
        what += f"; {denied[0][1].path} {denied[0][1].what}"
    if os.path.isfile(command):
        what += f"; there is one in the current directory: write ./{command}"
    errno = EACCES if denied else ENOENT
    return Target(command, command, argv, (), Broken(errno, command, "lookup", what))


def _follow(path: str, argv: tuple[str, ...], eye: Eye) -> Target:
    """Follow ``path`` through interpreters to the program, or to what breaks the chain."""
    images: list[Image] = []
    current, through = path, ""
    while True:
        seen = look(current, eye)
        if isinstance(seen, Image) and images:
            seen = _as_interpreter(seen, len(images))
        if isinstance(seen, Broken):
            broken = seen if seen.through else replace(seen, through=through)
            return Target(argv[0], path, argv, tuple(images), broken)
        if seen.kind == TEXT:
            return _by_shell(seen, argv, eye)
        images.append(seen)
        if not seen.runs_by_another:
            return Target(argv[0], path, argv, tuple(images))
        current, through = seen.interpreter, current


def _as_interpreter(image: Image, depth: int) -> Image | Broken:
    """Judge a file that another one names as its interpreter, ``depth`` files down the chain."""
    if depth >= IMAGES_MAX:
        what = f"is the interpreter number {depth}"
        return Broken(ELOOP, image.path, "depth", what, f"the kernel follows {IMAGES_MAX - 1}")
    if image.kind == TEXT:
        what = "has no format that the kernel executes, and no #! line"
        return Broken(ENOEXEC, image.path, "format", what)
    return image


def _by_shell(text: Image, argv: tuple[str, ...], eye: Eye) -> Target:
    """Give a text without ``#!`` to the shell, as execvp(3) does after ENOEXEC."""
    shell = _follow(SHELL, (SHELL, text.path, *argv[1:]), eye)
    images = (replace(text, interpreter=SHELL), *shell.images)
    broken = shell.broken and replace(shell.broken, through=shell.broken.through or text.path)
    return Target(argv[0], shell.path, shell.argv, images, broken)
