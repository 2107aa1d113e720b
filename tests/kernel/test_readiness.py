"""--notify: READY=1 for a program that cannot say it, by its main PID, once it is proven."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests import books
from tests.host import compile_c, wait_until
from tests.kernel import seccomp
from tests.kernel.programs import FLAGS_32, compile_source
from tests.skips import skip
from tests.standing import PYTHON, standing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.launching import Launcher

READY = b"READY=1"
STATIC = """\
#include <stdio.h>
#include <unistd.h>
int main(void) {
    printf("ready %d\\n", getpid());
    fflush(stdout);
    return getchar() == EOF ? 0 : 1;
}
"""


class Manager:
    """Whom NOTIFY_SOCKET names: it learns of each datagram who sent it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.socket.settimeout(20)

    def hear(self) -> tuple[bytes, int]:
        """Return the next datagram and its sender."""
        said, control, _, _ = self.socket.recvmsg(4096, 1024)
        pid, _, _ = struct.unpack("iII", control[0][2])
        return said, pid

    def has_heard(self) -> bool:
        """Tell whether something waits."""
        return bool(select.select([self.socket], [], [], 0)[0])


@contextmanager
def managed(address: str) -> Iterator[Manager]:
    made = Manager(address)
    try:
        yield made
    finally:
        made.socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A manager that is named in the environment."""
    with managed(str(tmp_path / "notify")) as made:
        monkeypatch.setenv("NOTIFY_SOCKET", made.address)
        yield made


@pytest.fixture
def static(here: Path) -> Path:
    source = here / "own.c"
    source.write_text(STATIC)
    return compile_c(source, here / "own", "-static")


@pytest.fixture(params=["dynamic", "static", "dynamic-32", "static-32"])
def program(request: pytest.FixtureRequest, here: Path) -> tuple[str | Path, ...]:
    """The words of a program: the shim says it in a dynamic one, ptrace in the name of another."""
    if request.param == "dynamic":
        return PYTHON
    if request.param == "static":
        return (request.getfixturevalue("static"),)
    if os.uname().machine != "x86_64":
        skip("not-x86")
    flags = f"{FLAGS_32} -static" if "static" in request.param else FLAGS_32
    try:
        return (compile_source("cc", flags, STATIC, here / request.param),)
    except subprocess.CalledProcessError:
        skip("no-32-bit")
        raise


@pytest.mark.parametrize("via", ["preload", "ptrace"])
def test_in_exec_mode_the_program_says_it(rtlaunch: Launcher, manager: Manager, via: str) -> None:
    """The sender is the program's own pid by the kernel's word, and it is locked by then."""
    words = ("--notify", "--mode", "exec", "--via", via, "--", *PYTHON)
    with standing(rtlaunch, *words) as held:
        assert manager.hear() == (READY, held.process.pid)
        assert books.not_held(held.process.pid) == []


def test_it_is_said_before_main_and_after_the_proof(
    rtlaunch: Launcher, manager: Manager, program: tuple[str | Path, ...]
) -> None:
    """By its own pid, which is the main one; the instants are in the report."""
    with standing(rtlaunch, "--notify", "--mode", "exec", "--", *program) as held:
        assert manager.hear() == (READY, held.pid)
        assert held.pid == held.process.pid
        assert books.not_held(held.pid) == []
        wait_until(held.report_path.exists, "no report while it runs")
        times = json.loads(held.report_path.read_text())["time"]
    assert times["proven_ns"] < times["ready_ns"] < times["go_ns"]


def test_what_it_was_said_on_is_gone(
    rtlaunch: Launcher, manager: Manager, program: tuple[str | Path, ...]
) -> None:
    """The program has as many descriptors as without --notify."""
    words = ("--mode", "exec", "--", *program)
    counts = []
    for option in ((), ("--notify",)):
        with standing(rtlaunch, *option, *words) as held:
            counts.append(len(os.listdir(f"/proc/{held.pid}/fd")))
    assert counts[0] == counts[1]


def test_in_supervise_mode_we_say_it(rtlaunch: Launcher, manager: Manager) -> None:
    """We are the main PID then; the program, whose word would not be heard, is not told where."""
    shown = ("sh", "-c", "echo ready $$; echo ${NOTIFY_SOCKET-none}; read line")
    with standing(rtlaunch, "--notify", "--mode", "supervise", "--", *shown) as held:
        assert manager.hear() == (READY, held.process.pid)
        assert held.process.stdout
        assert held.process.stdout.readline() == "none\n"


def test_an_abstract_name_is_one(rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOTIFY_SOCKET=@name, as containers have it."""
    with managed(f"@rtlaunch-test-{os.getpid()}") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
        with standing(rtlaunch, "--notify", "--mode", "exec", "--", *PYTHON) as held:
            assert manager.hear() == (READY, held.process.pid)


