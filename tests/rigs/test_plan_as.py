"""``rtlaunch plan --as`` in the engines themselves: run as printed, locked as under rtlaunch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.host import wait_until
from tests.rigs.manager import RTLAUNCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rigs.manager import Manager

SLEEP = ("/usr/bin/sleep", "1000")
PAGE_KB = 4
STACK_KB = 4 * PAGE_KB  # how far two stacks differ: the kernel begins each somewhere else

# What a command line can hold, and what systemd would replace in it.
TRAPS = [
    "", " ", "it's", 'say "x"', "$HOME", "${HOME}", "$$", "%n", "%%", "\\", "a\\", ";", "#", "a\nb",
    "\t", "\x07", "é", "\\x41", "-", "@x",
]  # fmt: skip
PRINT = 'printf "%s\\0" "$@" >/run/rtlaunch-plan-as/words'


class Unit:
    """A unit that a test writes, stopped when it is over."""

    def __init__(self, manager: Manager, name: str) -> None:
        self.manager, self.name = manager, name

    def planned(self, *words: str) -> str:
        """Install what ``plan --as systemd`` prints, as printed."""
        text = self.manager.run(RTLAUNCH, "plan", "--as", "systemd", *words)
        self.manager.unit(self.name, text)
        return text

    def launched(self, *words: str) -> None:
        """Install a unit that has rtlaunch in front of the command."""
        text = f"[Service]\nType=exec\nExecStart={RTLAUNCH} {' '.join(words)}\n"
        self.manager.unit(self.name, text)

    def start(self, check: bool = True) -> None:
        self.manager.run("systemctl", "start", self.name, check=check)

    def status(self, key: str) -> str:
        text = self.manager.read(f"/proc/{self.manager.show(self.name, 'MainPID')}/status")
        return dict(line.partition(":")[::2] for line in text.splitlines())[key].strip()

    def locked_kb(self) -> tuple[int, int]:
        """Return VmLck without the stack, and the stack, once the program sleeps locked."""
        wait_until(lambda: self.status("Name") == "sleep", "it is not the program")
        wait_until(lambda: int(self.status("VmLck").split()[0]) > 0, "it is not locked")
        wait_until(lambda: self.status("State").startswith("S"), "it does not sleep")
        smaps = self.manager.read(f"/proc/{self.manager.show(self.name, 'MainPID')}/smaps")
        stack = int(smaps.partition("[stack]")[2].split()[1])
        return int(self.status("VmLck").split()[0]) - stack, stack


@pytest.fixture
def units(manager: Manager) -> Iterator[tuple[Unit, Unit]]:
    """One unit for what is planned, one for what is launched."""
    made = tuple(Unit(manager, f"rtlaunch-plan-as-{name}.service") for name in ("planned", "run"))
    yield made[0], made[1]
    for unit in made:
        manager.run("systemctl", "stop", unit.name, check=False)
        manager.run("systemctl", "reset-failed", unit.name, check=False)


@pytest.mark.parametrize("options", [(), ("--user", "daemon"), ("--lock", "current")])
def test_a_unit_as_printed_is_locked_as_under_rtlaunch(
    units: tuple[Unit, Unit], options: tuple[str, ...]
) -> None:
    """VmLck is the launched one's; the stacks differ by where the kernel began them."""
    planned, launched = units
    planned.planned(*options, "--", *SLEEP)
    launched.launched(*options, "--", *SLEEP)
    planned.start()
    launched.start()
    (rest, stack), (meant, meant_stack) = planned.locked_kb(), launched.locked_kb()
    assert rest == meant > 1000
    assert abs(stack - meant_stack) <= STACK_KB
    assert planned.status("Uid") == launched.status("Uid")


def test_a_unit_as_printed_has_nothing_to_complain_of(units: tuple[Unit, Unit]) -> None:
    """systemd-analyze verify says nothing, where the unit lies."""
    planned, _ = units
    planned.planned("--user", "daemon", "--sched", "fifo:5", "--", *SLEEP)
    path = f"/etc/systemd/system/{planned.name}"
    assert planned.manager.run("systemd-analyze", "verify", path) == ""


