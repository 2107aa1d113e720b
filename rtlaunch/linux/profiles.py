"""Find and read profile files; what their keys mean is :mod:`rtlaunch.core.profile`'s business.

A profile names what root may be made to run, so as root one that others could have
written is refused. tomllib is imported here alone, and only when there is a profile.
"""

from __future__ import annotations

import os

from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.profile import Profile, read_profile, with_parent
from rtlaunch.core.units import did_you_mean, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIX = ".toml"
SYSTEM_DIR = "/etc/rtlaunch/profiles"
SHIPPED_DIR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "profiles")
LARGEST_BYTES = 2**20  # of a file that a person writes; more is a mistake in the path
# of st_mode, inode(7)
S_IFMT, S_IFREG, S_IFDIR, S_IFLNK = 0o170000, 0o100000, 0o040000, 0o120000
S_ISVTX, WRITABLE_BY_OTHERS = 0o1000, 0o022


def load(asked: str, environ: Mapping[str, str], euid: int) -> Profile:
    """Read the profile ``asked`` for by name or path, and the parent that it extends.

    With ``euid`` 0, files that others could have written are refused.

    Raises Refusal ``profile-missing``, ``profile-unreadable``, ``profile-writable`` or
    ``profile-invalid``, naming the path.
    """
    profile = _read(find(asked, environ), euid)
    if not profile.extends:
        return profile
    return with_parent(profile, _read(find(profile.extends, environ), euid))


def find(asked: str, environ: Mapping[str, str]) -> str:
    """Return the path of a profile: ``asked`` itself if it has a slash, else by its name.

    Raises Refusal ``profile-missing`` with the places looked at, and the near name
    or, without one, all names.
    """
    if "/" in asked:
        return asked
    places = directories(environ)
    for place in places:
        path = os.path.join(place, asked + SUFFIX)
        if os.path.lexists(path):
            return path
    known = names(environ)
    listed = f"; there are {', '.join(known)}" if known else ""
    hint = did_you_mean(asked.removesuffix(SUFFIX), known) or listed
    if asked.endswith(SUFFIX):
        hint = f"; a path needs a slash: ./{asked}"
    raise _refusal(
        "profile-missing", asked, f"no profile {shown(asked)} in {', '.join(places)}{hint}"
    )


def directories(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return where profiles are looked for by name, the user's own first."""
    config = environ.get("XDG_CONFIG_HOME", "")
    if not config.startswith("/"):  # as the base directory specification has it
        home = environ.get("HOME", "")
        config = os.path.join(home, ".config") if home.startswith("/") else ""
    own = (os.path.join(config, "rtlaunch"),) if config else ()
    return (*own, SYSTEM_DIR, SHIPPED_DIR)


def names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of all profiles that can be found, in order, each once."""
    found: dict[str, None] = {}
    for place in directories(environ):
        try:
            files = sorted(os.listdir(place))
        except OSError:
            continue  # a place need not exist
        found.update(dict.fromkeys(f.removesuffix(SUFFIX) for f in files if f.endswith(SUFFIX)))
    return tuple(found)


# --- one file --------------------------------------------------------------------------------


def _read(path: str, euid: int) -> Profile:
    """Read one file; its parent is not looked at."""
    import tomllib  # not at the top: a launch without a profile need not pay for it

    try:
        text = _contents(path, euid).decode()
    except UnicodeDecodeError as error:
        raise _refusal("profile-invalid", path, f"{path}: not UTF-8: {error}") from None
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _refusal("profile-invalid", path, f"{path}: not TOML: {error}") from None
    return read_profile(table, path)


def _contents(path: str, euid: int) -> bytes:
    """Return the bytes of a regular file that only its rightful owner could have written."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us
    except FileNotFoundError:
        raise _refusal("profile-missing", path, f"no profile at {_plain(path)}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        _check_kind(path, os.fstat(fd))
        if euid == 0:
            _check_writers(path, os.fstat(fd))
        return os.read(fd, LARGEST_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)


def _check_kind(path: str, status: os.stat_result) -> None:
    if status.st_mode & S_IFMT != S_IFREG:
        raise _refusal("profile-unreadable", path, f"{path}: no regular file")
    if status.st_size >= LARGEST_BYTES:
        message = f"{path}: {status.st_size} bytes; a profile has less than {LARGEST_BYTES}"
        raise _refusal("profile-unreadable", path, message)


def _check_writers(path: str, status: os.stat_result) -> None:
    """Refuse a file that others than root can write, or whose directory lets them replace it.

    A shipped profile is exempt: who can write it can write this program.
    """
    if os.path.dirname(path) == SHIPPED_DIR:
        return
    places = dict.fromkeys((os.path.dirname(os.path.abspath(path)),
                            os.path.dirname(os.path.realpath(path))))  # fmt: skip
    looked_at = ((path, status), (path, os.lstat(path)), *((at, os.stat(at)) for at in places))
    for name, about in looked_at:
        who = writers(about)
        if who:
            raise _refusal(
                "profile-writable",
                path,
                f"{path}: {name} can be written by {who}; it would tell root what to run",
                f"chown root {name}; chmod go-w {name}",
            )


def writers(status: os.stat_result) -> str:
    """Say who but root can write the file, link or directory; empty if nobody.

    In a sticky directory such as /tmp nobody can replace what belongs to root.
    """
    if status.st_uid != 0:
        return f"uid {status.st_uid}, its owner"
    kind = status.st_mode & S_IFMT
    guarded = kind == S_IFLNK or (kind == S_IFDIR and status.st_mode & S_ISVTX)
    if status.st_mode & WRITABLE_BY_OTHERS and not guarded:
        return f"others (mode {status.st_mode & 0o7777:04o})"
    return ""


def _unreadable(path: str, error: Exception) -> Refusal:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return _refusal("profile-unreadable", path, f"{_plain(path)}: {reason}")


def _plain(path: str) -> str:
    """Return the whole path, quoted only where a terminal must not see it as it is."""
    return path if path.isprintable() else repr(path)


def _refusal(code: str, profile: str, what: str, try_now: str = "") -> Refusal:
    return Refusal(Finding(code, what, values={"profile": profile}, try_now=try_now))