def test_it_is_said_once(rtlaunch: Launcher, manager: Manager) -> None:
    """A script that execs another program: at the first proof, and not again."""
    line = ("sh", "-c", f"exec {PYTHON[0]} -c '{PYTHON[2]}'")
    with standing(rtlaunch, "--notify", "--mode", "exec", "--", *line):
        assert manager.hear()[0] == READY
        assert not manager.has_heard()


def test_a_program_that_is_refused_is_not_ready(rtlaunch: Launcher, manager: Manager) -> None:
    """A lock that the kernel refuses: 125, and nobody is told."""
    number = {"x86_64": 151}.get(os.uname().machine, 230)  # mlockall
    denied = partial(seccomp.answer, number, seccomp.EPERM_ANSWER)
    ran = rtlaunch.run("--notify", "--mode", "exec", "--", "true", preexec_fn=denied)
    assert (ran.code, "refused [lock-denied]" in ran.err) == (125, True)
    assert not manager.has_heard()


@pytest.mark.parametrize("mode", ["exec", "supervise"])
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/nowhere/notify", "No such file or directory"),
        ("@rtlaunch-nobody", "Connection refused"),
        ("relative", "neither an absolute path nor a name"),
        ("vsock:2:1", "neither an absolute path nor a name"),
        ("/" + "x" * 200, "an address at most 107"),
    ],
)
def test_a_socket_that_is_none_is_refused_by_name(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch, mode: str, address: str, said: str
) -> None:
    """125 at once, with the kernel's reason; nothing was started."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    ran = rtlaunch.run("--notify", "--mode", mode, "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert "refused [notify-failed]" in ran.err
    assert said in ran.err


def test_allowed_by_name_it_runs_untold(
    rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--allow notify-failed."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    words = ("--notify", "--allow", "notify-failed", "--mode", "exec", "--", "echo", "started")
    ran = rtlaunch.run(*words)
    assert (ran.code, ran.out) == (0, "started\n")


def test_nobody_to_tell_is_a_warning(rtlaunch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NOTIFY_SOCKET: the program runs."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ran = rtlaunch.run("--notify", "--", "echo", "started")
    assert (ran.code, ran.out) == (0, "started\n")
    assert "warning [notify-missing]" in ran.err


def test_a_program_that_nothing_of_ours_is_in_cannot_say_it(
    rtlaunch: Launcher, manager: Manager, static: Path
) -> None:
    """A static one under --via preload, as allowed, in exec mode: refused by name."""
    words = ("--via", "preload", "--allow", "target-static", "--", static)
    ran = rtlaunch.run("--notify", "--mode", "exec", *words)
    assert ran.code == 125
    assert "refused [notify-failed]" in ran.err


@contextmanager
def queue_filled(manager: Manager) -> Iterator[None]:
    """Send until the manager, which does not read, has room for no more; then hold that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        other.connect(manager.address)
        with suppress(BlockingIOError):
            while True:
                other.send(b"x" * 1000)
        yield


def test_a_manager_that_does_not_read_holds_nobody_for_ever(
    rtlaunch: Launcher, manager: Manager
) -> None:
    """Its queue is full: given up after five seconds, refused by name."""
    with queue_filled(manager):
        ran = rtlaunch.run("--notify", "--mode", "exec", "--", "echo", "started")
    assert (ran.code, ran.out) == (125, "")
    assert "Resource temporarily unavailable" in ran.err


def test_a_stop_while_the_manager_does_not_read(rtlaunch: Launcher, manager: Manager) -> None:
    """SIGTERM in that wait: it ends by it, as it would before its first handler."""
    with queue_filled(manager):
        process = rtlaunch.start("--notify", "--mode", "exec", "--", "sleep", "60")
        wait_until(lambda: waits_to_send(process), "it never came to the sending")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM


def waits_to_send(process: subprocess.Popen[str]) -> bool:
    """Tell whether a process sleeps in sendmsg: number 46 on x86_64, 211 on aarch64."""
    with open(f"/proc/{process.pid}/syscall", encoding="ascii") as file:
        number = file.read().split()[0]
    exe = os.readlink(f"/proc/{process.pid}/exe")
    return number in ("46", "211") and exe == os.path.realpath(shutil.which("sleep") or "")
