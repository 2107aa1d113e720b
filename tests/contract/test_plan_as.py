"""``rtlaunch plan --as``: what it prints runs as printed, and what it cannot do it refuses."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest

from tests.skips import skip

ENGINES = ["systemd", "docker", "compose", "kubernetes", "limits.d", "env"]
STATUS = ["grep", "-E", "^(VmLck|VmSize|CapEff|Uid):", "/proc/self/status"]


def plan(rtlaunch, engine, *words):
    process = rtlaunch.start("plan", "--as", engine, *words)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def run_as_printed(rtlaunch, *words):
    """Run the script of ``--as env``; return its status, and what was said by the first word."""
    code, script, err = plan(rtlaunch, "env", *words)
    assert (code, err) == (0, "")
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, dict(line.split(":", 1) for line in done.stdout.splitlines()), done


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_has_its_form(rtlaunch, engine):
    """0, all on stdout, and nothing is said on stderr."""
    code, out, err = plan(rtlaunch, engine, "--", "true")
    assert (code, err) == (0, "")
    assert f"# made by: rtlaunch plan --as {engine}, for: /" in out


def test_the_script_locks_the_program(rtlaunch):
    """Run as printed: the program finds itself locked."""
    code, said, done = run_as_printed(rtlaunch, "--", *STATUS)
    assert (code, done.stderr) == (0, "")
    locked, size = (int(said[name].split()[0]) for name in ("VmLck", "VmSize"))
    assert locked > 0.9 * size > 1000


def test_the_script_becomes_the_user_and_locks(rtlaunch):
    """Another user, with CAP_IPC_LOCK alone, past a limit that was made small."""
    if os.geteuid() != 0:
        skip("not-root")
    words = ("--user", "nobody", "--memlock", "64K", "--ambient-caps", "ipc_lock")
    code, said, _ = run_as_printed(rtlaunch, *words, "--", *STATUS)
    assert code == 0
    assert said["Uid"].split() == [str(65534)] * 4
    assert int(said["CapEff"], 16) == 1 << 14
    assert int(said["VmLck"].split()[0]) > 64


def test_the_script_leaves_children_alone(rtlaunch):
    """A child has another pid, and --children none is the default."""
    code, said, _ = run_as_printed(rtlaunch, "--", "sh", "-c", f"{shlex.join(STATUS)}; true")
    assert code == 0
    assert said["VmLck"].split()[0] == "0"


def test_the_script_refuses_by_itself(rtlaunch):
    """A limit that turns out too small where it is run: 125 and one line, main() never ran."""
    words = ("--ambient-caps", "none", "--memlock", "inherit")
    code, script, _ = plan(rtlaunch, "env", *words, "--", *STATUS)
    assert code == 0
    bound = ["prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock",
             "--inh-caps=-ipc_lock"]  # fmt: skip
    done = subprocess.run(
        [*bound, "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("rtlaunch: refused [memlock-limit]: mlockall: errno 12;")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--as", "docer", "--", "true"], "did you mean docker?"),
        (["--as", "env", "--json", "--", "true"], "--as env and --json are two forms"),
        (["--as", "env", "--via", "ptrace", "--", "true"], "--via ptrace takes a launcher"),
        (["--as", "systemd", "--", "echo", "\udcff"], "bytes that are no UTF-8"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(rtlaunch, words, told):
    """By name, with 125 and nothing on stdout."""
    process = rtlaunch.start("plan", *words)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (125, "")
    assert err.startswith("rtlaunch: refused [usage]: ")
    assert told in err


@pytest.mark.parametrize("engine", ["systemd", "env"])
def test_a_static_program_has_no_form_without_a_launcher(rtlaunch, tmp_path, engine):
    """No preload reaches it: 125, nothing printed that would run it unlocked, and the way out."""
    source = tmp_path / "static.c"
    source.write_text("int main(void) { return 0; }\n")
    program = tmp_path / "static"
    subprocess.run(["cc", "-static", "-o", program, source], check=True)
    code, out, err = plan(rtlaunch, engine, "--", program)
    assert (code, out) == (125, "")
    assert err.startswith("rtlaunch: refused [target-static]: ")
    assert f"set by: the form of --as {engine}, in which a preload is the only way in" in err


def test_a_command_that_is_not_there_is_plans_own_125(rtlaunch):
    """plan never ends with 126 or 127: it executes nothing. An image may well have it."""
    assert plan(rtlaunch, "systemd", "--", "/nonesuch")[0] == 125
    assert plan(rtlaunch, "docker", "--", "/nonesuch")[0] == 0


def test_a_heap_is_the_tunables_of_a_program_without_a_guest(rtlaunch):
    """malloc takes the whole of it when it first grows."""
    code, out, _ = plan(rtlaunch, "systemd", "--heap", "3M", "--", "true")
    assert code == 0
    (told,) = (line for line in out.splitlines() if "GLIBC_TUNABLES" in line)
    assert f"glibc.malloc.top_pad={3 << 20}:" in told
    assert "_RTL_HEAP" not in out


def test_systemd_has_nothing_to_complain_of(rtlaunch, tmp_path):
    """systemd-analyze verify says nothing of a unit with every option that has a directive."""
    if not shutil.which("systemd-analyze"):
        skip("no-systemd-analyze")
    words = ("--lock", "current", "--memlock", "64M", "--core", "0", "--user", "daemon:daemon",
             "--limit", "nofile=100:200", "--limit", "rtprio=9", "--limit", "nice=25", "--limit",
             "as=unlimited", "--limit", "cpu=60", "--limit", "rttime=1000000", "--no-new-privs",
             "--ambient-caps", "ipc_lock,sys_nice", "--sched", "fifo:50", "--cpu-list", "0",
             "--nice", "-5", "--timer-slack", "50us", "--watch", "none")  # fmt: skip
    command = ("sleep", "%h", "$HOME", "a b", '"', ";")
    code, out, err = plan(rtlaunch, "systemd", *words, "--", *command)
    assert (code, err) == (0, "")
    unit = tmp_path / "rtlaunch-plan-as.service"
    unit.write_text(out)
    verify = ["systemd-analyze", "verify", unit]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
