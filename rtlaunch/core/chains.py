"""Programs that become others in place: who leads on, and what a traced exec takes away.

Pure: bytes, names and modes in, answers and findings out. Whoever traces is
:mod:`rtlaunch.engine.chain`.
"""

from __future__ import annotations

import sys

from rtlaunch.core.findings import Finding
from rtlaunch.core.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from rtlaunch.core.options import Options
    from rtlaunch.core.proc import Status
    from rtlaunch.core.target import FileCaps

SET_IDS = 0o6000
_S_ISUID, _S_ISGID, _S_IXGRP = 0o4000, 0o2000, 0o010
_AT_SECURE = 23  # getauxval(3)

# What a program imports that becomes another one, and what one does that has others beside it.
EXECS = frozenset(
    ("execl", "execle", "execlp", "execv", "execve", "execveat", "execvp", "execvpe", "fexecve")
)
FORKS = frozenset(
    (
        "clone", "daemon", "fork", "forkpty", "popen", "posix_spawn", "posix_spawnp",
        "pthread_create", "system", "vfork",
    )
)  # fmt: skip

# Allowed by name, and by who lacks CAP_SYS_PTRACE: then no exec is traced, and none is robbed.
PRIVILEGED = frozenset(("target-setuid", "target-file-caps"))


class Follow(Step):
    """Trace an image that leads on from its proof to its exec (PTRACE_O_TRACEEXEC)."""

    path: str

    def describe(self) -> str:
        """Say who is followed, and what for."""
        return f"follow {self.path} by ptrace to its exec of another program, and lock that too"


def are_followed(options: Options, privileged: bool) -> bool:
    """Tell whether chains are followed at all; ``privileged`` is our CAP_SYS_PTRACE."""
    if not options.lock or "exec-unfollowed" in options.allow:
        return False
    return privileged or not (options.best_effort or PRIVILEGED & set(options.allow))


def only_execs(imported: AbstractSet[str]) -> bool:
    """Tell whether a program of these imports can do nothing but become another one."""
    return bool(EXECS & imported) and not FORKS & imported


def parse_channel(variable: str) -> tuple[int, int, int, int]:
    """Return descriptor, device, inode and pid of the channel's variable; -1 each for none."""
    try:
        fd, dev, ino, pid = (int(word, 16) for word in variable.split(":"))
    except ValueError:
        return (-1, -1, -1, -1)
    return fd, dev, ino, pid


def is_secure(auxv: bytes, word_bytes: int) -> bool:
    """Read AT_SECURE from an auxiliary vector of words of 8 or 4 bytes; False where there is none.

    /proc/PID/auxv has the words of the image, whoever reads it.
    """
    words = [
        int.from_bytes(auxv[at : at + word_bytes], sys.byteorder)
        for at in range(0, len(auxv), word_bytes)
    ]
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    return bool(pairs.get(_AT_SECURE))


def robbed(
    path: str, mode: int, owner: tuple[int, int], file_caps: FileCaps | None, status: Status
) -> Finding | None:
    """Find what a file would have given ``status`` at its exec, had it not been traced.

    The kernel gives nothing there unless the tracer holds CAP_SYS_PTRACE
    (security/commoncap.c, cap_bprm_creds_from_file). The mount lets it give.
    """
    if status.no_new_privs:
        return None
    uid, gid = owner
    if mode & _S_ISUID and uid != status.uids[1]:
        return _lost("target-setuid", path, f"is set-uid and was not given uid {uid}")
    if mode & _S_ISGID and mode & _S_IXGRP and gid != status.gids[1]:
        return _lost("target-setuid", path, f"is set-gid and was not given gid {gid}")
    if file_caps is None:
        return None
    given = status.cap_bnd & file_caps.permitted | status.cap_inh & file_caps.inheritable
    if given & ~status.cap_prm:
        return _lost("target-file-caps", path, f"was not given its capabilities ({given:#x})")
    return None


def _lost(code: str, path: str, what: str) -> Finding:
    return Finding(
        code,
        f"{path} was exec()ed in a chain that is followed by ptrace: it {what}",
        why="a traced exec gives privileges only if the tracer has CAP_SYS_PTRACE; untraced it "
        "would run unlocked, as its loader drops LD_PRELOAD",
        values={"path": path},
    )
