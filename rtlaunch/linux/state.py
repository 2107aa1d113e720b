"""Files in the state directory, which nobody else may have had his hands on.

Every operation goes through a descriptor of the directory; a symbolic link, a file or a
directory of another owner, and one that others may write to are refused. A file is replaced in
one step: whoever reads it finds the old text or the new one.
"""

from __future__ import annotations

import os
import stat
from errno import ENOENT
from fcntl import LOCK_EX, flock

OTHERS_MAY_WRITE = 0o022
MOST_BYTES = 4 << 20  # far more than any ledger; a larger file is not ours


class UnsafeError(Exception):
    """What lies there is not what we would have made; the text says why."""


def open_directory(path: str, make: bool) -> int:
    """Open the state directory and return its descriptor; make it if ``make``.

    UnsafeError if others could change what is in it; OSError where it cannot be opened or made.
    """
    if not path:
        raise UnsafeError("there is none: XDG_RUNTIME_DIR is not set")
    if make:
        os.makedirs(path, mode=0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        what = "a symbolic link" if os.path.islink(path) else "no directory"
        raise UnsafeError(f"it is {what}") from None
    try:
        check(os.fstat(fd), os.geteuid())
    except UnsafeError:
        os.close(fd)
        raise
    return fd


def check(status: os.stat_result, owner: int) -> None:
    """Make sure that only ``owner`` can have written it; UnsafeError otherwise."""
    if status.st_uid != owner:
        raise UnsafeError(f"it belongs to uid {status.st_uid}, not to {owner}")
    if status.st_mode & OTHERS_MAY_WRITE:
        raise UnsafeError(f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})")


def _check_file(fd: int, name: str, owner: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeError(f"{name} in it is no regular file")
    try:
        check(status, owner)
    except UnsafeError as error:
        raise UnsafeError(f"of {name} in it: {error}") from None


def _open(directory: int, name: str, flags: int, mode: int, owner: int) -> int:
    """Open a file of the directory, safely; the caller closes it."""
    guard = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(name, flags | guard, mode, dir_fd=directory)
    except OSError as error:
        if error.errno != ENOENT and _is_link(directory, name):
            raise UnsafeError(f"{name} in it is a symbolic link") from None
        raise
    try:
        _check_file(fd, name, owner)
    except UnsafeError:
        os.close(fd)
        raise
    return fd


def _is_link(directory: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode)
    except OSError:
        return False


def lock(directory: int, name: str) -> int:
    """Wait for the lock file ``name``, and return its descriptor: closing it lets go (flock(2)).

    Nobody else can open it, and so hold us up.
    """
    fd = _open(directory, name, os.O_RDWR | os.O_CREAT, 0o600, os.geteuid())
    flock(fd, LOCK_EX)
    return fd


def read(directory: int, name: str, owner: int) -> str:
    """Return the text of a file that ``owner`` wrote, "" if there is none; UnsafeError, OSError."""
    try:
        fd = _open(directory, name, os.O_RDONLY, 0, owner)
    except FileNotFoundError:
        return ""
    try:
        if os.fstat(fd).st_size > MOST_BYTES:
            raise UnsafeError(f"{name} in it is larger than anything we would write")
        chunks = []
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "replace")


def write(directory: int, name: str, text: str) -> None:
    """Replace a file in one step; the caller holds the lock.

    What a killed writer left unfinished is thrown away: it never had the file's name.
    """
    fresh = f"{name}.new"
    guard = os.O_NOFOLLOW | os.O_CLOEXEC
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | guard
    try:
        fd = os.open(fresh, flags, 0o644, dir_fd=directory)
    except FileExistsError:
        os.unlink(fresh, dir_fd=directory)
        fd = os.open(fresh, flags, 0o644, dir_fd=directory)
    try:
        data = text.encode("utf-8")
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        os.unlink(fresh, dir_fd=directory)
        raise
    finally:
        os.close(fd)
    os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)


def rename(directory: int, name: str, to: str) -> None:
    """Give a file of the directory another name."""
    os.rename(name, to, src_dir_fd=directory, dst_dir_fd=directory)
