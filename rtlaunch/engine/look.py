"""Look at one file as execve would: may it be executed, what is in it, and its loader.

It composes the reads of :mod:`rtlaunch.linux.files` with the judgements of
:mod:`rtlaunch.core.elf`. It executes nothing, opens nothing but regular files,
and reads 4 KiB of each.
"""

from __future__ import annotations

import os
import sys
from errno import EACCES, EMFILE, ENFILE, ENOENT, ENOEXEC, ENOMEM
from stat import S_IFMT, S_ISREG

from rtlaunch.core.elf import (
    MAGIC,
    Elf,
    Flaw,
    check_loader,
    host_machine,
    read_elf,
    read_script,
    runs_natively,
)
from rtlaunch.core.record import Record, replace
from rtlaunch.core.target import (
    ELF,
    EXECUTE,
    HANDLED,
    READ,
    SCRIPT,
    TEXT,
    UNREADABLE,
    Broken,
    Image,
    User,
    is_text,
    may,
    parse_file_caps,
)
from rtlaunch.linux import files

READ_BYTES = 4096  # headers and the loader's path of any program that a linker made

OURS = (EMFILE, ENFILE, ENOMEM)  # what we lack ourselves says nothing of a file
_SET_IDS = 0o6000
_KINDS = {
    0o040000: "a directory",
    0o010000: "a FIFO",
    0o140000: "a socket",
    0o020000: "a character device",
    0o060000: "a block device",
}


class Eye(Record):
    """Who looks: the host's machine, and the user to judge permissions for, None for ourselves.

    For ourselves the kernel is asked. For another user mode bits are read, as
    long as no access control list stands beside them.
    """

    host: str
    user: User | None = None


def make_eye(user: User | None = None) -> Eye:
    """Return an eye on this host."""
    return Eye(host_machine(os.uname().machine, 64 if sys.maxsize >> 32 else 32), user)


def look(path: str, eye: Eye) -> Image | Broken:
    """Look at one file: the image that it is, or the rule that execve refuses it by."""
    found = find(path, eye)
    if isinstance(found, Broken):
        return found
    image = Image(path, UNREADABLE, found.st_mode, found.st_uid, found.st_gid)
    try:
        fd = files.open_read(path)
    except PermissionError:
        return _with_privileges(replace(image, readable=False))
    except OSError as error:
        return _not_found(error, path)
    try:
        readable = eye.user is None or _may(eye.user, path, READ)
        return _look_inside(replace(image, readable=readable), fd, eye)
    finally:
        os.close(fd)


def find(path: str, eye: Eye) -> os.stat_result | Broken:
    """Look a file up and judge whether it may be executed."""
    try:
        found = os.stat(path)
    except OSError as error:
        return _not_found(error, path)
    if not S_ISREG(found.st_mode):
        kind = _KINDS.get(S_IFMT(found.st_mode), "no regular file")
        return Broken(EACCES, path, "regular", f"is {kind}")
    if not files.may_execute(path):
        if files.is_noexec(path):
            return Broken(EACCES, path, "noexec", "is on a file system mounted noexec")
        return _forbidden(path, found, os.geteuid())
    return _denied(path, found, eye.user) or found


def _not_found(error: OSError, path: str) -> Broken:
    """Return what a lookup failed by; an error that is not the file's is raised again."""
    if error.errno in OURS:
        raise error
    from rtlaunch.core.broken import looking_up

    return looking_up(error.errno or ENOENT, path)


def _denied(path: str, found: os.stat_result, user: User | None) -> Broken | None:
    """Judge by mode bits whether another user may reach and execute a file."""
    if user is None:
        return None
    for directory in _directories(path):
        if not _may(user, directory, EXECUTE):
            what = f"cannot be reached: {directory} may not be searched by uid {user.uid}"
            return Broken(EACCES, path, "search", what)
    return None if _may(user, path, EXECUTE) else _forbidden(path, found, user.uid)


def _forbidden(path: str, found: os.stat_result, uid: int) -> Broken:
    mode = f"mode {found.st_mode & 0o7777:04o}, owner {found.st_uid}:{found.st_gid}"
    return Broken(EACCES, path, "mode", f"may not be executed by uid {uid} ({mode})")


