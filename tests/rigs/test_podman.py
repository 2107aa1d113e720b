"""rtlaunch as the entrypoint of a container: PID 1 under podman, by crun and by runc."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests import books
from tests.host import wait_until
from tests.rigs.containers import BASE, LOCKS, TARGETS, target
from tests.rigs.podman import ULIMITS
from tests.skips import skip

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rigs.podman import Podman

ENTRY = '--entrypoint=["rtlaunch", "--"]'
READ_ONLY = ("--read-only", "--read-only-tmpfs=false")

# How often a container is stopped under each init. RIG_RUNS=20 is the long form, two minutes, which
# also times podman stop as a whole.
RUNS = int(os.environ.get("RIG_RUNS", "5"))
ENOUGH_RUNS = 20
STOP_TAKES_MS = 300
MORE_THAN_TINI_S = 0.05
ZOMBIES, ORPHANS = 1000, 200

SAYS = 'import os; print(open("/proc/self/status").read(), *os.environ, sep="\\n")'


# ---- what an entrypoint is for ----


def test_the_program_is_locked_and_ends_the_container(podman: Podman, runtime: str) -> None:
    """By the host's own books PID 1's child is locked; its code is the container's."""
    program = [f"{TARGETS}/slow", "0", "7"]
    with podman.started(BASE, program, ENTRY, LOCKS, runtime=runtime) as container:
        container.wait_for("ready")
        assert books.not_locked(target(container)) == []
        container.stop()
        assert container.code == 7


@pytest.mark.parametrize("name", ["HUP", "INT", "USR1", "WINCH", "RTMIN+3"])
def test_signals_reach_the_program(podman: Podman, name: str) -> None:
    """podman kill: each signal arrives, once, and says who sent it."""
    number = signal.SIGRTMIN + 3 if "+" in name else getattr(signal, f"SIG{name}")
    with podman.started(BASE, [f"{TARGETS}/signals"], ENTRY, LOCKS, "--interactive") as container:
        container.wait_for("ready")
        container.kill(str(int(number)))
        container.wait_for(f"{int(number)} 0 0")
        assert container.logs().count("\n") == 2


def test_an_end_by_a_signal_is_128_and_its_number(podman: Podman) -> None:
    """SIGKILL for the program, not for PID 1: 137, and it is nobody's out-of-memory."""
    with podman.started(BASE, ["sleep", "60"], ENTRY, LOCKS) as container:
        wait_until(lambda: books.children(container.pid), "no program")
        wait_until(lambda: books.locked_bytes(target(container)), "it is not locked")
        os.kill(target(container), signal.SIGKILL)
        assert container.wait() == 128 + signal.SIGKILL


def test_a_log_has_what_the_program_says_and_nothing_else(podman: Podman, runtime: str) -> None:
    """Without a terminal a launch that goes well adds no word of its own."""
    done = podman.run(BASE, ["sh", "-c", "echo out; echo err >&2"], ENTRY, LOCKS, runtime=runtime)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_orphans_and_zombies_are_reaped(podman: Podman, runtime: str) -> None:
    """1,000 that end at once and 200 that live on for a while: none is left, the program stays."""
    for count in (ZOMBIES, ORPHANS):
        words = [f"{TARGETS}/orphans", str(count)]
        with podman.started(
            BASE, words, ENTRY, LOCKS, "--interactive", runtime=runtime
        ) as container:
            container.wait_for(f"left {count}")
            pid = container.pid
            wait_until(lambda pid=pid: len(books.children(pid)) == 1, "some are not reaped")


def test_beside_an_init_of_the_engine(podman: Podman) -> None:
    """--init: catatonit is PID 1, rtlaunch its child; code and signals pass through both."""
    if not shutil.which("catatonit"):
        skip("no-catatonit")
    program = [f"{TARGETS}/slow", "0", "7"]
    with podman.started(BASE, program, ENTRY, LOCKS, "--init") as container:
        container.wait_for("ready")
        container.stop()
        assert container.code == 7


def test_restarts_are_the_engines(podman: Podman) -> None:
    """--restart=on-failure: a program that fails is started again, locked anew each time."""
    flags = (ENTRY, LOCKS, "--restart=on-failure:2")
    with podman.started(BASE, ["sh", "-c", "echo again; exit 3"], *flags) as container:
        wait_until(lambda: container.logs().count("again") == 3, "it is not started again")
        assert container.wait() == 3


# ---- how long it takes to stop ----


def seconds_to_end(podman: Podman, init: str, by_engine: bool) -> float:
    """Stop a container whose program needs 300 ms for that; return the seconds until PID 1 ended.

    By ``podman stop``, whose own start varies by more than what is looked for, or by its signal.
    """
    program = [f"{TARGETS}/slow", str(STOP_TAKES_MS), "7"]
    with podman.started(BASE, program, f'--entrypoint=["{init}", "--"]', LOCKS) as container:
        container.wait_for("ready")
        pid = container.pid
        process = os.pidfd_open(pid)
        ended = select.poll()
        ended.register(process, select.POLLIN)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as beside:
            if by_engine:
                beside.submit(container.stop)
            else:
                os.kill(pid, signal.SIGTERM)
            ended.poll(10_000)
            seconds = time.monotonic() - began
        os.close(process)
        assert container.wait() == 7, "it was killed"
        return seconds


