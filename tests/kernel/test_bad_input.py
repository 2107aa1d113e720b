"""Bad input from outside: one refusal, the right exit code, nothing started.

Each line would make a file, if it ran. What a text of the command line is worth, and what is
suggested instead, is tests/contract's and tests/unit's.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.kernel.programs import need_root

HUGE = "9" * 30


class Line:
    """Runs rtlaunch on a command that leaves a mark."""

    def __init__(self, launcher, marker: Path) -> None:
        self.launcher = launcher
        self.marker = marker
        self.command = ("touch", str(marker))

    def refused(self, *words, code="usage", status=125, **how):
        """Assert one refusal of that code, and that nothing ran; return what was said."""
        words = [part for word in words for part in (self.command if word == "RUN" else [word])]
        process = self.launcher.start(*words, stdin=subprocess.DEVNULL, **how)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (status, ""), err
        assert re.match(rf"rtlaunch: refused \[{code}\]: \S", err), err
        assert err.count("rtlaunch: refused [") == 1
        assert f"more: rtlaunch explain {code}" in err
        assert "Traceback" not in err
        assert not self.marker.exists()
        return err


@pytest.fixture
def line(rtlaunch, tmp_path):
    return Line(rtlaunch, tmp_path / "marker")


# ---- the command line ----

NO_VALUES = {
    "size": ("--memlock", ["12Q", "", "M", "1.5M", "0x10", "8 M", "-8M", "+8M", "8M:8M", HUGE]),
    "core": ("--core", ["many", "-1", HUGE]),
    "prefault": ("--prefault-stack", ["unlimited", "-1", "512k512", HUGE + "K"]),
    "limit": (
        "--limit",
        ["nofile", "nofile=", "=3", "nofile=-3", "nofile=3:", "nofile=5:3", f"nofile={HUGE}"],
    ),
    "whose limit": ("--limit", ["files=3", "nofile=3:4:5", "memlock=8M", "core=0", ""]),
    "capability": ("--ambient-caps", ["ipc-lock", "CAP_", "all", "14", "ipc_lock,,kill", ""]),
    "user": ("--user", ["", ":", "nobody:", ":nobody"]),
    "policy": ("--sched", ["fifo", "fifo:0", "fifo:100", "fifo:x", "other:5", "deadline", ""]),
    "cpus": ("--cpu-list", ["", "a", "0-", "-1", "3-1", "0,,1", "0-99999999", HUGE, "1.5"]),
    "nice": ("--nice", ["-21", "20", "x", "", "1.5", HUGE]),
    "slack": ("--timer-slack", ["50", "-1us", "1h", "us", HUGE + "s", ""]),
    "lock": ("--lock", ["all", "onfault", "current,none", "current,,future", "", "CURRENT"]),
    "children": ("--children", ["al", "", "ALL"]),
    "watch": ("--watch", ["ebpf", ""]),
    "arm": ("--arm", ["later", "signal:", "signal:NOPE", "signal:KILL", "-1s", ""]),
    "reaction": ("--on-major", ["panic", "signal:", "signal:99", "LOG", ""]),
    "count": ("--max-major", ["-1", "1.5", "x", "", HUGE]),
    "signal": ("--pdeathsig", ["TREM", "0", "65", "-9", ""]),
    "codes": ("--allow", ["no-such-code", "usage", "", "memlock-limit,"]),
    "mode": ("--mode", ["fork", ""]),
    "report": ("--report", ["fd:", "fd:-1", "fd:x", "{nope}.json", "", f"fd:{HUGE}"]),
    "format": ("--log-format", ["xml", ""]),
}
BAD_VALUES = [(option, value) for option, values in NO_VALUES.values() for value in values]


@pytest.mark.parametrize(("option", "value"), BAD_VALUES, ids=lambda text: text[:20] or "empty")
def test_a_value_that_is_none_is_refused(line, option, value):
    """It names the option; nothing starts."""
    assert option in line.refused(f"{option}={value}", "--", "RUN")


SHAPES = {
    "unknown option": ["--no-such-option", "--", "RUN"],
    "unknown short option": ["-z", "--", "RUN"],
    "abbreviation": ["--memlo", "8M", "--", "RUN"],
    "value for a switch": ["--best-effort=maybe", "--", "RUN"],
    "no value at all": ["--memlock"],
    "no dashes": ["RUN"],
    "options and no dashes": ["--nice", "5", "RUN"],
    "dashes twice": ["--", "--", "RUN"],
    "no command": ["--"],
    "no command after options": ["--quiet", "--"],
    "nothing": [],
    "dashes as a value": ["--memlock", "--", "RUN"],
    "a subcommand of later": ["watch", "--", "RUN"],
}


@pytest.mark.parametrize("words", SHAPES.values(), ids=SHAPES)
def test_a_line_of_no_shape_is_refused(line, words):
    """With what to write instead."""
    assert "try now: " in line.refused(*words)


def test_an_empty_command_is_not_found(line):
    """rtlaunch -- '' is 127, as in a shell."""
    line.refused("--", "", code="command-not-found", status=127)


def test_no_text_of_ours_reaches_a_terminal_raw(line):
    """Escape sequences, newlines and bytes that are no text are shown quoted."""
    err = line.refused("--memlock", "\x1b[2J\n8M", "--", "RUN")
    assert "\x1b" not in err
    line.refused(b"--memlock=\xff\xfe", "--", "RUN")


@pytest.mark.parametrize("limit", ["64K", "256K", "513K"])
def test_the_smaller_stack_that_is_advised_is_taken(rtlaunch, limit):
    """stack-limit: the line to try now is not refused again, however little the limit leaves."""
    refused = rtlaunch.run("--limit", f"stack={limit}", "--", "true")
    (finding,) = refused.report["findings"]
    assert finding["code"] == "stack-limit"
    _, *advised = shlex.split(finding["remedy"]["try_now"])
    ours = advised.index("--report")
    del advised[ours : ours + 2]
    assert rtlaunch.run(*advised).code == 0


# ---- environment ----

VARIABLES = {
    "RTLAUNCH_MEMLOCK": "12Q",
    "RTLAUNCH_NICE": "99",
    "RTLAUNCH_LOCK": "all",
    "RTLAUNCH_CPU_LIST": "x",
    "RTLAUNCH_LIMIT": "nofile",
    "RTLAUNCH_BEST_EFFORT": "maybe",
    "RTLAUNCH_ALLOW": "no-such-code",
    "RTLAUNCH_REPORT": "fd:x",
    "RTLAUNCH_USER": ":",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_does_not_parse_is_refused(line, name):
    """Under its own code, by its own name; also where the command line would override it."""
    env = {**os.environ, name: VARIABLES[name]}
    assert name in line.refused("--", "RUN", code="environment-value", env=env)


def test_a_variable_is_not_hidden_by_an_option(line):
    """--nice 3 does not make RTLAUNCH_NICE=99 right."""
    env = {**os.environ, "RTLAUNCH_NICE": "99"}
    line.refused("--nice", "3", "--", "RUN", code="environment-value", env=env)


def test_a_variable_that_is_no_option_is_a_warning(rtlaunch):
    """RTLAUNCH_MEMLOK is told with the near name, and the program runs."""
    env = {**os.environ, "RTLAUNCH_MEMLOK": "8M"}
    ran = rtlaunch.run("--", "sh", "-c", "exit 3", env=env)
    assert ran.code == 3
    assert "warning [environment-unknown]" in ran.err
    assert "did you mean RTLAUNCH_MEMLOCK?" in ran.err


# ---- profiles ----

PROFILES = {
    "not TOML": ("not = [toml", "profile-invalid"),
    "not text": (b"\xff\xfe\x00", "profile-invalid"),
    "no format": ("nice = 3\n", "profile-invalid"),
    "another format": ("format = 2\n", "profile-invalid"),
    "an unknown key": ("format = 1\nmemlok = '8M'\n", "profile-invalid"),
    "a value of no type": ("format = 1\nnice = [[1]]\n", "profile-invalid"),
    "a value that is none": ("format = 1\nmemlock = '12Q'\n", "profile-invalid"),
    "a parent that is not there": ("format = 1\nextends = 'no-such-parent'\n", "profile-missing"),
    "a command of no words": ("format = 1\ncommand = []\n", "profile-invalid"),
    "empty": ("", "profile-invalid"),
}


@pytest.mark.parametrize(("content", "code"), PROFILES.values(), ids=PROFILES)
def test_a_profile_that_is_none_is_refused(line, tmp_path, content, code):
    """By its path, whatever is wrong with it."""
    path = tmp_path / "robot.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o644)
    err = line.refused("--profile", path, "--", "RUN", code=code)
    assert "no-such-parent" in err or str(path) in err


def test_a_profile_that_is_no_file_is_refused(line, tmp_path):
    """Missing, a directory, a pipe that nobody writes, a device without end: none holds us."""
    (tmp_path / "directory.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml", 0o644)
    line.refused("--profile", tmp_path / "no.toml", "--", "RUN", code="profile-missing")
    line.refused("--profile", "no-such-profile", "--", "RUN", code="profile-missing")
    for path in (tmp_path / "directory.toml", tmp_path / "pipe.toml", "/dev/zero"):
        line.refused("--profile", path, "--", "RUN", code="profile-unreadable")


def test_a_profile_that_we_may_not_read_is_refused(as_user):
    """A user's own right to it decides."""
    launcher = as_user("limited")
    path = launcher.folder / "robot.toml"
    path.write_text("format = 1\n")
    path.chmod(0o600)
    line = Line(launcher, launcher.folder / "marker")
    line.refused("--profile", path, "--", "RUN", code="profile-unreadable")


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o664])
def test_root_takes_no_profile_that_others_write(line, tmp_path, mode):
    """Who can write it would run commands as root."""
    need_root()
    path = tmp_path / "robot.toml"
    path.write_text("format = 1\n")
    path.chmod(mode)
    line.refused("--profile", path, "--", "RUN", code="profile-writable")


