"""What a command turns out to be, as values, and what stands against preloading into it.

The records are filled by :mod:`rtlaunch.engine.classify`; everything here is a
pure function of them. The rules are the kernel's (fs/exec.c, fs/binfmt_*.c,
security/commoncap.c) and the loader's (ld.so(8), secure execution). It must not
be believed over execve: that has the last word, see :mod:`rtlaunch.core.broken`.
"""

from __future__ import annotations

from errno import EACCES, ENODEV, ENOENT, ENOTDIR, ESTALE, ETIMEDOUT

from rtlaunch.core.elf import Elf, Script, runs_natively
from rtlaunch.core.findings import Finding
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtlaunch.core.caps import Credentials

ELF, SCRIPT, HANDLED, TEXT, UNREADABLE = "elf", "script", "handled", "text", "unreadable"

SHELL = "/bin/sh"  # execvp(3)'s _PATH_BSHELL
DEFAULT_PATH = "/bin:/usr/bin"  # execvp(3) without PATH: confstr(_CS_PATH)
READ, EXECUTE = 4, 1
IMAGES_MAX = 6  # fs/exec.c exec_binprm: five rewrites by #! or binfmt_misc, then ELOOP

# Programs that are there to become another one: an exec of theirs is waited for. Those that exec
# and never fork are known without a name (engine/chain.py), if they are dynamic.
LEADERS = frozenset(
    (
        "sh", "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "ksh93", "mksh", "posh",
        "rbash", "tcsh", "toybox", "yash", "zsh",
        "capsh", "chroot", "chrt", "doas", "env", "flock", "gosu", "ionice", "nice", "nohup",
        "nsenter", "numactl", "prlimit", "runuser", "setarch", "setpriv", "setsid", "stdbuf", "su",
        "su-exec", "sudo", "taskset", "unshare",
    )
)  # fmt: skip

# errnos after which execvp(3) goes on to the next directory of PATH
SEARCH_ON = frozenset((EACCES, ENOENT, ESTALE, ENOTDIR, ENODEV, ETIMEDOUT))

_S_ISUID, _S_ISGID, _S_IXGRP = 0o4000, 0o2000, 0o010
_VFS_CAP_EFFECTIVE, _VFS_CAP_REVISIONS = 1, {0x01000000: 1, 0x02000000: 2}


class FileCaps(Record):
    """A file's capabilities (capabilities(7)): two bit masks and the effective flag."""

    permitted: int
    inheritable: int
    effective: bool


class Image(Record):
    """One file that is opened on the way to the program.

    ``kind`` is ``elf``, ``script`` (it has a ``#!`` line), ``handled`` (a
    binfmt_misc entry runs it), ``text`` (no format: execvp(3) gives it to sh) or
    ``unreadable``. ``interpreter`` is the next file: the script's, the entry's,
    or an ELF program's loader, "" for none. ``readable`` means by the target's
    user, loader included: else the kernel makes the process undumpable.
    ``nosuid`` is looked up only where set-uid bits or capabilities are present.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    readable: bool = True
    elf: Elf | None = None
    script: Script | None = None
    handler: str = ""
    interpreter: str = ""
    file_caps: FileCaps | None = None
    nosuid: bool = False

    @property
    def runs_by_another(self) -> bool:
        """Whether another file is executed in its place (a loader is mapped beside it)."""
        return self.kind == SCRIPT or (self.kind == HANDLED and self.interpreter != "")


class Broken(Record):
    """The rule that execve would refuse by: its errno, the file that broke it, the words.

    ``what`` is a clause about ``path``. ``through`` is the file that names
    ``path`` as its interpreter or loader, "" for the command itself.
    """

    errno: int
    path: str
    rule: str
    what: str
    why: str = ""
    through: str = ""


class Target(Record):
    """A command, looked up: what execve is given, and the chain of images it leads to.

    ``path`` and ``argv`` are execve's: the command's own, or ``/bin/sh`` and
    ``/bin/sh FILE ...`` where execvp(3) falls back to the shell. ``images`` run
    from the first file to the program that main() belongs to; ``broken`` says
    why it cannot run, as far as can be told before execve.
    """

    command: str
    path: str
    argv: tuple[str, ...]
    images: tuple[Image, ...] = ()
    broken: Broken | None = None

    @property
    def program(self) -> Image | None:
        """The image whose main() runs, or None when nothing can run."""
        return None if self.broken or not self.images else self.images[-1]

    @property
    def machine(self) -> str:
        """The program's machine, or "" where it is not known."""
        program = self.program
        return program.elf.machine if program and program.elf else ""


