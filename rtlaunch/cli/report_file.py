"""Where the report goes: a file or descriptor, checked before the launch, written at its end.

Written whole by rename, mode 0640. Until then it is a file without a name
(O_TMPFILE), so that an rtlaunch that is killed leaves nothing behind. Devices,
pipes and /dev/stdout are written to: a rename would put a file in their place.

One gap cannot be closed: link(2) gives a nameless file no name that is taken,
and rename(2) needs one to start from. To replace a report the new one has a
temporary name for an instant, whole by then, in which SIGKILL leaves it. Its
writer holds a lock on it (flock(2)), so that the next one knows what is nobody's.
"""

from __future__ import annotations

import errno
import os
from fcntl import F_GETFL, F_SETFD, FD_CLOEXEC, LOCK_EX, LOCK_NB, fcntl, flock
from stat import S_ISDIR, S_ISLNK, S_ISREG

from rtlaunch.cli.outlet import write_whole
from rtlaunch.core.findings import Finding, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.options import ReportTo
    from rtlaunch.core.outcome import Outcome

MODE = 0o640
STANDARD_ERROR = 2
PATIENCE_MS = 5000  # how long the reader of a pipe may stand still before it has the whole report

# O_TMPFILE is not for every file system (open(2)).
NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
TEMPORARY = ".tmp"
MOST_LINKS = 40  # in a row, as for the kernel (path_resolution(7))


