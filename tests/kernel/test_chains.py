"""Programs that become others in place: each image is proven anew, or the report says no."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests import books
from tests.standing import PYTHON, standing

PRINT_LOCKED = ("grep", "VmLck", "/proc/self/status")
READ_ITSELF = "exec grep VmLck /proc/self/status"

# exec()s the rest of its arguments after it has done something to its descriptors
TAKE_EVERY_DESCRIPTOR = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for number in range(3, 1024):
    if number != file:
        os.dup2(file, number)
os.set_inheritable(file, True)
os.execvp(sys.argv[2], sys.argv[2:])
"""
CLOSE_EVERY_DESCRIPTOR = """
import os, sys
os.closerange(3, 1 << 16)
os.execvp(sys.argv[1], sys.argv[1:])
"""


EXEC_BARE = "import os, shutil, sys; os.execve(shutil.which(sys.argv[1]), sys.argv[1:], {})"
CLEAR_ENVIRONMENT = (PYTHON[0], "-c", EXEC_BARE)


def paths(report):
    return [image["path"] for image in report["target"]["images"]]


def locked_in(out):
    """Return VmLck in kB as the last image printed it of itself."""
    return int(out.split("VmLck:")[1].split()[0])


def real(program):
    return os.path.realpath(shutil.which(program))


CHAINS = {
    "sh": (["sh", "-c", READ_ITSELF], ["sh", "grep"]),
    "env": (["env", "A=1", *PRINT_LOCKED], ["env", "grep"]),
    "nice": (["nice", "-n", "1", *PRINT_LOCKED], ["nice", "grep"]),
    "setpriv": (["setpriv", "--no-new-privs", *PRINT_LOCKED], ["setpriv", "grep"]),
    "three": (["env", "A=1", "sh", "-c", READ_ITSELF], ["env", "sh", "grep"]),
    "five": (
        ["env", "A=1", "setpriv", "--no-new-privs", "nice", "-n", "1", "sh", "-c", READ_ITSELF],
        ["env", "setpriv", "nice", "sh", "grep"],
    ),
}


@pytest.mark.parametrize("command, programs", CHAINS.values(), ids=CHAINS)
def test_every_image_of_a_chain_is_locked(rtlaunch, command, programs):
    """The last image sees itself locked, and the report has each image in its order, all locked."""
    ran = rtlaunch.run("--", *command)
    assert (ran.code, locked_in(ran.out) > 0) == (0, True)
    assert paths(ran.report) == [real(program) for program in programs]
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True] * len(programs)
    assert (ran.report["lock"]["ok"], ran.report["verdict"]) == (True, "clean")


def test_the_last_image_is_wholly_locked(rtlaunch):
    """`sh -c 'exec python3 …'`: the interpreter, not the shell, is locked and resident."""
    line = f"exec {PYTHON[0]} -c '{PYTHON[2]}'"
    with standing(rtlaunch, "--", "sh", "-c", line) as held:
        assert os.readlink(f"/proc/{held.pid}/exe") == os.path.realpath(PYTHON[0])
        assert books.not_held(held.pid) == []


def test_a_drop_of_privileges_on_the_way_is_proven_too(as_user, targets):
    """setpriv to a user with ambient CAP_IPC_LOCK, started by root: the program is locked."""
    drop = ("--reuid=65534", "--regid=65534", "--clear-groups")
    keep = ("--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock")
    with standing(as_user("root"), "--", "setpriv", *drop, *keep, targets / "waiter") as held:
        assert books.status(held.pid)["Uid"].split()[0] == "65534"
        assert books.not_held(held.pid) == []
        assert held.end().report["verdict"] == "clean"


def test_a_later_image_that_cannot_be_locked_is_refused(as_user):
    """An image that does not fit the limit ends with 125 before its main(), as a first one does."""
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    ran = as_user("root").run("--", *drop, "/usr/bin/python3", "-c", "print('ran')")
    assert (ran.code, ran.out) == (125, "")
    assert "refused [memlock-limit]: python3 needs at least" in ran.err
    assert ran.report["lock"]["ok"] is False
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True, False]


def assert_unannounced(ran):
    """The last image ran unlocked, and the report and stderr say so, with the cause."""
    assert (ran.code, locked_in(ran.out)) == (0, 0)
    assert (ran.report["lock"]["ok"], ran.report["verdict"]) == (False, "unlocked")
    assert "no shim announced it" in ran.report["lock"]["why"]
    assert ran.report["target"]["images"][-1]["locked"] is False
    assert "exec-unannounced" in [finding["code"] for finding in ran.report["findings"]]
    assert "not locked: " in ran.err


@pytest.mark.parametrize("user", ["root", "ambient", "limited"])
def test_a_cleared_environment_is_said(as_user, user):
    """`env -i`, not followed by leave of the user: lock.ok is false, and why says so."""
    words = ("env", "-i", real("grep"), *PRINT_LOCKED[1:])
    assert_unannounced(as_user(user).run("--allow", "exec-unfollowed", "--", *words))


