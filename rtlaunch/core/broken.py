"""A command that cannot run, and why: before execve as far as can be told, after it by its errno.

Pure: errnos and paths in, words out. The rules are execve(2)'s and execvp(3)'s;
each refusal keeps the errno that the kernel gives, or would have given. Imported
only once there is such a command.
"""

from __future__ import annotations

import errno as errnos

from rtlaunch.core.findings import Finding
from rtlaunch.core.target import IMAGES_MAX, Broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NOT_FOUND = frozenset((errnos.ENOENT, errnos.ENOTDIR))
_BAD_FORMAT = frozenset((errnos.ENOEXEC, errnos.EINVAL, errnos.EIO, errnos.ELIBBAD))

_CR_LF = ": its first line ends in CR LF, and the CR became part of the path"

# errno of stat(2): what is the matter with the path
_LOOKING_UP = {
    errnos.ENOENT: "does not exist",
    errnos.ENOTDIR: "does not exist: a part of its path is not a directory",
    errnos.EACCES: "cannot be reached: a directory of its path may not be searched",
    errnos.ELOOP: "cannot be reached: too many symbolic links",
    errnos.ENAMETOOLONG: "cannot exist: its name is too long",
}

# what execve's errno means for a command that had passed all our checks (execve(2))
_AFTER_EXECVE: dict[int, tuple[str, str, str]] = {
    errnos.ENOENT: (
        "command-bad-interpreter",
        "it, or the interpreter or loader that it names, is not there for the user it runs as",
        "the file itself was there when it was looked up",
    ),
    errnos.EACCES: (
        "command-not-executable",
        "permission denied on it, its interpreter, its loader or a directory on the way",
        "the user it runs as may not execute it, or a security module forbids it",
    ),
    errnos.EPERM: (
        "command-not-executable",
        "the kernel does not permit it",
        "a security module or seccomp forbids it, or its file capabilities cannot be had",
    ),
    errnos.ENOEXEC: (
        "command-bad-format",
        "this kernel has no support for its format",
        "it may be built without 32-bit support, or the file has changed since it was looked up",
    ),
    errnos.ELIBBAD: (
        "command-bad-interpreter",
        "its loader is no loader for it",
        "the loader is damaged or for another machine",
    ),
    errnos.ETXTBSY: (
        "command-not-executable",
        "it is open for writing",
        "a file that is being written cannot be executed; wait for the copy or build to end",
    ),
    errnos.E2BIG: (
        "command-not-executable",
        "its arguments and environment are too large",
        "they may take a quarter of RLIMIT_STACK, 6 MiB at most, and 128 KiB for one string",
    ),
    errnos.ELOOP: (
        "command-not-executable",
        "too many symbolic links, or interpreters of interpreters",
        f"the kernel follows {IMAGES_MAX - 1} interpreters",
    ),
    errnos.EAGAIN: (
        "launch-failed",
        "its user has more processes than RLIMIT_NPROC allows",
        "the limit is checked at execve after a change of user",
    ),
    errnos.ENOMEM: ("launch-failed", "the kernel is out of memory", ""),
    errnos.EMFILE: ("launch-failed", "no descriptor is left to the process", ""),
    errnos.ENFILE: ("launch-failed", "no file is left to the system (fs.file-max)", ""),
}


def looking_up(errno: int, path: str) -> Broken:
    """Return the rule that stat(2) on ``path`` failed by."""
    name = errnos.errorcode.get(errno, str(errno))
    return Broken(errno, path, "lookup", _LOOKING_UP.get(errno, f"cannot be reached ({name})"))


def broken_finding(command: str, broken: Broken) -> Finding:
    """Return the finding for a rule that was found broken before execve."""
    name = errnos.errorcode.get(broken.errno, str(broken.errno))
    values = {"command": command, "path": broken.path, "rule": broken.rule, "errno": name}
    if broken.through:
        values |= {"path": broken.through, "interpreter": broken.path}
        what = f"{broken.through} names the interpreter {_shown(broken.path)}, which {broken.what}"
        what += _CR_LF if broken.path.endswith("\r") else ""
        return Finding("command-bad-interpreter", what, broken.why, values)
    return Finding(_code(broken.errno), f"{_shown(broken.path)} {broken.what}", broken.why, values)


def _code(errno: int) -> str:
    if errno in _NOT_FOUND:
        return "command-not-found"
    return "command-bad-format" if errno in _BAD_FORMAT else "command-not-executable"


def _shown(path: str) -> str:
    """Quote what would be unreadable in a message: nothing, blanks, control characters."""
    return path if path and path.isprintable() and " " not in path else repr(path)


def errno_finding(errno: int, command: str, path: str, images: Sequence[str] = ()) -> Finding:
    """Return the finding for an execve of ``path`` that failed though nothing was found broken.

    :func:`rtlaunch.engine.classify.diagnose` looks again first, and then knows more.
    """
    name = errnos.errorcode.get(errno, str(errno))
    unknown = ("command-not-executable", "execve(2) refused it", "")
    code, what, why = _AFTER_EXECVE.get(errno, unknown)
    values = {"command": command, "path": path, "errno": name, "images": list(images)}
    return Finding(code, f"{_shown(path)} cannot be executed: {what} ({name})", why, values)
