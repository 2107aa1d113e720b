"""Let the kernel judge a file: execve in a child that is stopped before its first instruction.

PTRACE_TRACEME makes a successful execve stop the process, so that arbitrary
bytes can be offered to the kernel and nothing of them ever runs.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
import signal
import struct
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PTRACE_TRACEME = 0
AT_SECURE = 23
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_NOSUID, MS_NOEXEC, MS_REC_PRIVATE = 2, 8, 0x4000 | 0x40000
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Verdict:
    """What execve did: refused by ``errno``, or accepted: the file that runs, and its argv.

    ``mapped_bytes`` is what the kernel mapped of the program itself and a loader.
    ``secure`` is AT_SECURE: its loader drops LD_PRELOAD. ``killed`` is the signal
    that ended it where it was too broken to stop.
    """

    errno: int = 0
    program: str = ""
    argv: tuple[str, ...] = ()
    mapped_bytes: int = 0
    secure: bool = False
    killed: int = 0


def call(function: str, *arguments: Any) -> None:
    """Call a libc function; OSError where it returns -1."""
    if getattr(libc, function)(*arguments) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")


def offer(
    argv: Sequence[str], path: str | None = None, become: Callable[[], object] | None = None
) -> Verdict:
    """Offer a file to execve, or argv[0] to execvp(3) when no ``path`` is given; never run it."""
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        _exec_traced(argv, path, become, start)
    os.close(start)
    with os.fdopen(end, "rb") as pipe:
        refused = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSTOPPED(status):
        stopped_by = os.WSTOPSIG(status)  # else it was committed to, and could not be mapped
        trapped = stopped_by == signal.SIGTRAP
        verdict = _what_stands(child) if trapped else Verdict(killed=stopped_by)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return verdict
    if refused:
        outcome = pickle.loads(refused)
        if isinstance(outcome, int):
            return Verdict(errno=outcome)
        raise AssertionError(outcome)
    assert os.WIFSIGNALED(status), status
    return Verdict(killed=os.WTERMSIG(status))


def _exec_traced(
    argv: Sequence[str], path: str | None, become: Callable[[], object] | None, start: int
) -> None:
    outcome: object = None
    try:
        call("ptrace", PTRACE_TRACEME, 0, 0, 0)  # before: the tracer counts as who we are now
        if become:
            become()
        words = (ctypes.c_char_p * (len(argv) + 1))(*[os.fsencode(word) for word in argv], None)
        if path is None:
            libc.execvp(words[0], words)
        else:
            libc.execv(os.fsencode(path), words)
        outcome = ctypes.get_errno()
    except BaseException as error:
        outcome = repr(error)
    os.write(start, pickle.dumps(outcome))
    os._exit(0)


def _what_stands(pid: int) -> Verdict:
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return Verdict(
        program=os.readlink(f"/proc/{pid}/exe"),
        argv=tuple(os.fsdecode(word) for word in raw.split(b"\0")[:-1]),
        mapped_bytes=sum(_sizes(Path(f"/proc/{pid}/maps").read_text())),
        secure=_auxiliary(pid).get(AT_SECURE, 0) != 0,
    )


def _auxiliary(pid: int) -> dict[int, int]:
    """Read the auxiliary vector, in the words of the program's own class."""
    with open(f"/proc/{pid}/exe", "rb") as file:
        word = "Q" if file.read(5)[4] == 2 else "I"
    raw = Path(f"/proc/{pid}/auxv").read_bytes()
    return dict(struct.iter_unpack(f"={word}{word}", raw))


def _sizes(maps: str) -> Iterator[int]:
    for line in maps.splitlines():
        start, end = line.split(" ")[0].split("-")
        if not line.endswith("]"):  # [stack], [vdso] and their like
            yield int(end, 16) - int(start, 16)


def in_child(function: Callable[[], Any]) -> Any:
    """Run ``function`` in a forked child, which may change who it is; return its value."""
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = (True, function())
        except BaseException as error:
            result = (False, repr(error))
        with os.fdopen(start, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(start)
    with os.fdopen(end, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    done, result = pickle.loads(raw)
    assert done, result
    return result


def become_user(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def set_no_new_privs() -> None:
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def mount_private(flags: int, where: Path) -> None:
    """Mount an empty tmpfs that only this process and its children see."""
    call("unshare", CLONE_NEWNS)
    call("mount", None, b"/", None, MS_REC_PRIVATE, None)
    call("mount", b"none", os.fsencode(where), b"tmpfs", flags, None)
    where.chmod(0o755)


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory that other users can reach, which pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="rtlaunch-test-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)