def test_a_unit_as_printed_does_what_was_asked(units: tuple[Unit, Unit]) -> None:
    """Policy, priority, CPUs, nice value, limit, slack: of the process, by the kernel's books."""
    planned, _ = units
    planned.planned(
        "--sched", "fifo:7", "--cpu-list", "1", "--nice", "-3", "--limit", "nofile=100:200",
        "--timer-slack", "70us", "--no-new-privs", "--", *SLEEP,
    )  # fmt: skip
    planned.start()
    planned.locked_kb()
    run, pid = planned.manager.run, planned.manager.show(planned.name, "MainPID")
    assert [line.rpartition(" ")[2] for line in run("chrt", "-p", pid).splitlines()] == [
        "SCHED_FIFO",
        "7",
    ]
    assert planned.status("Cpus_allowed_list") == "1"
    assert planned.status("NoNewPrivs") == "1"
    found = run("prlimit", "--pid", pid, "--nofile", "--noheadings", "--output", "SOFT,HARD")
    assert found.split() == ["100", "200"]
    assert planned.manager.show(planned.name, "TimerSlackNSec") == "70000"
    assert planned.manager.show(planned.name, "Nice") == "-3"


def test_systemd_gives_the_words_back(units: tuple[Unit, Unit]) -> None:
    """Each argument reaches the program as it was: quotes, %, $, backslashes, line breaks."""
    planned, _ = units
    planned.manager.run("mkdir", "-p", "/run/rtlaunch-plan-as")
    planned.planned("--", "/bin/sh", "-c", PRINT, "sh", *TRAPS)
    planned.start()
    read = "import json; print(json.dumps(open('/run/rtlaunch-plan-as/words').read()))"
    wait_until(
        lambda: planned.manager.show(planned.name, "ActiveState") == "inactive", "it runs on"
    )
    words = json.loads(planned.manager.run("python3", "-c", read)).split("\0")[:-1]
    assert words == TRAPS


def test_a_unit_as_printed_refuses_by_itself(units: tuple[Unit, Unit]) -> None:
    """A limit that somebody made small later: 125, one line in the journal, main() never ran."""
    planned, _ = units
    text = planned.planned("--user", "daemon", "--ambient-caps", "none", "--", *SLEEP)
    small = text.replace("LimitMEMLOCK=infinity", "LimitMEMLOCK=64K\nRestart=always")
    planned.manager.unit(planned.name, small)
    planned.start(check=False)
    planned.manager.wait_for(planned.name, "ActiveState", "failed")
    assert planned.manager.show(planned.name, "ExecMainStatus") == "125"
    assert planned.manager.show(planned.name, "NRestarts") == "0"
    said = planned.manager.journal(planned.name)
    assert "rtlaunch: refused [memlock-limit]: mlockall: errno 12;" in said


def test_a_child_of_the_unit_is_left_alone(units: tuple[Unit, Unit]) -> None:
    """It inherits LD_PRELOAD and the setting, and is not the one that systemd started."""
    planned, _ = units
    script = "grep VmLck /proc/self/status; grep VmLck /proc/$$/status"
    planned.planned("--", "/bin/sh", "-c", script)
    planned.start()
    wait_until(lambda: planned.manager.journal(planned.name).count("VmLck") == 2, "nothing said")
    child, program = [
        int(line.split()[1])
        for line in planned.manager.journal(planned.name).splitlines()
        if line.startswith("VmLck")
    ]
    assert child == 0 < program


def test_a_session_gets_the_limits_as_printed(manager: Manager) -> None:
    """pam_limits reads the file: soft and hard limits of the user that was named, in its units."""
    options = ("--user", "daemon", "--memlock", "128K", "--limit", "nofile=100:200", "--core", "0")
    text = manager.run(RTLAUNCH, "plan", "--as", "limits.d", *options, "--", "/bin/true")
    manager.write("/etc/security/limits.d/50-rtlaunch-plan-as.conf", text)
    ask = "ulimit -S -l; ulimit -H -l; ulimit -S -n; ulimit -H -n; ulimit -H -c"
    said = manager.run("runuser", "-s", "/bin/sh", "daemon", "-c", ask)
    manager.run("rm", "/etc/security/limits.d/50-rtlaunch-plan-as.conf")
    assert said.split() == ["128", "128", "100", "200", "0"]
