"""What ``rtlaunch fit`` recommends, taken at its word.

The line that it prints is put into a script as it is, and run in a memory cgroup of the size that
it recommends, with the memlock limit that it recommends and without CAP_IPC_LOCK, under the same
workload and under the attack of examples/01: no major fault, no kill. With a quarter less memlock
it does not start.

A limit above the hard one needs CAP_SYS_RESOURCE. Where nobody has that, the same is shown with
CAP_IPC_LOCK instead of the limit, for programs that need more than the hard limit; that less is
refused can be shown anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import books
from tests.host import compile_c, wait_until
from tests.installs import ROOT
from tests.kernel import attack, fitting
from tests.launching import AS_NOBODY, EIGHT_MIB, NOBODY
from tests.skips import skip
from tests.standing import finish, target_of

CAP_SYS_RESOURCE = 24
LOOPS = ROOT / "examples" / "02-start-from-a-profile"
ROUNDS = 5
WAKES = 400  # of the loops' threads, 1000 a second: how long the workload is
REQUESTS = 4000
DEADLINE_S = 300  # an emulated machine is slow
JAVA = (
    "-Xms64m", "-Xmx64m", "-XX:+AlwaysPreTouch", "-XX:+UseSerialGC", "-XX:-UsePerfData",
    "-XX:ReservedCodeCacheSize=32m", "-XX:CompressedClassSpaceSize=16m", "-Xss512k",
)  # fmt: skip


# --- the programs ----------------------------------------------------------------------------


class Loop:
    """A program that says "ready PID", and works until its standard input ends."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def started(self, process: subprocess.Popen[str]) -> int:
        """Wait until it works; return its pid."""
        line = process.stdout.readline()
        assert line.startswith("ready "), (line, process.communicate())
        return int(line.split()[1])

    def work(self, pid: int) -> None:
        """Let it work for a while."""
        before = books.wakes(pid)
        wait_until(lambda: books.wakes(pid) > before + WAKES, "it does not go on", DEADLINE_S)

    def end(self) -> None:
        """Tell it that it is enough, where the end of its input does not."""


