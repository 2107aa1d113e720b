"""The profiles that come with rtlaunch: they are read, they are explained, and they are found."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from rtlaunch.core import settings
from rtlaunch.linux import profiles

SHIPPED = Path(profiles.SHIPPED_DIR)
NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))
LONGEST_LINE = 112  # but for a command, which must not be broken
PAGE = SHIPPED.parent / "report" / "pages" / "profile-missing.md"


def text(name: str) -> str:
    return (SHIPPED / f"{name}.toml").read_text()


def example(name: str) -> str:
    """The command in a profile's head."""
    lines = [line.strip("# ") for line in text(name).splitlines() if line.startswith("#   ")]
    return next(line for line in lines if f"rtlaunch --profile {name} " in f"{line} ")


def test_there_is_one_for_each_kind_of_program():
    """By the names that people would guess."""
    assert NAMES == ["control-loop", "go", "jvm", "python"]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_and_value_is_one_of_ours(name):
    """They are read as any other profile is, and each option comes from it."""
    profile = profiles.load(name, {}, 1000)
    options = settings.resolve({"profile": (name,)}, {}, profile).options
    assert profile.path == str(SHIPPED / f"{name}.toml")
    given = {key for key, origin in options.origin.items() if origin == "profile"}
    assert given == {*profile.texts}
    assert profile.command == ()


@pytest.mark.parametrize("name", NAMES)
def test_no_privilege_is_asked_for(name):
    """Who is given a profile and no privileges is not refused for the profile's sake."""
    assert not {"sched", "nice", "user", "ambient-caps", "hugepages"} & {*tomllib.loads(text(name))}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_its_reason_above_it(name):
    """Also those that are commented out; and the lines fit a terminal."""
    lines = text(name).splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        assert len(line) <= LONGEST_LINE or "rtlaunch --profile" in line
        is_option = "=" in line and not line.startswith(("# ", "format"))
        assert not is_option or above.startswith("# "), line
    assert text(name).isascii()


@pytest.mark.parametrize("name", NAMES)
def test_the_head_has_a_command_that_can_be_copied(name):
    """Through the profile itself, with -- before the command."""
    assert " -- " in example(name)


def told(rtlaunch, *words):
    """What ``rtlaunch WORDS`` says: exit code, stdout, stderr."""
    process = rtlaunch.start(*words)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_the_version_names_them_and_their_folder(rtlaunch):
    """So that somebody who has the program finds them."""
    code, out, _ = told(rtlaunch, "--version", "-v")
    assert code == 0
    line = next(line for line in out.splitlines() if line.strip().startswith("profiles"))
    assert all(name in line for name in NAMES)
    assert line.endswith("/rtlaunch/profiles)")


def test_an_unknown_name_is_told_which_there_are(rtlaunch):
    """With nothing near it; with something near, that."""
    code, _, err = told(rtlaunch, "plan", "--profile", "qqqqq", "--", "true")
    assert code == 125
    assert all(name in err.splitlines()[0] for name in NAMES)
    assert "did you mean jvm?" in told(rtlaunch, "plan", "--profile", "jwm", "--", "true")[2]


def test_the_page_behind_it_names_them():
    """rtlaunch explain profile-missing."""
    assert all(f"\n    {name} " in PAGE.read_text() for name in NAMES)


def test_a_profile_of_ones_own_builds_on_one(rtlaunch, tmp_path):
    """Its lines win, the others are the shipped one's."""
    own = tmp_path / "robot.toml"
    own.write_text('format = 1\nextends = "control-loop"\nthread-stack = "512K"\n')
    own.chmod(0o644)
    code, out, _ = told(rtlaunch, "plan", "--json", "--profile", own, "--", "true")
    options = json.loads(out)["options"]
    assert code == 0
    assert (options["thread-stack"]["value"], options["heap"]["value"]) == ("512K", "1M")
