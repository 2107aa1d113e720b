"""What a refusal in a container says to try now, followed as printed until it is locked."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from rtlaunch.core.findings import Finding
from rtlaunch.core.remedies import BY_PLACE, RATIONED
from rtlaunch.core.remedy import Context, remedy
from rtlaunch.core.where import DOCKER, Where
from tests import books
from tests.host import wait_until
from tests.rigs.containers import ENTRY, LOCKS, TARGETS, target
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rigs.containers import Container, Engine
    from tests.rigs.docker import Docker

RUN = ("docker run ", "podman run ")
STEPS = 4  # a refusal can be followed by another one, of what it stood before
MIB = 1 << 20
SMALL = f"--ulimit=memlock={MIB}:{MIB}"
PROGRAM = (f"{TARGETS}/slow", "0")
DENIED = ("mlock", "mlock2", "mlockall")


class Case(NamedTuple):
    """How it is run, what it is refused by at first, and what must hold in the end."""

    code: str
    flags: tuple[str, ...]
    holds: Callable[[int], bool] = lambda pid: True


def is_user(uid: str) -> Callable[[int], bool]:
    return lambda pid: books.status(pid)["Uid"].split()[0] == uid


def nice_of(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


# Of both engines.
CASES = [
    Case("memlock-limit", (SMALL,)),
    Case("memlock-limit", (SMALL, "--user=1000"), is_user("1000")),
    Case("memlock-budget", ("--env=RTLAUNCH_HEAP=64M",),
         lambda pid: books.locked_bytes(pid) > 64 * MIB),
    Case("cgroup-budget", ("--memory=32m", LOCKS, "--env=RTLAUNCH_HEAP=64M"),
         lambda pid: books.locked_bytes(pid) > 64 * MIB),
    Case("capability-missing", ("--env=RTLAUNCH_AMBIENT_CAPS=sys_nice", "--env=RTLAUNCH_USER=app"),
         lambda pid: books.holds(pid, 23) and is_user("1000")(pid)),
    Case("capability-missing", ("--env=RTLAUNCH_AMBIENT_CAPS=sys_nice", "--user=1000"),
         lambda pid: books.holds(pid, 23) and is_user("1000")(pid)),
    Case("user-denied", ("--cap-drop=ALL", LOCKS, "--env=RTLAUNCH_USER=app"), is_user("1000")),
    Case("user-denied", ("--user=1000", "--env=RTLAUNCH_USER=nobody"), is_user("65534")),
    Case("sched-denied", ("--env=RTLAUNCH_NICE=-5",), lambda pid: nice_of(pid) == -5),
    Case("sched-denied", ("--env=RTLAUNCH_NICE=-5", "--user=1000"),
         lambda pid: nice_of(pid) == -5 and is_user("1000")(pid)),
]  # fmt: skip

# Of docker alone, which takes most away.
MORE = [
    Case("memlock-limit", (SMALL, "--user=4321"), is_user("4321")),
    Case("memlock-limit", (SMALL, "--user=1000", "--cap-drop=ALL"), is_user("1000")),
    Case("memlock-budget", ("--env=RTLAUNCH_HEAP=64M", "--user=1000"),
         lambda pid: books.locked_bytes(pid) > 64 * MIB and is_user("1000")(pid)),
    Case("cgroup-budget", ("--memory=32m", "--cgroupns=private", LOCKS, "--env=RTLAUNCH_HEAP=64M")),
    Case("limit-raise", ("--ulimit=nofile=100:100", "--env=RTLAUNCH_LIMIT=nofile=200"),
         lambda pid: books.limits(pid)["nofile"] == (200, 200)),
]  # fmt: skip


def remedies(said: str) -> list[str]:
    """Return the engine's lines that a message says to try now, without their comments."""
    tried = re.findall(r"^  try now: (.*)$", said, re.MULTILINE)
    return [line.partition("   #")[0] for line in tried if line.startswith(RUN)]


def parts(engine: Engine, line: str) -> tuple[list[str], list[str]]:
    """Return flags and words of a printed line, which must be in this engine's name."""
    before, after = line.removeprefix(f"{engine.name} run ").split(" IMAGE ", 1)
    assert before != line, line
    return shlex.split(before), shlex.split(after)


def refusal(container: Container) -> str:
    """Wait until it runs, or has ended; return what it said if it was refused, or nothing."""
    wait_until(lambda: "ready" in container.logs() or not container.is_running, "it does not start")
    return "" if container.is_running else container.logs()


@contextmanager
def followed(engine: Engine, *flags: str) -> Iterator[tuple[Container, list[str]]]:
    """Run it, and do what its refusal says, with the flags that were there before, until it runs.

    Also give each code that it was refused by.
    """
    refused: list[str] = []
    words = list(PROGRAM)
    while True:
        with engine.started(ENTRY, words, *engine.with_ulimits(flags)) as container:
            said = refusal(container)
            if not said:
                yield container, refused
                return
            assert container.code == 125, said
        refused += re.findall(r"refused \[(.*?)\]", said)
        assert len(refused) < STEPS, said
        (line,) = remedies(said)
        more, words = parts(engine, line)
        flags = (*flags, *more)