class Reach(Record):
    """How far preload and proof reach on this host.

    ``machine`` is the host's, by :func:`rtlaunch.core.elf.host_machine`; ``shims``
    are the machines that a shim is installed for; ``reads_any`` says that rtlaunch
    holds CAP_SYS_PTRACE and so can read the books of an undumpable process.
    """

    machine: str
    shims: frozenset[str]
    reads_any: bool


class User(Record):
    """A user that files are to be judged for by their modes, other than who we are."""

    uid: int
    groups: frozenset[int]


def leads_on(path: str) -> bool:
    """Tell whether the program at ``path`` is, by its name, there to become another one."""
    return path.rpartition("/")[2] in LEADERS


# --- looking up ------------------------------------------------------------------------------


def candidates(command: str, search_path: str | None) -> tuple[str, ...]:
    """Return the paths that execvp(3) tries for ``command``; an empty element of PATH is here."""
    if "/" in command or not command:
        return (command,)
    directories = (DEFAULT_PATH if search_path is None else search_path).split(":")
    return tuple(f"{directory}/{command}" if directory else command for directory in directories)


def may(user: User, mode: int, uid: int, gid: int, bit: int) -> bool:
    """Judge one permission (4 read, 1 execute or search) by mode bits, as path_resolution(7) says.

    Root reads and searches everything, and executes what anybody may.
    """
    if user.uid == 0:
        return bit == READ or mode & 0o40000 != 0 or mode & 0o111 != 0
    shift = 6 if user.uid == uid else 3 if gid in user.groups else 0
    return bool(mode >> shift & bit)


def is_text(head: bytes) -> bool:
    """Tell whether the first line could be a shell's: not empty, and free of control characters.

    execvp(3) gives sh whatever the kernel has no format for, binaries for another machine
    and empty files included; shells look first, and so do we.
    """
    line = head.partition(b"\n")[0]
    return bool(head) and all(byte >= ord(" ") or byte in b"\t\f\r" for byte in line)


def parse_file_caps(raw: bytes) -> FileCaps | None:
    """Decode security.capability (include/uapi/linux/capability.h); None for none that applies.

    Revision 3 as we see it belongs to another user namespace's root: it does not apply here.
    """
    magic = int.from_bytes(raw[:4], "little")
    words = _VFS_CAP_REVISIONS.get(magic & 0xFF000000, 0)
    if not words or len(raw) != 4 + 8 * words:
        return None
    pairs = [
        (int.from_bytes(raw[at : at + 4], "little"), int.from_bytes(raw[at + 4 : at + 8], "little"))
        for at in range(4, len(raw), 8)
    ]
    permitted = sum(low << 32 * i for i, (low, _) in enumerate(pairs))
    inheritable = sum(high << 32 * i for i, (_, high) in enumerate(pairs))
    return FileCaps(permitted, inheritable, bool(magic & _VFS_CAP_EFFECTIVE))


# --- judging ---------------------------------------------------------------------------------


def judge(target: Target, who: Credentials, reach: Reach) -> tuple[Finding, ...]:
    """Return what keeps ``target`` from running, or a preload from reaching it, for ``who``.

    ``who`` is the child just before execve. Of several reasons all are given,
    but a command that cannot run at all has that one only.
    """
    program = target.program
    if target.broken:
        from rtlaunch.core.broken import broken_finding

        return (broken_finding(target.command, target.broken),)
    if program is None:
        return ()
    alone = _lacking_caps(program, who) or _emulated(target, reach)
    if alone:
        return (alone,)
    return (
        *_of_machine(program, reach),
        *_of_linkage(program),
        *_of_ids(program, who),
        *_of_file_caps(program, who),
        *_of_reading(program, reach),
    )


def permitted_by_file(image: Image, who: Credentials) -> int:
    """Return the capabilities that the file itself gives: (X & fP) | (pI & fI)."""
    given = image.file_caps
    if given is None or image.nosuid:
        return 0
    return who.caps.bounding & given.permitted | who.caps.inheritable & given.inheritable


def _lacking_caps(image: Image, who: Credentials) -> Finding | None:
    """Find what an effective file demands and cannot have (EPERM, bprm_caps_from_vfs_caps)."""
    given = image.file_caps
    if given is None or image.nosuid or not given.effective:
        return None
    lacking = given.permitted & ~permitted_by_file(image, who)
    if not lacking:
        return None
    return Finding(
        "command-not-executable",
        f"{image.path} has file capabilities {lacking:#x} that the bounding set lacks",
        why="the kernel does not start such a file with less than it demands (EPERM)",
        values={"path": image.path, "lacking": f"{lacking:#x}", "errno": "EPERM"},
    )


