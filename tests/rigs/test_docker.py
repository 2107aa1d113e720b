"""rtlaunch as the entrypoint of a container: PID 1 under docker."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests import books
from tests.host import wait_until
from tests.rigs.containers import BASE, ENTRY, LOCKS, TARGETS, target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rigs.docker import Docker

STOP_TAKES_MS = 300
ZOMBIES, ORPHANS = 1000, 200
MIB = 1 << 20

SAYS = 'import os; print(open("/proc/self/status").read(), *os.environ, sep="\\n")'


# ---- what an entrypoint is for ----


def test_the_program_is_locked_and_ends_the_container(docker: Docker) -> None:
    """By the host's own books PID 1's child is locked; its code is the container's."""
    with docker.started(ENTRY, [f"{TARGETS}/slow", "0", "7"], LOCKS) as container:
        container.wait_for("ready")
        assert books.not_locked(target(container)) == []
        assert books.locked_bytes(target(container)) > MIB
        container.stop()
        assert container.code == 7


def test_a_stop_waits_for_the_program(docker: Docker) -> None:
    """docker stop: TERM arrives, the program takes 300 ms, and is not killed."""
    with docker.started(ENTRY, [f"{TARGETS}/slow", str(STOP_TAKES_MS), "7"], LOCKS) as container:
        container.wait_for("ready")
        seconds = container.stop(patience_s=10)
        assert STOP_TAKES_MS / 1000 <= seconds < 5
        assert "stopping" in container.logs()
        assert container.code == 7


def test_a_stop_right_after_the_start(docker: Docker) -> None:
    """Stopped while it starts: within its patience, without SIGKILL."""
    with docker.started(ENTRY, ["sleep", "60"], LOCKS) as container:
        assert container.stop(patience_s=10) < 8
        assert container.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("name", ["INT", "RTMIN+3"])
def test_signals_reach_the_program(docker: Docker, name: str) -> None:
    """docker kill: each signal arrives, once."""
    number = signal.SIGRTMIN + 3 if "+" in name else getattr(signal, f"SIG{name}")
    with docker.started(ENTRY, [f"{TARGETS}/signals"], LOCKS, "--interactive") as container:
        container.wait_for("ready")
        container.kill(str(int(number)))
        container.wait_for(f"{int(number)} 0 0")
        assert container.logs().count("\n") == 2


def test_orphans_and_zombies_are_reaped(docker: Docker) -> None:
    """1,000 that end at once and 200 that live on for a while: none is left, the program stays."""
    for count in (ZOMBIES, ORPHANS):
        words = [f"{TARGETS}/orphans", str(count)]
        with docker.started(ENTRY, words, LOCKS, "--interactive") as container:
            container.wait_for(f"left {count}")
            pid = container.pid
            wait_until(lambda pid=pid: len(books.children(pid)) == 1, "some are not reaped")