@pytest.fixture(scope="session", params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine."""
    found: Engine = request.getfixturevalue(request.param)
    return found


def name_of(case: Case) -> str:
    return f"{case.code} {' '.join(case.flags)}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_refusal_is_cured_as_printed(engine: Engine, case: Case) -> None:
    """Each line to try, followed to the letter, leads to a program that is locked, as asked for."""
    assert_cured(engine, case)


@pytest.mark.parametrize("case", MORE, ids=name_of)
def test_dockers_refusals_are_cured_as_printed(docker: Docker, case: Case) -> None:
    """So do users without a name, capabilities that were dropped, a cgroup namespace, limits."""
    assert_cured(docker, case)


def assert_cured(engine: Engine, case: Case) -> None:
    """Follow a refusal, and look at the program that runs in the end."""
    with followed(engine, *case.flags) as (container, refused):
        assert refused[0] == case.code
        assert books.not_locked(target(container)) == []
        assert case.holds(target(container))


def test_a_cpu_that_is_not_there_is_given(docker: Docker) -> None:
    """--cpuset-cpus, as printed, and the program is on that CPU."""
    if len(os.sched_getaffinity(0)) < 2:
        skip("one-cpu")
    first, second, *_ = sorted(os.sched_getaffinity(0))
    flags = (LOCKS, f"--cpuset-cpus={first}", f"--env=RTLAUNCH_CPU_LIST={second}")
    with followed(docker, *flags) as (container, refused):
        assert refused == ["cpu-unavailable"]
        assert os.sched_getaffinity(target(container)) == {second}


def test_a_filter_that_denies_the_lock_is_lifted(docker: Docker, tmp_path: Path) -> None:
    """A seccomp profile without mlockall: its name is asked for, and unconfined will do for now."""
    profile = tmp_path / "profile.json"
    rule = {"names": DENIED, "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    flags = (LOCKS, f"--security-opt=seccomp={profile}")
    with followed(docker, *flags) as (container, refused):
        assert refused == ["lock-denied"]
        assert books.not_locked(target(container)) == []


@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_share_of_real_time_is_given(engine: Engine, user: str) -> None:
    """Version 1 gives a new group none: --cpu-rt-runtime, as printed, where there is some."""
    give_real_time(engine)
    flags = (LOCKS, "--env=RTLAUNCH_SCHED=fifo:50", f"--user={user}")
    with followed(engine, *flags) as (container, refused):
        assert refused[0] == "sched-denied"
        pid = target(container)
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO
        assert os.sched_getparam(pid).sched_priority == 50
        assert is_user(user)(pid)
        assert books.not_locked(pid) == []


def give_real_time(engine: Engine) -> None:
    """Do to the engine's groups what ``dockerd --cpu-rt-runtime`` does, and podman leaves to us."""
    top = Path("/sys/fs/cgroup/cpu") / engine.place.name
    if not (top / "cpu.rt_runtime_us").exists():
        skip("no-rt-group")
    with engine.started(ENTRY, PROGRAM, LOCKS):  # the first makes the group that all are in
        (above,) = (group for group in top.iterdir() if group.is_dir())
        for group in (top, above):
            (group / "cpu.rt_runtime_us").write_text("300000")


def test_little_room_is_a_warning_with_a_line_that_ends_it(docker: Docker) -> None:
    """Locked below a limit that a thread would break: what is printed leaves nothing to warn of."""
    with docker.started(ENTRY, PROGRAM) as container:
        container.wait_for("ready")
        said = container.logs()
    assert "warning [memlock-headroom]" in said
    (line,) = remedies(said)
    assert "--memlock" not in line
    flags, words = parts(docker, line)
    with docker.started(ENTRY, words, *flags) as container:
        container.wait_for("ready")
        assert container.logs().startswith("ready")


def compose_lines() -> list[str]:
    """Return what the remedies have for a compose file, as one flow mapping each."""
    found = []
    for code, uid in itertools.product(sorted(BY_PLACE), (0, 1000)):
        values = {"limit": "nofile", "soft": 200, "asked": [1], "enough": "80M"}
        finding = Finding(code, "", values=values)
        *_, for_good = remedy(finding, Where(DOCKER, "", uid=uid, user="app"), Context())
        found += re.findall(r"compose(?: file)?: (\w+: [^;\n]*)", for_good)
    found += re.findall(r"compose file: (\w+: [^;\n]*)", RATIONED["docker"][2])
    return sorted({each.rstrip(")") for each in found})


def test_what_is_written_into_a_compose_file_is_compose(docker: Docker, tmp_path: Path) -> None:
    """Each line for a compose file is one that compose takes."""
    lines = compose_lines()
    assert len(lines) > 6
    services = [f"  app{number}: {{image: x, {each}}}" for number, each in enumerate(lines)]
    (tmp_path / "compose.yaml").write_text("\n".join(["services:", *services, ""]))
    done = docker.compose("config", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), "\n".join([*lines, done.stderr])


def test_a_container_that_is_there_is_given_more_memory(docker: Docker) -> None:
    """The other way out of a small memory limit, as printed: docker update, docker start."""
    flags = (LOCKS, "--memory=32m", "--env=RTLAUNCH_HEAP=64M", "--env=RTLAUNCH_WATCH=proc")
    with docker.started(ENTRY, PROGRAM, *flags) as container:
        said = refusal(container)
        (line,) = re.findall(r"docker update .* && docker start \w+", said)
        subprocess.run(["sh", "-c", line], env=docker.environment(), check=True, timeout=60,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        wait_until(lambda: container.is_running and "ready" in container.logs(), "it is not run")
        assert books.locked_bytes(target(container)) > 64 * MIB