def _directories(path: str) -> list[str]:
    """Return the directories to be searched on the way, as they are written."""
    slashes = [at for at, char in enumerate(path) if char == "/"]
    return [path[:at] or "/" for at in slashes]


def _may(user: User, path: str, bit: int) -> bool:
    """Judge a permission by mode bits; where a list refines them, leave it to execve."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    allowed = may(user, found.st_mode, found.st_uid, found.st_gid, bit)
    return allowed or bool(files.get_attribute(path, files.ACCESS_ACL))


def _with_privileges(image: Image) -> Image:
    """Add what the file gives beyond its user's rights, and whether its mount lets it."""
    raw = files.get_attribute(image.path, files.CAPABILITY)
    file_caps = parse_file_caps(raw) if raw else None
    if not file_caps and not image.mode & _SET_IDS:
        return image
    return replace(image, file_caps=file_caps, nosuid=files.is_nosuid(image.path))


def _look_inside(image: Image, fd: int, eye: Eye) -> Image | Broken:
    head = files.read_at(fd, 0, READ_BYTES)
    if head.startswith(MAGIC):
        return _look_at_elf(image, fd, head, eye)
    script = read_script(head)
    if isinstance(script, Flaw):
        return Broken(script.errno, image.path, script.rule, script.what)
    if script:
        return replace(image, kind=SCRIPT, script=script, interpreter=_named(script.interpreter))
    if is_text(head):
        return _handled(image, head) or replace(image, kind=TEXT)
    what = "has no format that the kernel executes, and is no text" if head else "is empty"
    return _handled(image, head) or Broken(ENOEXEC, image.path, "format", what)


def _named(path: bytes) -> str:
    """Return an interpreter's path; the kernel takes an empty one for the current directory."""
    return os.fsdecode(path) or "."


def _handled(image: Image, head: bytes, elf: Elf | None = None) -> Image | None:
    """Ask whether binfmt_misc runs what the kernel itself would not."""
    from rtlaunch.core.binfmt import find_handler

    handler = find_handler(files.binfmt_entries(), image.path, head)
    if handler is None:
        return None
    gone = handler.fixed and not os.path.exists(handler.interpreter)  # opened long ago: not needed
    interpreter = "" if gone else handler.interpreter
    return replace(image, kind=HANDLED, elf=elf, handler=handler.name, interpreter=interpreter)


def _look_at_elf(image: Image, fd: int, head: bytes, eye: Eye) -> Image | Broken:
    elf = read_elf(head, lambda offset, size: files.read_at(fd, offset, size), eye.host)
    if isinstance(elf, Flaw):
        return _handled(image, head) or Broken(elf.errno, image.path, elf.rule, elf.what)
    if not runs_natively(elf.machine, eye.host):
        what = f"is a program for {elf.machine}; this is {eye.host}"
        why = "no entry of binfmt_misc runs it either"
        foreign = Broken(ENOEXEC, image.path, "machine", what, why)
        return _handled(image, head, elf) or foreign
    image = _with_privileges(replace(image, kind=ELF, elf=elf))
    if elf.interp is None:
        return image
    loader = _named(elf.interp)
    readable = _look_at_loader(loader, elf, eye)
    if isinstance(readable, Broken):
        return replace(readable, through=image.path)
    return replace(image, interpreter=loader, readable=image.readable and readable)


def _look_at_loader(path: str, program: Elf, eye: Eye) -> bool | Broken:
    """Check a program's loader as the kernel does; tell whether it may be read as well."""
    found = find(path, eye)
    if isinstance(found, Broken):
        return found
    try:
        fd = files.open_read(path)
    except PermissionError:
        return False
    except OSError as error:
        return _not_found(error, path)
    try:
        head = files.read_at(fd, 0, READ_BYTES)
        flaw = check_loader(head, lambda at, size: files.read_at(fd, at, size), program, eye.host)
    finally:
        os.close(fd)
    if flaw:
        return Broken(flaw.errno, path, flaw.rule, flaw.what)
    return eye.user is None or _may(eye.user, path, READ)