# ---- the command ----


@pytest.fixture
def files(tmp_path):
    """Files that cannot be executed, each for a reason of its own."""
    made = {
        "no x bit": (b"#!/bin/sh\n", 0o644),
        "no interpreter": (b"#!/nonexistent/interpreter\n", 0o755),
        "an interpreter that is a directory": (b"#!/usr\n", 0o755),
        "garbage after ELF": (b"\x7fELF" + b"\xff" * 200, 0o755),
        "another machine": (elf_of_another_machine(), 0o755),
        "a short ELF": (b"\x7fELF\x02\x01", 0o755),
    }
    for name, (content, mode) in made.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    return tmp_path


def elf_of_another_machine():
    raw = bytearray(Path("/bin/true").read_bytes())
    raw[18:20] = (243 if raw[18] != 243 else 62).to_bytes(2, "little")  # e_machine: RISC-V
    return bytes(raw)


COMMANDS = {
    "no-such-command": ("command-not-found", 127),
    "/nonexistent/command": ("command-not-found", 127),
    "/etc/passwd/command": ("command-not-found", 127),
    "/usr": ("command-not-executable", 126),
    "no x bit": ("command-not-executable", 126),
    "no interpreter": ("command-bad-interpreter", 126),
    "an interpreter that is a directory": ("command-bad-interpreter", 126),
    "garbage after ELF": ("command-bad-format", 126),
    "another machine": (r"command-bad-format|target-machine|target-class", 126),
    "a short ELF": ("command-bad-format", 126),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_cannot_run_is_refused(rtlaunch, files, name):
    """126, or 127 where there is none: as a shell has it, with the reason."""
    command = str(files / name) if (files / name).exists() and name[0] != "/" else name
    code, status = COMMANDS[name]
    ran = rtlaunch.run("--", command)
    assert ran.code == status
    found = re.match(r"rtlaunch: refused \[([\w-]+)\]: \S", ran.err)
    assert re.fullmatch(code, found[1]), ran.err
    assert (ran.report["verdict"], ran.report["exit"]["rtlaunch_code"]) == ("refused", status)
    assert ran.report["target"]["pid"] is None


def test_a_text_without_a_first_line_is_run_by_the_shell(rtlaunch, tmp_path):
    """As execvp(3) does: such a script is no bad input."""
    script = tmp_path / "script"
    script.write_text("exit 6\n")
    script.chmod(0o755)
    assert rtlaunch.run("--", script).code == 6
