"""A program whose loader would drop LD_PRELOAD is refused, and no other: AT_SECURE decides."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel import execve
from tests.kernel.execve import NOBODY, in_child, offer
from tests.kernel.programs import (
    PIE,
    PROGRAM,
    classified,
    codes_for,
    compile_source,
    found_in,
    need,
    need_root,
    true_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NET_RAW = 1 << 13
EFFECTIVE = 1


def set_caps(path: Path, permitted: int, inheritable: int, flags: int) -> None:
    """Set file capabilities as setcap does: revision 2, two words of each set."""
    packed = struct.pack("<5I", 0x02000000 | flags, permitted, inheritable, 0, 0)
    os.setxattr(path, "security.capability", packed)


def be_root_by_effect() -> None:
    os.setgroups([])
    os.setresuid(NOBODY, 0, 0)


def nobody() -> None:
    execve.become_user(NOBODY)


def nobody_without_new_privileges() -> None:
    nobody()
    execve.set_no_new_privs()


def member_of_root() -> None:
    os.setgroups([0])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def stay() -> None:
    pass


def set_uid(path: Path) -> None:
    path.chmod(0o4755)


def set_uid_nobody(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o4755)


# name: what the file is given, who runs it, on what mount, and the finding
PRIVILEGES: dict[str, tuple[Callable[[Path], object], Callable[[], object], int, str]] = {
    "plain": (lambda p: None, nobody, 0, ""),
    "set-uid": (set_uid, nobody, 0, "target-setuid"),
    "set-uid-of-oneself": (set_uid, stay, 0, ""),
    "set-uid-by-root": (set_uid_nobody, stay, 0, "target-setuid"),
    "set-uid-no-new-privs": (set_uid, nobody_without_new_privileges, 0, ""),
    "set-uid-nosuid": (set_uid, nobody, execve.MS_NOSUID, ""),
    "set-gid": (lambda p: p.chmod(0o2755), nobody, 0, "target-setuid"),
    "set-gid-member": (lambda p: p.chmod(0o2755), member_of_root, 0, "target-setuid"),
    "set-gid-no-group-x": (lambda p: p.chmod(0o2745), nobody, 0, ""),
    "effective-root": (lambda p: None, be_root_by_effect, 0, "target-setuid"),
    "caps": (lambda p: set_caps(p, NET_RAW, 0, EFFECTIVE), nobody, 0, "target-file-caps"),
    "caps-permitted": (lambda p: set_caps(p, NET_RAW, 0, 0), nobody, 0, "target-file-caps"),
    "caps-inheritable": (lambda p: set_caps(p, 0, NET_RAW, 0), nobody, 0, ""),
    "caps-effective-none": (lambda p: set_caps(p, 0, 0, EFFECTIVE), nobody, 0, "target-file-caps"),
    "caps-none": (lambda p: set_caps(p, 0, 0, 0), nobody, 0, ""),
    "caps-by-root": (lambda p: set_caps(p, NET_RAW, 0, EFFECTIVE), stay, 0, ""),
    "caps-nosuid": (lambda p: set_caps(p, NET_RAW, 0, EFFECTIVE), nobody, execve.MS_NOSUID, ""),
    "caps-no-new-privs": (
        lambda p: set_caps(p, NET_RAW, 0, EFFECTIVE),
        nobody_without_new_privileges,
        0,
        "target-file-caps",
    ),
    "caps-permitted-no-new-privs": (
        lambda p: set_caps(p, NET_RAW, 0, 0),
        nobody_without_new_privileges,
        0,
        "",
    ),
}


@pytest.mark.parametrize("case", PRIVILEGES)
def test_privileges_are_refused_exactly_when_execution_is_secure(
    case: str, here: Path, room: Path
) -> None:
    """The finding is there if and only if the program finds AT_SECURE in its auxiliary vector."""
    need("no-mount", lambda: execve.mount_private(0, here))
    program = compile_source("cc", PIE, PROGRAM, room / "app")
    give, become, flags, code = PRIVILEGES[case]

    def judged() -> tuple[list[str], bytes]:
        execve.mount_private(flags, here)
        copy = Path(shutil.copy(program, here / "app"))
        copy.chmod(0o755)
        give(copy)
        become()
        codes = codes_for(classified(copy))
        return codes, subprocess.run([copy], stdout=subprocess.PIPE, check=True).stdout

    codes, printed = in_child(judged)
    assert codes == ([code] if code else [])
    assert printed == b"secure %d\n" % bool(code)


def test_capabilities_that_cannot_be_had_are_refused_before_execve(here: Path) -> None:
    """An effective file capability outside the bounding set is EPERM, even for root."""
    need_root()

    def judged() -> tuple[int, list[object]]:
        execve.call("prctl", execve.PR_CAPBSET_DROP, 13, 0, 0, 0)
        copy = true_at(here / "app")
        set_caps(copy, NET_RAW, 0, EFFECTIVE)
        found = found_in(classified(copy))
        return offer([str(copy)], str(copy)).errno, [(one.code, one.exit_code) for one in found]

    assert in_child(judged) == (errno.EPERM, [("command-not-executable", 126)])