@pytest.mark.parametrize("how", ["the signal", "podman stop"])
def test_a_stop_takes_no_longer_than_with_tini(
    podman: Podman, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs interleaved: the median is tini's plus 50 ms at most, and no SIGKILL."""
    if not shutil.which("tini"):
        skip("no-tini")
    by_engine = how == "podman stop"
    if by_engine and RUNS < ENOUGH_RUNS:
        skip("few-runs")
    taken: dict[str, list[float]] = {"rtlaunch": [], "tini": []}
    for run in range(RUNS):
        for init in sorted(taken, reverse=bool(run % 2)):
            taken[init].append(seconds_to_end(podman, init, by_engine))
    median = {init: statistics.median(seconds) for init, seconds in taken.items()}
    with capsys.disabled():
        print(f"\n{how} to the end, a program that needs {STOP_TAKES_MS} ms, {RUNS} runs each:")
        for init, seconds in taken.items():
            print(f"  {init:9} median {median[init]:.3f} s, max {max(seconds):.3f} s, no SIGKILL")
    assert median["rtlaunch"] <= median["tini"] + MORE_THAN_TINI_S


def test_a_stop_right_after_the_start(podman: Podman, runtime: str) -> None:
    """Stopped while it starts: within its patience, without SIGKILL."""
    with podman.started(BASE, ["sleep", "60"], ENTRY, LOCKS, runtime=runtime) as container:
        assert container.stop(patience_s=10) < 8
        assert container.code == 128 + signal.SIGTERM


def test_a_stop_before_the_interpreter_runs(podman: Podman) -> None:
    """SIGTERM as soon as PID 1 exists: not lost, though the kernel drops what PID 1 ignores."""
    with podman.started(BASE, ["sleep", "60"], ENTRY, LOCKS) as container:
        podman("stop", "--time=10", container.name)
        podman("start", container.name)
        os.kill(container.pid, signal.SIGTERM)
        assert container.wait() == 128 + signal.SIGTERM


# ---- what a container takes away ----


@pytest.mark.parametrize("user", ["0", "1000"])
def test_nothing_is_written_to_a_read_only_container(
    podman: Podman, runtime: str, user: str
) -> None:
    """A read-only root, no tmpfs at /tmp and /run: it launches, locked."""
    flags = (ENTRY, LOCKS, *READ_ONLY, f"--user={user}")
    done = podman.run(BASE, ["python3", "-c", SAYS], *flags, runtime=runtime)
    assert done.returncode == 0, done.stderr
    assert int(books.status_of(done.stdout)["VmLck"].split()[0]) > 0
    assert done.stderr == ""


def test_a_root_without_run_and_tmp(podman: Podman) -> None:
    """Neither folder can be written to, by root without the capabilities for that."""
    flags = (ENTRY, LOCKS, "--cap-drop=ALL", *READ_ONLY, "--tmpfs=/tmp:ro", "--tmpfs=/run:ro")
    done = podman.run(BASE, ["cat", "/proc/self/status"], *flags)
    assert done.returncode == 0, done.stderr
    assert int(books.status_of(done.stdout)["VmLck"].split()[0]) > 0


def test_a_user_with_the_capability_is_locked(podman: Podman, runtime: str) -> None:
    """podman gives a user what was added, as ambient capabilities: past any limit."""
    flags = (ENTRY, LOCKS, "--user=1000", "--ulimit=memlock=65536:65536", *ulimits())
    done = podman.run(BASE, ["python3", "-c", SAYS], *flags, runtime=runtime)
    assert done.returncode == 0, done.stderr
    assert books.status_of(done.stdout)["Uid"].split()[0] == "1000"
    assert int(books.status_of(done.stdout)["VmLck"].split()[0]) > 64


@pytest.mark.parametrize("user", ["0", "1000"])
def test_without_the_capability_the_flag_is_named(podman: Podman, runtime: str, user: str) -> None:
    """Too small a limit and no CAP_IPC_LOCK: refused, with the words that podman needs."""
    flags = (ENTRY, f"--user={user}")
    done = podman.run(BASE, ["python3", "-c", "1"], *flags, runtime=runtime)
    assert done.returncode == 125
    assert "refused [memlock-limit]" in done.stderr
    assert "podman run --cap-add IPC_LOCK --entrypoint rtlaunch IMAGE" in done.stderr


def test_a_user_whose_capabilities_are_not_effective(podman: Podman) -> None:
    """What docker hands over to a user who is not root: the bounding set has it, nothing else.

    That is no capability to lock with; the README has the way out, which the next test takes.
    """
    drop = "setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all --ambient-caps=-all"
    script = f"exec {drop} -- rtlaunch -- python3 -c 1"
    done = podman.run(BASE, ["sh", "-c", script], LOCKS)
    assert done.returncode == 125, done.stderr
    assert "no CAP_IPC_LOCK" in done.stderr


def test_root_that_becomes_a_user_keeps_the_lock(podman: Podman, runtime: str) -> None:
    """The way out where a user gets no capabilities: start as root, RTLAUNCH_USER=app."""
    flags = (ENTRY, LOCKS, "--env=RTLAUNCH_USER=app", "--env=RTLAUNCH_NO_NEW_PRIVS=1")
    done = podman.run(BASE, ["python3", "-c", SAYS], *flags, runtime=runtime)
    assert done.returncode == 0, done.stderr
    status = books.status_of(done.stdout)
    assert (status["Uid"].split()[0], status["CapPrm"]) == ("1000", f"{1 << 14:016x}")
    assert int(status["VmLck"].split()[0]) > 8192


def ulimits() -> list[str]:
    """Return what has to be said again beside a --ulimit."""
    return [f"--ulimit={limit}" for limit in ULIMITS]


def test_a_memory_limit_below_the_need_is_refused(podman: Podman, runtime: str) -> None:
    """Before the kernel kills anybody: the limit, what is needed, podman's flag."""
    flags = (ENTRY, LOCKS, "--memory=32m", "--env=RTLAUNCH_HEAP=64M")
    done = podman.run(BASE, ["python3", "-c", "1"], *flags, runtime=runtime)
    assert done.returncode == 125
    assert "refused [cgroup-budget]" in done.stderr
    assert "of 32 MiB" in done.stderr
    assert "podman run --memory" in done.stderr


def test_out_of_memory_later_is_the_programs_end(podman: Podman, runtime: str) -> None:
    """What outgrows its limit is killed; PID 1 survives it and says 137."""
    program = ["python3", "-c", "x = b'1' * (60 << 20)"]
    flags = (ENTRY, LOCKS, "--memory=32m")
    done = podman.run(BASE, program, *flags, runtime=runtime)
    assert done.returncode == 128 + signal.SIGKILL


# ---- configured by its environment ----


def test_the_environment_alone_configures_it(podman: Podman, tmp_path: Path) -> None:
    """RTLAUNCH_* are taken, and the program sees none of them."""
    tmp_path.chmod(0o777)
    flags = (
        ENTRY, LOCKS, f"--volume={tmp_path}:/out", "--env=RTLAUNCH_REPORT=/out/report.json",
        "--env=RTLAUNCH_USER=app", "--env=RTLAUNCH_LIMIT=nofile=100", "--env=OTHER=1",
    )  # fmt: skip
    done = podman.run(BASE, ["python3", "-c", SAYS], *flags)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert (report["verdict"], report["lock"]["ok"]) == ("clean", True)
    assert report["mode"]["chosen"] == "supervise"
    assert report["target"]["uid"] == 1000
    lines = done.stdout.splitlines()
    assert "OTHER" in lines
    assert [line for line in lines if line.startswith("RTLAUNCH_")] == []


def test_an_entrypoint_without_a_command(podman: Podman, runtime: str) -> None:
    """A container without CMD: refused by name, with the shape of the line."""
    done = podman.run(BASE, [], ENTRY, runtime=runtime)
    assert done.returncode == 125
    assert "refused [usage]: no command after --" in done.stderr


@pytest.mark.parametrize(("command", "code"), [("/no/such", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_started(podman: Podman, command: str, code: int) -> None:
    """126 and 127, as a shell has them."""
    assert podman.run(BASE, [command], ENTRY, LOCKS).returncode == code


def test_exec_mode_is_refused_as_pid_one(podman: Podman) -> None:
    """The side process would be the program's child."""
    done = podman.run(BASE, ["true"], ENTRY, LOCKS, "--env=RTLAUNCH_MODE=exec")
    assert done.returncode == 125
    assert "refused [mode-exec]" in done.stderr


def test_no_proc_is_refused(podman: Podman, runtime: str) -> None:
    """PID 1 of a container without /proc: one line, no hang."""
    flags = ["--cap-add=SYS_ADMIN"]
    flags += [f"--security-opt={each}" for each in ("unmask=ALL", "seccomp=unconfined")]
    words = ["sh", "-c", "umount -l /proc && exec rtlaunch -- true"]
    done = podman.run(BASE, words, *flags, runtime=runtime)
    assert done.returncode == 125
    assert "refused [proc-missing]" in done.stderr


def test_a_refusal_is_left_for_kubelet(podman: Podman, tmp_path: Path) -> None:
    """/dev/termination-log, put there as kubelet does: the refusal, for a user too."""
    log = tmp_path / "log"
    log.touch()
    log.chmod(0o666)
    flags = (ENTRY, f"--volume={log}:/dev/termination-log", "--user=1000", *READ_ONLY)
    done = podman.run(BASE, ["python3", "-c", "1"], *flags)
    assert done.returncode == 125
    assert log.read_text() == done.stderr