def test_a_log_has_what_the_program_says_and_nothing_else(docker: Docker) -> None:
    """Without a terminal a launch that goes well adds no word of its own."""
    done = docker.run(ENTRY, ["sh", "-c", "echo out; echo err >&2"], LOCKS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_beside_an_init_of_the_engine(docker: Docker) -> None:
    """--init: tini is PID 1, rtlaunch its child; code and signals pass through both."""
    program = [f"{TARGETS}/slow", "0", "7"]
    with docker.started(ENTRY, program, LOCKS, "--init") as container:
        container.wait_for("ready")
        (rtlaunch,) = books.children(container.pid)
        (child,) = books.children(rtlaunch)
        assert books.status(container.pid)["Name"] == "docker-init"
        assert books.not_locked(child) == []
        container.stop()
        assert container.code == 7


# ---- started again by the engine ----


def test_a_program_that_fails_is_started_again(docker: Docker) -> None:
    """--restart=on-failure: locked anew each time, as often as was said."""
    program = ["sh", "-c", "echo again; exit 3"]
    with docker.started(ENTRY, program, LOCKS, "--restart=on-failure:2") as container:
        wait_until(lambda: container.logs().count("again") == 3, "it is not started again")
        wait_until(lambda: not container.is_running, "it does not end")
        assert container.code == 3
        assert container.inspect("{{.RestartCount}}") == "2"


def test_a_refusal_is_started_again_as_any_failure(docker: Docker) -> None:
    """docker knows no code that a restart cannot mend: each refusal is said, and the last stays."""
    flags = ("--ulimit=memlock=65536:65536", "--restart=on-failure:1")
    with docker.started(ENTRY, ["true"], *flags) as container:
        wait_until(lambda: container.inspect("{{.RestartCount}}") == "1", "not started again")
        wait_until(lambda: not container.is_running, "it does not end")
        assert container.code == 125
        assert container.logs().count("refused [memlock-budget]") == 2


# ---- what a container takes away ----


@pytest.mark.parametrize("user", ["0", "1000"])
def test_nothing_is_written_to_a_read_only_container(docker: Docker, user: str) -> None:
    """A read-only root without /tmp and /run, RTLAUNCH_* alone: locked, and no word more."""
    flags = (LOCKS, "--read-only", f"--user={user}", "--env=RTLAUNCH_LIMIT=nofile=100")
    done = docker.run(ENTRY, ["cat", "/proc/self/status", "/proc/self/limits"], *flags)
    assert done.returncode == 0, done.stderr
    assert int(books.status_of(done.stdout)["VmLck"].split()[0]) > 1000
    assert "Max open files            100 " in done.stdout
    assert done.stderr == "" or user != "0"


def test_the_environment_alone_configures_it(docker: Docker, tmp_path: Path) -> None:
    """RTLAUNCH_* are taken, and the program sees none of them."""
    tmp_path.chmod(0o777)
    flags = (
        LOCKS, f"--volume={tmp_path}:/out", "--env=RTLAUNCH_REPORT=/out/report.json",
        "--env=RTLAUNCH_USER=app", "--env=RTLAUNCH_NO_NEW_PRIVS=1", "--env=OTHER=1",
    )  # fmt: skip
    done = docker.run(ENTRY, ["python3", "-c", SAYS], *flags)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert (report["verdict"], report["lock"]["ok"]) == ("clean", True)
    assert report["target"]["uid"] == 1000
    status = books.status_of(done.stdout)
    assert (status["Uid"].split()[0], status["CapPrm"]) == ("1000", f"{1 << 14:016x}")
    assert int(status["VmLck"].split()[0]) > 8192
    lines = done.stdout.splitlines()
    assert "OTHER" in lines
    assert [line for line in lines if line.startswith("RTLAUNCH_")] == []


def test_a_user_has_no_effective_capability(docker: Docker) -> None:
    """--cap-add gives a user nothing: refused, and said, with the way out."""
    flags = (LOCKS, "--user=1000")
    status = docker.run(BASE, ["cat", "/proc/self/status"], *flags).stdout
    assert int(books.status_of(status)["CapEff"], 16) == 0
    done = docker.run(ENTRY, ["python3", "-c", "1"], *flags)
    assert done.returncode == 125
    assert "refused [memlock-limit]" in done.stderr
    assert "docker gives a user who is not root no effective capabilities" in done.stderr


def test_a_memlock_limit_is_the_engines(docker: Docker) -> None:
    """--ulimit memlock: what the daemon may give holds for the program, soft and hard apart."""
    flags = ("--ulimit=memlock=4194304:8388608",)
    with docker.started(ENTRY, [f"{TARGETS}/slow", "0", "7"], *flags) as container:
        container.wait_for("ready")
        assert books.limits(target(container))["memlock"] == (8 * MIB, 8 * MIB)
        assert books.not_locked(target(container)) == []


def test_a_memory_limit_below_the_need_is_refused(docker: Docker) -> None:
    """Before the kernel kills anybody: the limit, what is needed, docker's flag."""
    flags = (LOCKS, "--memory=32m", "--env=RTLAUNCH_HEAP=64M")
    with docker.started(ENTRY, ["python3", "-c", "1"], *flags) as container:
        wait_until(lambda: not container.is_running, "it does not end")
        assert (container.code, container.inspect("{{.State.OOMKilled}}")) == (125, "false")
        assert "refused [cgroup-budget]" in container.logs()
        assert "of 32 MiB" in container.logs()
        assert "docker run --memory" in container.logs()


def test_out_of_memory_later_is_the_programs_end(docker: Docker) -> None:
    """What outgrows its limit is killed; PID 1 survives it and says 137."""
    flags = (LOCKS, "--memory=32m")
    with docker.started(ENTRY, ["python3", "-c", "x = b'1' * (60 << 20)"], *flags) as container:
        wait_until(lambda: not container.is_running, "it does not end")
        assert container.code == 128 + signal.SIGKILL
        assert container.inspect("{{.State.OOMKilled}}") == "true"


def test_an_entrypoint_without_a_command(docker: Docker) -> None:
    """A container without CMD: refused by name, with the shape of the line."""
    done = docker.run(ENTRY, [])
    assert done.returncode == 125
    assert "refused [usage]: no command after --" in done.stderr


@pytest.mark.parametrize(("command", "code"), [("/no/such", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_started(docker: Docker, command: str, code: int) -> None:
    """126 and 127, as a shell has them, by rtlaunch and not by docker."""
    done = docker.run(ENTRY, [command], LOCKS)
    assert done.returncode == code
    assert done.stderr.startswith("rtlaunch: refused [command-")


def test_perf_is_had_where_it_is_allowed(docker: Docker) -> None:
    """docker's filter forbids it: counted, not placed; SYS_ADMIN lets it through."""
    plain = docker.run(ENTRY, ["true"], LOCKS, "--env=RTLAUNCH_VERBOSE=1")
    allowed = docker.run(ENTRY, ["true"], LOCKS, "--cap-add=SYS_ADMIN", "--env=RTLAUNCH_VERBOSE=1")
    assert "note [watch-degraded]" in plain.stderr
    assert allowed.returncode == 0
    assert "watch-degraded" not in allowed.stderr