def _emulated(target: Target, reach: Reach) -> Finding | None:
    """Find a foreign program that an entry of binfmt_misc runs; what runs it is then no matter."""
    for image in target.images:
        if image.kind == HANDLED and image.elf:
            machine = image.elf.machine
            return Finding(
                "target-machine",
                f"{image.path} is for {machine} and runs under an emulator "
                f"(binfmt_misc entry {image.handler}) on this {reach.machine}",
                why="what could be locked is the emulator; no shim runs inside its guest",
                values={"path": image.path, "machine": machine, "host": reach.machine},
            )
    return None


def _of_machine(program: Image, reach: Reach) -> Iterator[Finding]:
    elf = program.elf
    # the host's own machine without a shim is shim-missing, and no fault of the program
    if elf and elf.machine != reach.machine and elf.machine not in reach.shims:
        native = runs_natively(elf.machine, reach.machine)
        yield Finding(
            "target-class" if native else "target-machine",
            f"{program.path} is a {elf.cls}-bit program for {elf.machine}, and there is no shim "
            f"for {elf.machine} here, only for {', '.join(sorted(reach.shims)) or 'none'}",
            why="the loader would pass over another machine's shim with one line on stderr",
            values={"path": program.path, "machine": elf.machine, "class": elf.cls},
        )


def _of_linkage(program: Image) -> Iterator[Finding]:
    if program.elf and not program.elf.dynamic:
        yield Finding(
            "target-static",
            f"{program.path} is {program.elf.linkage}: no loader runs before it",
            why="LD_PRELOAD is honoured by the dynamic loader alone",
            values={"path": program.path, "linkage": program.elf.linkage},
        )


def _of_ids(program: Image, who: Credentials) -> Iterator[Finding]:
    """Find ids that execve changes, or that differ already: both make the execution secure."""
    honoured = not program.nosuid and not who.no_new_privs
    takes_uid = honoured and program.mode & _S_ISUID
    takes_gid = honoured and program.mode & _S_ISGID and program.mode & _S_IXGRP
    rows = (
        ("set-uid", "uid", program.uid if takes_uid else who.euid, who.euid, who.uid),
        ("set-gid", "gid", program.gid if takes_gid else who.egid, who.egid, who.gid),
    )
    for bit, name, after, before, real in rows:
        if after != before or after != real:
            changed = f"{program.path} is {bit} and would run with {name} {after}, not {real}"
            differs = f"the real {name} is {real} and the effective one {after}"
            yield Finding(
                "target-setuid",
                changed if after != before else differs,
                why="such an execution is secure (AT_SECURE): the loader drops LD_PRELOAD",
                values={"path": program.path, f"{name}": real, f"effective_{name}": after},
            )
            return


def _of_file_caps(program: Image, who: Credentials) -> Iterator[Finding]:
    """Find file capabilities that make the execution secure: for a real user but root.

    The effective flag alone does, whatever no_new_privs leaves of the capabilities.
    """
    given = program.file_caps
    if given is None or program.nosuid or who.uid == 0:
        return
    gained = permitted_by_file(program, who)
    if who.no_new_privs:
        gained &= who.caps.permitted
    if given.effective or gained:
        yield Finding(
            "target-file-caps",
            f"{program.path} has file capabilities (permitted {given.permitted:#x}, inheritable "
            f"{given.inheritable:#x}{', effective' if given.effective else ''}) and is run by "
            f"uid {who.uid}",
            why="such an execution is secure (AT_SECURE): the loader drops LD_PRELOAD, and "
            "ambient capabilities are cleared",
            values={
                "path": program.path,
                "permitted": f"{given.permitted:#x}",
                "inheritable": f"{given.inheritable:#x}",
                "effective": given.effective,
            },
        )


def _of_reading(program: Image, reach: Reach) -> Iterator[Finding]:
    if not program.readable and not reach.reads_any:
        yield Finding(
            "target-unreadable",
            f"{program.path} may be executed but not read (mode {program.mode & 0o7777:04o}, "
            f"owner {program.uid}:{program.gid})",
            why="the kernel makes such a process undumpable: its smaps and perf events are closed "
            "to us, so there is no proof and no watch",
            values={"path": program.path, "mode": f"{program.mode & 0o7777:04o}"},
        )