def test_a_program_that_is_no_wrapper_is_not_followed(rtlaunch):
    """Python that execs without environment: as nobody expects it of it, it is said afterwards."""
    assert_unannounced(rtlaunch.run("--", *CLEAR_ENVIRONMENT, *PRINT_LOCKED))


def test_a_shim_taken_out_of_the_preload_is_said(rtlaunch):
    """`env -u LD_PRELOAD` is the same."""
    words = ("env", "-u", "LD_PRELOAD", *PRINT_LOCKED)
    assert_unannounced(rtlaunch.run("--allow", "exec-unfollowed", "--", *words))


def test_an_image_after_an_unlocked_one_is_locked_again(rtlaunch, targets):
    """lock.ok is the conjunction: one image that was not locked is enough, whatever comes after."""
    shim = 'preload=$LD_PRELOAD; exec env -u LD_PRELOAD sh -c "LD_PRELOAD=$preload exec true"'
    ran = rtlaunch.run("--allow", "exec-unfollowed", "--", "sh", "-c", shim)
    locked = [image["locked"] for image in ran.report["target"]["images"]]
    assert (locked[-1], False in locked, ran.report["lock"]["ok"]) == (True, True, False)


def test_a_file_opened_on_the_way_gets_no_byte_of_ours(rtlaunch, tmp_path):
    """`exec 4>file` opens a low descriptor: the file stays empty, and the last image is locked."""
    file = tmp_path / "file"
    ran = rtlaunch.run("--", "sh", "-c", f"exec 4>{file} 5>&4 9>&4; {READ_ITSELF}")
    assert (ran.code, locked_in(ran.out) > 0) == (0, True)
    assert (file.read_bytes(), ran.report["lock"]["ok"]) == (b"", True)


def test_a_file_on_every_descriptor_gets_no_byte_of_ours(rtlaunch, tmp_path):
    """A file in our channel's place is not written to: that image runs unlocked, and is said."""
    file = tmp_path / "file"
    take = (PYTHON[0], "-c", TAKE_EVERY_DESCRIPTOR, file)
    ran = rtlaunch.run("--", *take, *PRINT_LOCKED)
    assert file.read_bytes() == b""
    assert_unannounced(ran)


def test_closing_every_descriptor_is_said(rtlaunch):
    """A program that closes all descriptors closes our channel: the next image is not locked."""
    close = (PYTHON[0], "-c", CLOSE_EVERY_DESCRIPTOR)
    assert_unannounced(rtlaunch.run("--", *close, *PRINT_LOCKED))


def test_a_socket_on_our_descriptor_gets_no_byte_of_ours(rtlaunch):
    """Another socket of the same kind in our channel's place is told from it, and gets nothing."""
    replace = """
import os, socket, sys
ours = int(os.environ["_RTL_CHANNEL"].split(":")[0], 16)
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
os.dup2(one.fileno(), ours)
child = os.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
os.waitpid(child, 0)
other.setblocking(False)
try:
    print("received", other.recv(100))
except BlockingIOError:
    print("received nothing")
"""
    ran = rtlaunch.run("--children", "all", "--", PYTHON[0], "-c", replace, *PRINT_LOCKED)
    assert (ran.code, locked_in(ran.out)) == (0, 0)
    assert "received nothing" in ran.out


def test_a_program_without_a_name_is_a_chain_of_scripts(rtlaunch, tmp_path):
    """A script of an interpreter is one image: the interpreter, locked."""
    script = Path(tmp_path / "script")
    script.write_text("#!/bin/sh\ngrep VmLck /proc/$$/status\n")
    script.chmod(0o755)
    ran = rtlaunch.run("--", script)
    assert (ran.code, locked_in(ran.out) > 0) == (0, True)
    assert paths(ran.report) == [real("sh")]


def test_without_perf_an_exec_that_loses_the_shim_is_still_noticed(rtlaunch):
    """The kept socket tells where perf may not be had: an exec without it makes lock.ok false."""
    ran = rtlaunch.run("--watch", "proc", "--", *CLEAR_ENVIRONMENT, "sleep", "0.3")
    assert ran.code == 0
    assert ran.report["lock"]["ok"] is False
    assert ran.report["verdict"] == "unlocked"
    assert "exec-unannounced" in [found["code"] for found in ran.report["findings"]]


def test_without_perf_a_chain_that_keeps_the_shim_is_proven(rtlaunch):
    """Each exec is announced in time, so none is held against the program."""
    ran = rtlaunch.run("--watch", "proc", "--", "sh", "-c", "exec env sleep 0.3")
    assert ran.code == 0
    assert ran.report["lock"]["ok"] is True
    assert len(ran.report["target"]["images"]) == 3
