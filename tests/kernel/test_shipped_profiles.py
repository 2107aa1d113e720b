"""The profiles that come with rtlaunch, each on the real thing, as its own head says.

The command in the head of each profile is run as it stands there, in a folder with the loops of
examples/02-start-from-a-profile, and attacked as example 01 does: each mapping is pushed out,
over and over, while the loop runs. Only pages that one process maps go: programs are copies.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtlaunch.linux import profiles
from tests import books
from tests.host import compile_c, wait_until
from tests.kernel import attack
from tests.launching import EIGHT_MIB
from tests.skips import skip
from tests.standing import finish, standing

LOOPS = Path(__file__).parents[2] / "examples" / "02-start-from-a-profile"
NAMES = ["control-loop", "python", "jvm", "go"]
ROUNDS = 5
WAKES = 50  # of the loop between two rounds: 50 ms
DEADLINE_S = 20
CAP_IPC_LOCK = 14


@pytest.fixture(scope="module")
def folder():
    """Where the programs are, for everybody to read; each is put there when it is needed."""
    made = Path(tempfile.mkdtemp(prefix="rtlaunch-loops-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def make_control(folder: Path) -> None:
    compile_c(LOOPS / "control.c", folder / "control", "-O2")


def make_python(folder: Path) -> None:
    shutil.copy(LOOPS / "loop.py", folder)
    shutil.copy(os.path.realpath("/usr/bin/python3"), folder / "python3")


def make_jvm(folder: Path) -> None:
    if not shutil.which("javac"):
        skip("no-java")
    subprocess.run(["javac", "-d", folder, LOOPS / "Loop.java"], check=True)


def make_go(folder: Path) -> None:
    if not shutil.which("go"):
        skip("no-go")
    made = folder / "go"
    variables = {"GOCACHE": made / "cache", "GOPATH": made, "CGO_ENABLED": "1", "GOFLAGS": ""}
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = ["go", "build", "-o", folder / "loop", LOOPS / "loop.go"]
    subprocess.run(command, check=True, env=environment, cwd=folder)


MAKE = {"control-loop": make_control, "python": make_python, "jvm": make_jvm, "go": make_go}


class Example:
    """The command in a profile's head, taken apart, and where it can be run."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        words = shlex.split(example_line(name))
        start, end = words.index("rtlaunch"), words.index("--")
        variables = dict(word.split("=", 1) for word in words[:start])
        self.options, self.command = words[start + 1 : end], words[end + 1 :]
        path = f"{folder}:{os.environ['PATH']}"
        self.how = {"cwd": folder, "env": {**os.environ, **variables, "PATH": path}}

    def standing(self, launcher, *options: str):
        """Run it under rtlaunch with ``options``."""
        return standing(launcher, *options, "--", *self.command, **self.how)


def example_line(name: str) -> str:
    text = Path(profiles.SHIPPED_DIR, f"{name}.toml").read_text()
    return next(line[1:] for line in text.splitlines() if f"rtlaunch --profile {name} -- " in line)


@pytest.fixture(params=NAMES)
def example(request, folder: Path) -> Example:
    """The example of each profile, with all that it needs."""
    return made(request.param, folder)


def made(name: str, folder: Path) -> Example:
    built = folder / f"{name}.built"
    if not built.exists():
        MAKE[name](folder)
        built.touch()
        os.sync()  # pages that wait to be written cannot be pushed out
    return Example(name, folder)


def attacked(pid: int) -> attack.Round:
    """Push all of it out once; return when the loop has gone on for a while."""
    before = books.wakes(pid)
    became = attack.page_out(pid)
    wait_until(lambda: books.wakes(pid) > before + WAKES, "the loop does not go on", DEADLINE_S)
    return became


def holds_against_attack(held) -> None:
    """Assert the kernel's view of a running loop before, under and after the attack."""
    assert books.not_locked(held.pid) == []
    # a thread that starts this moment has a stack that is being filled
    wait_until(lambda: books.not_held(held.pid) == [], "it is not all in memory", DEADLINE_S)
    before = books.major_faults(held.pid)
    rounds = [attacked(held.pid) for _ in range(ROUNDS)]
    assert {each.taken for each in rounds} == {0}
    assert all(each.refused for each in rounds)
    assert books.major_faults(held.pid) == before
    ran = held.end()
    assert (ran.code, ran.report["verdict"]) == (0, "clean"), ran.err
    assert ran.report["watch"]["after_arm"]["major"] == 0
    assert ran.out.startswith("cycles ")


def test_the_example_of_each_profile_holds_against_the_attack(rtlaunch, example):
    """All of it is locked and in memory, each advice is refused, no major fault after arming."""
    attack.need_right()
    with example.standing(rtlaunch, *example.options) as held:
        holds_against_attack(held)


def test_the_same_command_without_rtlaunch_faults(example):
    """The attack takes its pages, and it waits for the disk."""
    attack.need_right()
    with plain(example) as pid:
        before = books.major_faults(pid)
        rounds = [attacked(pid) for _ in range(ROUNDS)]
        assert all(each.taken for each in rounds)
        assert books.major_faults(pid) > before
        assert books.locked_bytes(pid) == 0


@contextmanager
def plain(example: Example):
    """Run the command as it is; yield its pid once it says that it is ready."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(example.command, text=True, **pipes, **example.how)
    try:
        assert process.stdout
        yield int(process.stdout.readline().split()[1])
    finally:
        finish(process)


# How many times less is locked than by rtlaunch without the profile, at least.
SAVES = {"control-loop": 50, "python": 1.5, "jvm": 2, "go": 1.2}


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_lowers_what_is_charged(rtlaunch, folder, name):
    """VmLck of the same command under rtlaunch, without its profile and with it."""
    example = made(name, folder)
    with example.standing(rtlaunch) as held:
        without = books.locked_bytes(held.pid)
    with example.standing(rtlaunch, *example.options) as held:
        assert without > SAVES[name] * books.locked_bytes(held.pid)


def test_control_loop_needs_no_privilege(as_user, folder):
    """A user with 8 MiB and no capability: the same proof, and threads that can be made."""
    attack.need_right()
    example = made("control-loop", folder)
    with example.standing(as_user("limited"), *example.options) as held:
        assert books.limits(held.pid)["memlock"] == (EIGHT_MIB, EIGHT_MIB)
        assert not books.holds(held.pid, CAP_IPC_LOCK)
        assert books.locked_bytes(held.pid) <= 6 << 20
        holds_against_attack(held)


def test_the_same_user_gets_no_threads_without_the_profile(as_user, folder):
    """Locked whole, the stacks of 8 threads are more than 8 MiB."""
    example = made("control-loop", folder)
    ran = as_user("limited").run("--", *example.command, **example.how, stdin=subprocess.DEVNULL)
    assert ran.code == 1
    assert "control: no thread" in ran.err