class Redis(Loop):
    """redis-server on a socket, and redis-benchmark as its workload."""

    def __init__(self, server: Path) -> None:
        self.server = server
        self.socket = server.parent / "socket"
        where = ["--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "777"]
        super().__init__([str(server), *where, "--save", "", "--dir", str(server.parent)])

    def ask(self, *words: str) -> str:
        """Give it one command."""
        command = ["redis-cli", "-s", str(self.socket), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def started(self, process: subprocess.Popen[str]) -> int:
        wait_until(lambda: self.ask("PING") == "PONG", "redis does not answer", DEADLINE_S)
        return target_of(process.pid, self.server)

    def work(self, pid: int) -> None:
        words = ["-s", str(self.socket), "-q", "-n", str(REQUESTS), "-c", "20", "-d", "512"]
        command = ["redis-benchmark", *words, "-t", "set,get,lpush,incr"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE_S)

    def end(self) -> None:
        self.ask("SHUTDOWN", "NOSAVE")


def make_control(folder: Path) -> Loop:
    return Loop([str(compile_c(LOOPS / "control.c", folder / "control", "-O2"))])


def make_python(folder: Path) -> Loop:
    shutil.copy(LOOPS / "loop.py", folder)
    shutil.copy(os.path.realpath("/usr/bin/python3"), folder / "python3")
    return Loop([str(folder / "python3"), str(folder / "loop.py")])


def make_java(folder: Path) -> Loop:
    if not shutil.which("javac"):
        skip("no-java")
    subprocess.run(["javac", "-d", folder, LOOPS / "Loop.java"], check=True)
    return Loop([str(shutil.which("java")), *JAVA, "-cp", str(folder), "Loop"])


def make_redis(folder: Path) -> Loop:
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if not found or not shutil.which("redis-benchmark"):
        skip("no-redis")
    return Redis(Path(shutil.copy(found, folder / "redis-server")))


MAKE = {"control": make_control, "python": make_python, "java": make_java, "redis": make_redis}


@pytest.fixture(params=MAKE, scope="module")
def program(request):
    """A program of our own: only pages that one process maps can be pushed out."""
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-promise-"))
    folder.chmod(0o777)
    yield MAKE[request.param](folder)
    shutil.rmtree(folder)


# --- the cgroup ------------------------------------------------------------------------------


class Group:
    """A memory cgroup, of version 1 or 2."""

    def __init__(self) -> None:
        top = Path("/sys/fs/cgroup")
        first = (top / "memory" / "memory.limit_in_bytes").exists()
        self.path = (top / "memory" if first else top) / f"rtlaunch-promise-{os.getpid()}"
        self.limit = self.path / ("memory.limit_in_bytes" if first else "memory.max")
        try:
            self.path.mkdir()
            assert self.limit.exists()
        except (OSError, AssertionError):
            self.remove()
            skip("no-memory-cgroup")

    def remove(self) -> None:
        def gone() -> bool:
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return True
            except OSError:
                return False
            return True

        wait_until(gone, f"{self.path} cannot be removed")


@pytest.fixture
def group():
    """A memory cgroup without a limit yet."""
    made = Group()
    yield made
    made.remove()


# --- running ---------------------------------------------------------------------------------


def measured(launcher, program: Loop) -> dict[str, object]:
    """Measure the program under its workload; return what was found."""
    words = launcher.words("fit", "--json", "--", *program.command)
    with running(words, program, launcher) as (process, pid):
        for _ in range(ROUNDS):
            program.work(pid)
        program.end()
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return fitting.parted(out)[1]


@contextmanager
def running(words: list[str], program: Loop, launcher, **variables: str):
    """Start a command that becomes the program; yield its process and the program's pid."""
    path = f"{launcher.program.parent}:{os.environ['PATH']}"
    how = {"env": {**os.environ, "PATH": path, **variables}, "cwd": launcher.folder}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, text=True, **pipes, **how)
    try:
        yield process, program.started(process)
    finally:
        finish(process)


def script(launcher, line: str) -> Path:
    """Write the line into a script, as it is."""
    path = launcher.folder / "start"
    path.write_text(f"#!/bin/sh\nexec {line}\n")
    path.chmod(0o755)
    return path


def holds(launcher, program: Loop, group: Group, found, become: list[str]) -> None:
    """Run the line in a cgroup of the recommended size, and attack it while it works."""
    said = found["recommended"]
    group.limit.write_text(str(said["container_bytes"]))
    path = script(launcher, said["line"])
    report = launcher.report_path()
    enter = ["sh", "-c", f'echo $$ >{group.path}/cgroup.procs; exec "$@"', "sh", *become, str(path)]
    os.sync()  # pages that wait to be written cannot be pushed out
    with running(enter, program, launcher, RTLAUNCH_REPORT=str(report)) as (process, pid):
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(attack.page_out(pid))
            program.work(pid)
        wait_until(lambda: books.not_held(pid) == [], "it is not all in memory", DEADLINE_S)
        locked, inside = books.locked_bytes(pid), fitting.resident(pid)
        beside = fitting.resident(process.pid)
        program.end()
        out, err = process.communicate(timeout=DEADLINE_S)
    told = json.loads(report.read_text())
    assert (process.returncode, told["verdict"]) == (0, "clean"), (out, err)
    assert told["watch"]["after_arm"]["major"] == 0
    assert {each.taken for each in rounds} == {0}
    assert locked <= said["memlock_bytes"] <= 1.5 * locked
    assert inside < said["container_bytes"] <= 1.5 * (inside + beside)


def may_have(memlock_bytes: int) -> None:
    """Skip where nobody can be given that limit."""
    hard = books.limits("self")["memlock"][1]
    fits = hard == -1 or memlock_bytes <= hard
    if not fits and not books.holds("self", CAP_SYS_RESOURCE):
        skip("no-sys-resource")


# --- the promise -----------------------------------------------------------------------------


def test_the_line_holds_with_the_recommended_limits(as_user, program, group):
    """Without CAP_IPC_LOCK, with the recommended memlock, in a cgroup of the recommended size."""
    attack.need_right()
    user = as_user("limited")
    os.chown(user.folder, NOBODY, NOBODY)
    found = measured(user, program)
    memlock = found["recommended"]["memlock_bytes"]
    may_have(memlock)
    holds(user, program, group, found, fitting.may_lock(memlock))


def test_the_line_holds_with_the_capability(rtlaunch, program, group):
    """With CAP_IPC_LOCK, whatever the limit is, in a cgroup of the recommended size."""
    attack.need_right()
    found = measured(rtlaunch, program)
    holds(rtlaunch, program, group, found, [])


def test_with_a_quarter_less_it_does_not_start(as_user, program):
    """Refused by name before it starts, and not broken later."""
    user = as_user("limited")
    os.chown(user.folder, NOBODY, NOBODY)
    found = measured(user, program)
    less = found["recommended"]["memlock_bytes"] * 3 // 4
    if not books.holds("self", CAP_SYS_RESOURCE):
        less = min(less, EIGHT_MIB)
    path = script(user, found["recommended"]["line"])
    variables = {"PATH": f"{user.program.parent}:{os.environ['PATH']}"}
    words = ["prlimit", f"--memlock={less}:{less}", *AS_NOBODY, str(path)]
    ran = subprocess.run(
        words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (125, "")
    assert "refused [limit-raise]" in ran.stderr
