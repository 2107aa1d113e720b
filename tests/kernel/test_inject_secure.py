"""Set-uid programs, file capabilities, unreadable files: injected by who may, else refused.

Whoever traces an exec without CAP_SYS_PTRACE takes the program's privileges away
(security/commoncap.c, cap_bprm_creds_from_file): then nothing is injected.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from tests import books
from tests.kernel.execve import NOBODY
from tests.kernel.injecting import build
from tests.kernel.programs import need_root
from tests.kernel.test_secure_execution import EFFECTIVE, NET_RAW, set_caps
from tests.standing import standing

AS_NOBODY = ("--user", f"{NOBODY}:{NOBODY}")


def set_uid(path: Path) -> None:
    path.chmod(0o4755)


def set_gid(path: Path) -> None:
    path.chmod(0o2755)


def capable(path: Path) -> None:
    set_caps(path, NET_RAW, 0, EFFECTIVE)


def unreadable(path: Path) -> None:
    path.chmod(0o711)


GIVEN = {"set-uid": set_uid, "set-gid": set_gid, "file-caps": capable}
CODES = {"set-uid": "target-setuid", "set-gid": "target-setuid", "file-caps": "target-file-caps"}


@pytest.fixture(params=["static", "dynamic"])
def program(request, room, here):
    """A copy whose owner is root, to be given something."""
    need_root()
    return Path(shutil.copy(build(request.param, "waiter", room), here / "waiter"))


@pytest.mark.parametrize("given", GIVEN)
def test_by_root_for_another_user_it_is_locked_and_keeps_what_it_gains(as_user, program, given):
    """Stopped in its own new privileges, it is locked, before main(); the watch is opened after."""
    GIVEN[given](program)
    words = ("--memlock", "max", *AS_NOBODY, "--", program)
    with standing(as_user("root"), *words, before_main=True) as held:
        assert books.not_held(held.pid) == []
        assert gained(held.pid) == given
        held.tell("")
        held.wait_ready()
        assert books.not_held(held.pid) == []
        ran = held.end()
    assert (ran.code, ran.report["lock"]["ok"], ran.report["lock"]["via"]) == (0, True, "ptrace")
    assert (ran.report["watch"]["source"], ran.report["verdict"]) == ("perf", "clean")


def gained(pid: int) -> str:
    """Tell which of the privileges a process of nobody's has."""
    status = books.status(pid)
    if status["Uid"].split()[1] == "0":
        return "set-uid"
    if status["Gid"].split()[1] == "0":
        return "set-gid"
    return "file-caps" if int(status["CapEff"], 16) == NET_RAW else f"nothing: {status['CapEff']}"


@pytest.mark.parametrize("via", ["auto", "ptrace", "preload"])
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("user", ["ambient", "limited"])
def test_by_a_user_it_is_refused_by_name(as_user, program, user, given, via):
    """No way in takes its privileges from it: it does not start."""
    GIVEN[given](program)
    ran = as_user(user).run("--via", via, "--", program)
    assert (ran.code, ran.out) == (125, "")
    assert f"refused [{CODES[given]}]" in ran.err or program_is_static(ran, via)


def program_is_static(ran, via: str) -> bool:
    """A static one is refused for that first, where only a preload may be used."""
    return via == "preload" and "refused [target-static]" in ran.err


def test_the_line_with_ambient_capabilities_is_there(as_user, program):
    """What the file gave and what locking takes, as a line to copy."""
    capable(program)
    ran = as_user("ambient").run("--", program)
    assert f"setcap -r {shlex.quote(str(program))}" in ran.err
    assert "--ambient-caps ipc_lock,net_raw -- " in ran.err


def test_that_line_gives_the_same_and_the_lock(as_user, program):
    """The plain copy with ambient capabilities has NET_RAW, and is locked."""
    words = (*AS_NOBODY, "--ambient-caps", "ipc_lock,net_raw", "--", program)
    with standing(as_user("root"), *words) as held:
        assert int(books.status(held.pid)["CapEff"], 16) & NET_RAW
        assert books.not_held(held.pid) == []


@pytest.mark.parametrize("user", [(), AS_NOBODY], ids=["root", "nobody"])
@pytest.mark.parametrize("via", ["auto", "ptrace"])
def test_an_unreadable_program_is_locked_by_who_may_read_it(as_user, program, user, via):
    """Mode 0711, run by root or by nobody under root: locked, proven, watched."""
    unreadable(program)
    with standing(as_user("root"), "--via", via, *user, "--", program, before_main=True) as held:
        assert books.not_held(held.pid) == []
        held.tell("")
        held.wait_ready()
        ran = held.end()
    assert (ran.code, ran.report["lock"]["ok"], ran.report["verdict"]) == (0, True, "clean")


@pytest.mark.parametrize("via", ["auto", "ptrace"])
def test_an_unreadable_program_is_refused_to_others(as_user, program, via):
    """A user sees nothing of its memory, so there would be no proof."""
    unreadable(program)
    os.chown(program, 0, 0)
    ran = as_user("ambient").run("--via", via, "--", program)
    assert (ran.code, ran.out) == (125, "")
    assert "refused [target-unreadable]" in ran.err
