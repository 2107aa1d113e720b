"""Files before they are executed: their beginning, mode, attributes, mount and permissions.

Each function is one kernel operation and raises OSError as the kernel gives it,
or says in a word what its absence means. Nothing is opened for writing, and
nothing but a regular file should be opened (a FIFO or device may react).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BINFMT_MISC = "/proc/sys/fs/binfmt_misc"
CAPABILITY = "security.capability"
ACCESS_ACL = "system.posix_acl_access"
SMALL_BYTES = 128 << 10


def open_read(path: str) -> int:
    """Open a regular file for reading, close-on-exec; O_NONBLOCK guards against a FIFO swapped in.

    OSError as open(2) gives it; the caller closes the descriptor.
    """
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Read up to ``size`` bytes at ``offset``; b"" past the end or where none can be read."""
    try:
        return os.pread(fd, size, offset)
    except OSError:
        return b""


def read_small(path: str) -> bytes:
    """Read a file of at most SMALL_BYTES whole; b"" for a larger one, and where it cannot be."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        size = os.fstat(fd).st_size
        return read_at(fd, 0, size) if size <= SMALL_BYTES else b""
    finally:
        os.close(fd)


def may_execute(path: str) -> bool:
    """Ask whether we may execute a regular file (faccessat2(2), effective ids; false if noexec)."""
    return os.access(path, os.X_OK, effective_ids=True)


def get_attribute(path: str, name: str) -> bytes:
    """Read an extended attribute, symbolic links followed; b"" when absent or not supported."""
    try:
        return os.getxattr(path, name)
    except OSError:
        return b""


def is_nosuid(path: str) -> bool:
    """Tell whether the file's mount ignores set-uid bits and capabilities (statvfs(3))."""
    return bool(os.statvfs(path).f_flag & os.ST_NOSUID)


def is_noexec(path: str) -> bool:
    """Tell whether the file's mount allows no execution (statvfs(3))."""
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)


def binfmt_entries() -> Sequence[tuple[str, str]]:
    """Read the handlers in binfmt_misc, as (name, text); () where it is not mounted."""
    try:
        names = sorted(set(os.listdir(BINFMT_MISC)) - {"register", "status"})
    except OSError:
        return ()
    return tuple((name, read_setting(f"{BINFMT_MISC}/{name}")) for name in names)


def read_setting(path: str) -> str:
    """Read a small file of /proc or /sys; "" where it is not there or closed to us."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.fsdecode(os.read(fd, 4096))
    finally:
        os.close(fd)
