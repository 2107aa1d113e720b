"""Who may execute and read a program: foreseen as far as possible, explained after execve."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from rtlaunch.core.target import Reach, judge
from rtlaunch.engine.classify import classify, diagnose
from tests.kernel import execve
from tests.kernel.execve import NOBODY, in_child, offer
from tests.kernel.programs import (
    HOST,
    account,
    classified,
    codes_for,
    credentials,
    need_root,
    true_at,
)


def nobody() -> None:
    execve.become_user(NOBODY)


def test_an_unreadable_program_is_refused_for_who_cannot_read_its_books(here: Path) -> None:
    """Mode 0711 for another user: no smaps of the process, and a finding that says so before."""
    need_root()
    program = Path(shutil.copy(shutil.which("sleep") or "", here / "app"))
    program.chmod(0o711)

    def judged() -> tuple[list[str], bool]:
        nobody()
        codes = codes_for(classified(program))
        child = subprocess.Popen([program, "60"])
        try:
            Path(f"/proc/{child.pid}/smaps").read_bytes()
            readable = True
        except PermissionError:
            readable = False
        finally:
            child.kill()
            child.wait()
        return codes, readable

    assert in_child(judged) == (["target-unreadable"], False)


def test_an_unreadable_program_is_no_matter_for_who_may_trace(here: Path) -> None:
    """With CAP_SYS_PTRACE the books of an undumpable process are open: nothing is refused."""
    need_root()
    program = true_at(here / "app")
    program.chmod(0o711)
    target = classify((str(program),), None, account(NOBODY))
    tracer = Reach(HOST, frozenset((HOST,)), reads_any=True)
    assert not target.images[-1].readable
    assert judge(target, credentials(), tracer) == ()


# name: the mode of the directory, of the file, who owns both, groups of the user
REACHABLE: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "open": (0o755, 0o755, 0, ()),
    "closed-directory": (0o700, 0o755, 0, ()),
    "closed-file": (0o755, 0o700, 0, ()),
    "search-only": (0o711, 0o711, 0, ()),
    "by-group": (0o750, 0o750, 0, (0,)),
    "not-by-group": (0o705, 0o705, 0, (0,)),
    "by-owner": (0o500, 0o500, NOBODY, ()),
    "not-by-owner": (0o077, 0o077, NOBODY, ()),
}


@pytest.mark.parametrize("case", REACHABLE)
def test_another_users_permissions_are_predicted(case: str, here: Path) -> None:
    """For --user: refused before the change of user exactly when execve refuses after it."""
    need_root()
    directory_mode, mode, owner, groups = REACHABLE[case]
    program = true_at(here / "inner" / "app")
    for path, bits in ((program, mode), (program.parent, directory_mode)):
        os.chown(path, owner, 0)
        path.chmod(bits)

    def become() -> None:
        os.setgroups(groups)
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    broken = classify((str(program),), None, account(NOBODY, *groups)).broken
    verdict = offer([str(program)], str(program), become)
    assert (broken.errno if broken else 0) == verdict.errno


def test_an_access_control_list_is_left_to_execve(here: Path) -> None:
    """Where a list may grant what the mode does not, nothing is refused beforehand."""
    need_root()
    program = true_at(here / "app")
    program.chmod(0o700)
    everyone = 0xFFFFFFFF
    entries = [
        (1, 7, everyone),
        (2, 5, NOBODY),
        (4, 0, everyone),
        (16, 5, everyone),
        (32, 0, everyone),
    ]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(program, "system.posix_acl_access", packed)
    verdict = offer([str(program)], str(program), nobody)
    assert verdict.program == str(program)
    assert classify((str(program),), None, account(NOBODY)).broken is None


def test_the_directory_that_stopped_execve_is_named_after_it(here: Path) -> None:
    """EACCES for ourselves is explained by the directory that may not be searched."""
    need_root()
    program = true_at(here / "inner" / "app")
    target = classified(program)
    program.parent.chmod(0o700)

    def explained() -> str:
        nobody()
        return diagnose(errno.EACCES, target).what

    assert str(program.parent) in in_child(explained)


def test_a_file_open_for_writing_is_explained_after_execve(here: Path) -> None:
    """ETXTBSY cannot be foreseen; its meaning is told afterwards."""
    program = true_at(here / "app")
    with program.open("r+b"):
        verdict = offer([str(program)], str(program))
        finding = diagnose(verdict.errno, classified(program))
    assert verdict.errno == errno.ETXTBSY
    assert (finding.code, finding.exit_code) == ("command-not-executable", 126)
    assert "ETXTBSY" in finding.what


def test_arguments_too_large_are_explained_after_execve(here: Path) -> None:
    """E2BIG is the arguments' fault and not the file's."""
    program = true_at(here / "app")
    verdict = offer([str(program), "x" * (1 << 20)], str(program))
    finding = diagnose(verdict.errno, classified(program))
    assert verdict.errno == errno.E2BIG
    assert (finding.code, finding.values["errno"]) == ("command-not-executable", "E2BIG")
