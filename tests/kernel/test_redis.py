"""redis-server, a real server with threads and a heap of its own, under load and attack.

The attack pushes out every page of it that is not locked, over and over, while
redis-benchmark keeps it busy. The server is a copy, since only pages that one process maps go.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import books
from tests.host import wait_until
from tests.kernel import attack
from tests.skips import skip
from tests.standing import DEADLINE_S, finish, target_of

ROUNDS = 5
# The delay ends when the test ends strace.
HOLD_AT_GO = (
    "strace", "-D", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", "signal=none",
    "-e", "inject=sendto:delay_enter=20000000:when=2",
)  # fmt: skip
SENDTO = {"44", "206"}  # x86_64; the others


@pytest.fixture(scope="module")
def server():
    """A redis-server of our own: Debian's redis-tools has it, under the name redis-check-rdb."""
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if not found or not shutil.which("redis-benchmark"):
        skip("no-redis")
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-redis-"))
    # the program goes by its name, which need not be that of the file
    yield attack.own_copy(Path(found), folder).rename(folder / "redis-server")
    shutil.rmtree(folder)


class Redis:
    """A running server, and how to speak to it."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.socket = folder / "socket"
        self.report_path = folder / "report.json"
        self.pid = 0

    def ask(self, *words: str) -> str:
        """Send one command; return the first line of the reply, empty if redis hung up."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(self.socket))
            peer.sendall(f"*{len(words)}\r\n".encode())
            peer.sendall(b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words))
            return peer.recv(4096).decode().partition("\r\n")[0]

    def answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            assert self.process.poll() is None, self.process.communicate()
            return False

    def load(self, requests: int) -> subprocess.Popen[bytes]:
        """Start redis-benchmark on it."""
        words = ("-s", str(self.socket), "-q", "-n", str(requests), "-c", "20", "-d", "512")
        command = ["redis-benchmark", *words, "-t", "set,get,lpush,incr"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def under_load_and_attack(self, requests: int) -> list[attack.Round]:
        """Attack it, and go on until the load is done; return what became of each round."""
        load = self.load(requests)
        rounds = []
        try:
            while load.poll() is None or len(rounds) < ROUNDS:
                rounds.append(attack.page_out(self.pid))
                assert self.answers()
        finally:
            load.kill()
            load.wait()
        assert load.returncode == 0
        return rounds

    def end(self) -> tuple[int, dict[str, object]]:
        """Wait for its end; return exit code and report."""
        self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, json.loads(self.report_path.read_text())


@contextmanager
def starting(rtlaunch, server: Path, folder: Path, *options: str, before: tuple[str, ...] = ()):
    """Start rtlaunch on the server: on a socket in a folder, keeping nothing."""
    where = ("--port", "0", "--unixsocket", str(folder / "socket"))
    redis = (*where, "--save", "", "--dir", str(folder))
    words = ("--report", str(folder / "report.json"), *options, "--", str(server), *redis)
    command = [*before, *rtlaunch.words(*words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **streams)
    try:
        yield Redis(process, folder)
    finally:
        finish(process)


@contextmanager
def running(rtlaunch, server: Path, folder: Path, *options: str):
    """A server that answers."""
    with starting(rtlaunch, server, folder, *options) as redis:
        wait_until(redis.answers, "redis does not answer")
        redis.pid = target_of(redis.process.pid, server)
        yield redis


def test_every_mapping_is_locked_and_resident_when_go_is_sent(rtlaunch, server, tmp_path):
    """rtlaunch is held at the call that sends go: nothing of redis is unlocked or missing then."""
    if not shutil.which("strace"):
        skip("no-strace")
    with starting(rtlaunch, server, tmp_path, before=HOLD_AT_GO) as redis:
        launcher = redis.process.pid
        pid = target_of(launcher, server)
        at_call = Path(f"/proc/{launcher}/syscall")
        wait_until(
            lambda: at_call.read_text().split()[0] in SENDTO and books.locked_bytes(pid),
            "rtlaunch does not come to send go",
        )
        locked = books.locked_bytes(pid)
        assert books.not_held(pid) == []
        assert not redis.socket.exists()
        release(launcher)
        wait_until(redis.answers, "redis does not answer")
        redis.ask("SHUTDOWN", "NOSAVE")
        _, report = redis.end()
    assert report["lock"]["ok"] is True
    assert report["lock"]["locked_bytes"] == locked


def release(launcher: int) -> None:
    """End the strace of a launcher, which then goes on by itself."""
    tracer = int(books.status(launcher)["TracerPid"])
    os.kill(tracer, signal.SIGKILL)


def test_load_and_attack_cause_no_major_fault(rtlaunch, server, tmp_path):
    """After arming the kernel counts no major fault, and each advice to page out was refused."""
    attack.need_right()
    with running(rtlaunch, server, tmp_path) as redis:
        before = books.major_faults(redis.pid)
        rounds = redis.under_load_and_attack(20_000)
        assert books.not_held(redis.pid) == []
        assert books.major_faults(redis.pid) == before
        redis.ask("SHUTDOWN", "NOSAVE")
        code, report = redis.end()
    assert {each.taken for each in rounds} == {0}
    assert (code, report["verdict"]) == (0, "clean")
    watch = report["watch"]
    assert (watch["before_arm"]["major"], watch["after_arm"]["major"]) == (before, 0)


def test_the_same_attack_makes_an_unlocked_redis_fault(rtlaunch, server, tmp_path):
    """Under --lock none it takes major faults after each round, and the report says no fewer."""
    attack.need_right()
    with running(rtlaunch, server, tmp_path, "--lock", "none", "--on-major", "none") as redis:
        before = books.major_faults(redis.pid)
        rounds = redis.under_load_and_attack(500)
        major = books.major_faults(redis.pid) - before
        redis.ask("SHUTDOWN", "NOSAVE")
        code, report = redis.end()
    assert all(each.taken for each in rounds)
    assert major >= len(rounds)
    assert report["watch"]["after_arm"]["major"] >= major
    assert (code, report["verdict"]) == (0, "unlocked")


def test_the_exit_code_is_the_one_that_redis_gave(rtlaunch, server, tmp_path):
    """0 after SIGTERM sent to rtlaunch, 1 for a configuration that it refuses."""
    with running(rtlaunch, server, tmp_path) as redis:
        redis.process.terminate()
        assert redis.end()[0] == 0
    ran = rtlaunch.run("--", server, "--no-such-setting", "x")
    assert (ran.code, ran.report["exit"]["by"]) == (1, "target")