class ReportFile:
    """One report's destination."""

    def __init__(self, to: ReportTo) -> None:
        self.to = to
        self.fd = to.fd
        self.nameless = False
        self.stream = not to.path

    def prepare(self, outcome: Outcome) -> None:
        """Make sure that it can be written; Refusal ``report-unwritable`` says why not."""
        try:
            if self.to.path:
                self.prepare_path(self.path(outcome))
            else:
                self.prepare_descriptor()
        except OSError as error:
            where = self.to.path or f"descriptor {self.to.fd}"
            raise Refusal(
                Finding(
                    "report-unwritable",
                    f"--report {where}: {error.strerror}",
                    why="what was asked to be proven could not be written down",
                    values={"path": where, "errno": error.errno},
                )
            ) from error

    def prepare_path(self, path: str) -> None:
        """Open ``path`` if it is a stream, else make sure that a file can be made in its folder."""
        self.stream = is_stream(path)
        if self.stream:
            # without O_NONBLOCK a pipe that nobody reads would hold us for ever
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self.fd = os.open(path, flags)
            os.set_blocking(self.fd, True)
        else:
            self.prepare_file(followed(path))

    def prepare_file(self, path: str) -> None:
        """Open a nameless file in the folder of ``path``, or see that one can be made there."""
        folder = os.path.dirname(path)
        try:
            flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
            self.fd, self.nameless = os.open(folder, flags, MODE), True
        except OSError as error:
            if error.errno not in NO_TMPFILE or not os.path.isdir(folder):
                raise
            clear_leftovers(path)
            os.close(make(fresh_name(path)))
            forget(fresh_name(path))

    def prepare_descriptor(self) -> None:
        """See that the descriptor is open for writing; it is ours, so exec closes it."""
        if fcntl(self.fd, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "it is not open for writing")
        if self.fd > STANDARD_ERROR:
            fcntl(self.fd, F_SETFD, FD_CLOEXEC)

    def path(self, outcome: Outcome) -> str:
        """Return the path with its placeholders filled in."""
        from rtlaunch.core.forwarding import RANK_VARIABLES

        rank = next((os.environ[name] for name in RANK_VARIABLES if os.environ.get(name)), "0")
        started = outcome.time.started_at or 0
        values = {
            "host": os.uname().nodename,
            "rank": rank,
            "pid": str(outcome.target.pid or os.getpid()),
            "unit": outcome.host.unit or "none",
            "time": str(started // 1_000_000_000),
        }
        path = self.to.path
        for name, value in values.items():
            path = path.replace("{" + name + "}", value.replace("/", "-"))
        return path

    def write(self, outcome: Outcome) -> str:
        """Write the report; return what went wrong, "" for nothing."""
        import json

        from rtlaunch.report.document import document

        text = json.dumps(document(outcome), indent=2, ensure_ascii=True) + "\n"
        try:
            if self.stream:
                write_whole(self.fd, text.encode(), PATIENCE_MS)
            else:
                self.write_path(text.encode(), followed(self.path(outcome)))
        except OSError as error:
            return self.problem(error)
        return ""

    def write_draft(self, outcome: Outcome) -> str:
        """Write the report as :meth:`write` does, but leave the file that was opened for it.

        So it can be called in a child of ours: the file that it locks is nobody's but its own.
        """
        draft = ReportFile(self.to)
        try:
            draft.prepare_file(followed(self.path(outcome)))
        except OSError as error:
            return self.problem(error)
        return draft.write(outcome)

    def problem(self, error: OSError) -> str:
        """Say what went wrong."""
        return f"the report could not be written to {self.to.path or self.fd}: {error.strerror}"

    def write_path(self, data: bytes, path: str) -> None:
        """Write the file, then let it be seen."""
        fresh = fresh_name(path)
        if not self.nameless:
            clear_leftovers(path)
            self.fd = make(fresh)
            lock(self.fd)
        try:
            os.fchmod(self.fd, MODE)
            write_whole(self.fd, data, PATIENCE_MS)
            self.publish(fresh, path)
        except OSError:
            forget(fresh)
            raise
        finally:
            os.close(self.fd)

    def publish(self, fresh: str, path: str) -> None:
        """Give the file its name in one step, whatever has that name by now."""
        if self.nameless:
            try:
                self.name(path)
                return
            except FileExistsError:
                clear_leftovers(path)
                lock(self.fd)
                self.name(fresh)
        os.rename(fresh, path)

    def name(self, path: str) -> None:
        """Give the nameless file its name; FileExistsError where something has that already."""
        # only with a directory given does CPython call linkat(2) with AT_SYMLINK_FOLLOW
        os.link(f"/proc/self/fd/{self.fd}", path, src_dir_fd=self.fd)


def is_stream(path: str) -> bool:
    """Tell whether ``path`` is there and no plain file; IsADirectoryError for a directory.

    Through /proc (/dev/stdout leads there) a plain file is one of our own descriptors.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    target = os.readlink(path) if os.path.islink(path) else ""
    folders = (os.path.realpath(os.path.dirname(path)), os.path.dirname(target))
    return not S_ISREG(mode) or any(folder.startswith("/proc/") for folder in folders)


def followed(path: str) -> str:
    """Return where ``path`` leads; PermissionError for a link that is neither ours nor root's.

    Who else may write there, the program for one, would say which file of ours is replaced. The
    kernel follows no such link in /tmp (fs.protected_symlinks), but here it is not the kernel.
    """
    for _ in range(MOST_LINKS):
        folder, base = os.path.split(path)
        path = os.path.join(os.path.realpath(folder), base)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return path
        if not S_ISLNK(found.st_mode):
            return path
        if found.st_uid not in (os.geteuid(), 0):
            raise PermissionError(errno.EACCES, f"it is a symbolic link of uid {found.st_uid}")
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def fresh_name(path: str) -> str:
    """Return the name that a file has until it is renamed to ``path``."""
    return f"{path}.{os.getpid()}{TEMPORARY}"


def make(path: str) -> int:
    """Make a file that is not there yet; return its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)


def forget(path: str) -> None:
    """Remove a file that may not be there."""
    try:
        os.unlink(path)
    except OSError:
        return


def clear_leftovers(path: str) -> None:
    """Remove the fresh names of ``path`` whose writers were killed, as far as they are ours."""
    folder, base = os.path.split(path)
    try:
        names = os.listdir(folder)
    except OSError:
        return  # it may be for writing alone
    for name in names:
        middle = name[len(base) + 1 : -len(TEMPORARY)]
        if middle.isdecimal() and name == f"{base}.{middle}{TEMPORARY}":
            forget_abandoned(os.path.join(folder, name))


def forget_abandoned(path: str) -> None:
    """Remove a file of ours that nobody holds a lock on."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    status = os.fstat(fd)
    if S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and lock(fd):
        forget(path)
    os.close(fd)


def lock(fd: int) -> bool:
    """Lock a file against other writers; False where one has it, or there are no locks."""
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except OSError:
        return False
    return True
