"""Static servers under load and attack at once: no major fault after arming, and no answer missed.

No preload reaches these two, and they are what containers ship: a Go HTTP server and a daemon
linked with musl. Clients ask them all the time, over old connections and new ones, while every
mapping is pushed out over and over.
"""

from __future__ import annotations

import codecs
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import books
from tests.host import wait_until
from tests.kernel import attack
from tests.kernel.processes import Running, running
from tests.kernel.programs import compile_source
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = Path(__file__).parent.parent / "targets"
CLIENTS = 4
ROUNDS = 20
A_CONNECTION = 10  # requests; then the client makes a new one
BETWEEN = 20  # answers between two rounds of the attack
DEADLINE_S = 20


def text_of(number: int) -> tuple[str, str]:
    """Return what is asked for the Nth time, and the right answer."""
    text = f"question number {number}"
    return text, codecs.encode(text, "rot13")


# ---- the servers, and how they are asked


def build_go(folder: Path) -> Path:
    if not shutil.which("go"):
        skip("no-go")
    variables = {"GOCACHE": folder / "cache", "GOPATH": folder, "CGO_ENABLED": 0, "GOFLAGS": ""}
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = ["go", "build", "-o", folder / "server", SOURCES / "server.go"]
    subprocess.run(command, check=True, env=environment, cwd=folder)
    return folder / "server"


def build_musl(folder: Path) -> Path:
    source = (SOURCES / "echod.c").read_text()
    return compile_source("musl-gcc", "-static -O1", source, folder / "echod")


def ask_by_http(port: int, numbers: range) -> Iterator[bool]:
    """Ask over one connection; tell of each answer whether it was right."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    for number in numbers:
        text, right = text_of(number)
        connection.request("GET", "/?text=" + text.replace(" ", "+"))
        yield connection.getresponse().read().decode() == right
    connection.close()


def ask_by_lines(port: int, numbers: range) -> Iterator[bool]:
    """The same, a line for a line."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        answers = connection.makefile()
        for number in numbers:
            text, right = text_of(number)
            connection.sendall(f"{text}\n".encode())
            yield answers.readline() == right + "\n"


SERVERS = {"go": (build_go, ask_by_http), "musl": (build_musl, ask_by_lines)}


@pytest.fixture(scope="module")
def built(room) -> dict[str, Path]:
    """The servers that were built already."""
    return {}


@pytest.fixture(params=SERVERS)
def server(request, built, room, here) -> tuple[Path, Callable[[int, range], Iterator[bool]]]:
    """A server of its own, whose pages nobody else maps, and how it is asked."""
    attack.need_right()
    build, ask = SERVERS[request.param]
    if request.param not in built:
        built[request.param] = build(room)
    return attack.own_copy(built[request.param], here), ask


# ---- the load


class Load:
    """Clients that ask all the time, until they are told to stop."""

    def __init__(self, ask: Callable[[int, range], Iterator[bool]], port: int) -> None:
        self.ask = ask
        self.port = port
        self.right = 0
        self.wrong: list[object] = []
        self.ending = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]

    def run(self) -> None:
        first = 0
        try:
            while not self.ending:
                for is_right in self.ask(self.port, range(first, first + A_CONNECTION)):
                    self.count(is_right)
                first += A_CONNECTION
        except OSError as error:
            self.wrong.append(error)

    def count(self, is_right: bool) -> None:
        with self.lock:
            self.right += is_right
            if not is_right:
                self.wrong.append("a wrong answer")

    def more(self) -> None:
        """Wait for some more answers."""
        before = self.right
        wait_until(lambda: self.right >= before + BETWEEN or self.wrong, "no answer", DEADLINE_S)
        assert self.wrong == []


@contextmanager
def loaded(ask: Callable[[int, range], Iterator[bool]], port: int) -> Iterator[Load]:
    load = Load(ask, port)
    for thread in load.threads:
        thread.start()
    try:
        load.more()
        yield load
    finally:
        load.ending = True
        for thread in load.threads:
            thread.join(DEADLINE_S)


def port_of(run: Running) -> int:
    return int(run.lines.seen.split()[2])


# ---- what is promised


def test_under_load_and_attack_it_takes_no_major_fault(rtlaunch, server):
    """The kernel refuses each push, and counts no major fault since the watch was armed."""
    program, ask = server
    with running(rtlaunch, [], [program]) as run:
        assert books.not_held(run.target) == []
        before = books.major_faults(run.target)
        with loaded(ask, port_of(run)) as load:
            for _ in range(ROUNDS):
                answers = attack.page_out(run.target)
                assert (answers.taken, answers.refused > 4) == (0, True)
                load.more()
        assert load.right >= ROUNDS * BETWEEN
        assert books.not_locked(run.target) == []
        assert books.major_faults(run.target) == before
        assert run.end() == 0
    report = json.loads(run.report.read_text())
    assert (report["lock"]["via"], report["verdict"]) == ("ptrace", "clean")
    assert report["watch"]["after_arm"]["major"] == 0


def test_the_same_without_rtlaunch_costs_it_faults(server):
    """The control: the same server, load and attack; it is what the promise above is worth."""
    program, ask = server
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([program], **streams) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline().split()[2])
            before = books.major_faults(process.pid)
            with loaded(ask, port) as load:
                for _ in range(ROUNDS):
                    assert attack.page_out(process.pid).taken > 4
                    load.more()
            assert books.major_faults(process.pid) > before + ROUNDS
        finally:
            process.kill()
