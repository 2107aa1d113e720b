"""A service as it is and behind rtlaunch, side by side: what its manager sees must not differ.

    pytest -s tests/rigs/test_side_by_side.py        (or: make side-by-side)

prints the table. The service has Type=notify with NotifyAccess=main, WatchdogSec=, a socket that
starts it, and a status text; it is asked over that socket to do what services do in their lives.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pytest

from tests.host import wait_until
from tests.rigs.manager import RTLAUNCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rigs.manager import Manager

PROGRAM = """\
import os, select, signal, socket, sys, time

def notify(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\\0" + address[1:] if address[0] == "@" else address)
        sock.send(text.encode())

assert os.environ["LISTEN_PID"] == os.environ["WATCHDOG_PID"] == str(os.getpid())
listening = socket.socket(fileno=3)
alive = True
signal.signal(signal.SIGHUP, lambda *_: notify("STATUS=reloaded"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

def obey(word):
    global alive
    if word == "hang":
        alive = False
    elif word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif word == "eat":
        eaten = [b"x" * (1 << 20) for _ in range(512)]

notify("READY=1\\nSTATUS=at your service")
while True:
    if alive:
        notify("WATCHDOG=1")
    if select.select([listening], [], [], 0.2)[0]:
        with listening.accept()[0] as asked:
            word = asked.recv(100).decode()
            asked.send(str(os.getpid()).encode())
        obey(word)
"""
COMMAND = "/usr/bin/python3 /opt/side-by-side.py"
PREFIXES = {"plain": "", "wrapped": f"{RTLAUNCH} --core inherit -- "}
TOLERANCE_S = 1.5  # of a loaded machine; a launch takes a tenth of that

UNIT = """\
[Service]
Type=notify
NotifyAccess=main
WatchdogSec=1
WatchdogSignal=SIGABRT
LimitCORE=0
TimeoutStopSec=1
ExecReload=/bin/kill -HUP $MAINPID
ExecStart={prefix}{command}
"""


@dataclass
class Row:
    """What the manager says of one event in a service's life."""

    main_is_program: str
    exe: str
    result: str
    status: str
    restarts: str
    text: str
    seconds: float

    def compared(self) -> tuple[str, ...]:
        """Return all but the time."""
        return tuple(str(getattr(self, each.name)) for each in fields(self)[:-1])


HEADINGS = ("MainPID==getpid()", "exe", "Result", "ExecMainStatus", "NRestarts", "StatusText", "s")


class Life:
    """One service, its socket, and what is asked of it."""

    def __init__(self, manager: Manager, kind: str) -> None:
        self.manager = manager
        self.kind = kind
        self.name = f"side-{kind}.service"
        self.path = f"/run/side-{kind}.socket"
        self.said_pid = self.main_pid = self.exe = "-"

    def install(self, *directives: str) -> None:
        text = UNIT.format(prefix=PREFIXES[self.kind], command=COMMAND)
        self.manager.unit(self.name, text + "\n".join([*directives, ""]))
        self.manager.unit(f"side-{self.kind}.socket", f"[Socket]\nListenStream={self.path}\n")
        self.manager.run("systemctl", "start", f"side-{self.kind}.socket")

    def end(self) -> None:
        for name in (f"side-{self.kind}.socket", self.name):
            self.manager.run("systemctl", "stop", name, check=False)
        self.manager.run("systemctl", "reset-failed", self.name, check=False)

    def show(self, key: str) -> str:
        return self.manager.show(self.name, key)

    def ask(self, word: str) -> None:
        """Send the service a word, which starts it if need be, and note who answers."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(20)
            asking.connect(f"/proc/{self.manager.leader}/root{self.path}")
            asking.send(word.encode())
            self.said_pid = asking.recv(100).decode()

    def look(self) -> None:
        """Note which process is the main one, and what it runs."""
        self.main_pid = self.show("MainPID")
        self.exe = self.manager.run("readlink", f"/proc/{self.main_pid}/exe").strip()

    def row(self, seconds: float) -> Row:
        return Row(
            str(self.said_pid == self.main_pid),
            self.exe,
            self.show("Result"),
            self.show("ExecMainStatus"),
            self.show("NRestarts"),
            self.show("StatusText"),
            seconds,
        )

    def is_over(self) -> bool:
        return self.show("ActiveState") in ("failed", "inactive")

    def await_end(self) -> None:
        wait_until(self.is_over, f"{self.name} does not end", 20)


def start(life: Life) -> None:
    """Somebody connects to its socket."""
    life.ask("pid")


def ready(life: Life) -> None:
    """systemctl start comes back once READY=1 was accepted: what is locked by then?"""
    life.manager.run("systemctl", "start", life.name)
    unheld = life.manager.not_held(life.show("MainPID"))
    assert (life.kind == "plain") == bool(unheld), unheld
    life.ask("pid")


def watchdog(life: Life) -> None:
    """It does not say WATCHDOG=1 in time."""
    life.ask("hang")
    life.await_end()


def crash(life: Life) -> None:
    """It crashes, and is started again."""
    life.ask("crash")
    wait_until(lambda: life.show("NRestarts") == "1", "it is not restarted", 20)
    wait_until(lambda: life.show("ActiveState") == "active", "it does not come up again", 20)
    life.ask("pid")
    life.look()


def reload(life: Life) -> None:
    """systemctl reload, by SIGHUP."""
    life.manager.run("systemctl", "reload", life.name)
    wait_until(lambda: life.show("StatusText") == "reloaded", "it does not reload")


def stop(life: Life) -> None:
    """systemctl stop."""
    life.manager.run("systemctl", "stop", f"side-{life.kind}.socket", life.name)


def deaf(life: Life) -> None:
    """systemctl stop, and it ignores SIGTERM."""
    life.ask("deaf")
    stop(life)


def out_of_memory(life: Life) -> None:
    """It takes more than MemoryMax=."""
    life.ask("eat")
    life.await_end()


# The event; whether it runs before that; and what its unit has beside the usual.
EVENTS: dict[str, tuple[Callable[[Life], None], bool, tuple[str, ...]]] = {
    "start": (start, False, ()),
    "ready": (ready, False, ()),
    "watchdog miss": (watchdog, True, ()),
    "crash, restart": (crash, True, ("Restart=on-failure", "RestartSec=100ms")),
    "reload by HUP": (reload, True, ()),
    "stop": (stop, True, ()),
    "stop, TERM ignored": (deaf, True, ()),
    "OOM kill": (out_of_memory, True, ("MemoryMax=96M", "WatchdogSec=20")),
}


@pytest.fixture
def lives(manager: Manager) -> Iterator[list[Life]]:
    """The service, plain and wrapped."""
    manager.write("/opt/side-by-side.py", PROGRAM)
    made = [Life(manager, kind) for kind in PREFIXES]
    yield made
    for life in made:
        life.end()


def live(life: Life, event: str) -> Row:
    """Have one service go through one event; return what the manager says of it then."""
    happen, runs, directives = EVENTS[event]
    life.install(*directives)
    if runs:
        life.ask("pid")
        life.look()
    began = time.monotonic()
    happen(life)
    seconds = time.monotonic() - began
    if not runs:
        life.look()
    row = life.row(seconds)
    life.end()
    return row


def table(rows: dict[str, list[Row]]) -> str:
    """Return the table, two lines for each event."""
    lines = [("event", "", *HEADINGS)]
    for event, both in rows.items():
        for kind, row in zip(PREFIXES, both, strict=True):
            name = event if kind == "plain" else ""
            lines.append((name, kind, *row.compared(), f"{row.seconds:.2f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def test_the_manager_sees_no_difference(lives: list[Life]) -> None:
    """Eight events: main PID, executable, result, status, restarts and status text are the same."""
    rows = {event: [live(life, event) for life in lives] for event in EVENTS}
    different = {
        event: (plain.compared(), wrapped.compared())
        for event, (plain, wrapped) in rows.items()
        if plain.compared() != wrapped.compared()
    }
    print(f"\n{table(rows)}\n\ndifference: {different or 'empty'}")
    assert different == {}
    assert all(row.main_is_program == "True" for both in rows.values() for row in both)
    for event, (plain, wrapped) in rows.items():
        assert abs(plain.seconds - wrapped.seconds) < TOLERANCE_S, event
