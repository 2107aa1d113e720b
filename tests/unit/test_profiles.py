"""Profile files: where they are found, and what is not taken from them."""

import os
import stat

import pytest

from rtlaunch.core.findings import Refusal
from rtlaunch.linux import profiles

USER, ROOT = 1000, 0
GOOD = "format = 1\nnice = 5\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An environment whose XDG_CONFIG_HOME is fresh, with system and shipped places beside it."""
    for place in ("config/rtlaunch", "system", "shipped"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr(profiles, "SYSTEM_DIR", str(tmp_path / "system"))
    monkeypatch.setattr(profiles, "SHIPPED_DIR", str(tmp_path / "shipped"))
    return tmp_path, {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def write(path, text=GOOD):
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def refused(asked, environ=(), euid=USER):
    """The finding with which the profile ``asked`` for is refused."""
    with pytest.raises(Refusal) as caught:
        profiles.load(asked, dict(environ), euid)
    return caught.value.finding


# --- finding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["config/rtlaunch", "system", "shipped"])
def test_a_name_is_found_in_each_place(home, place):
    """The user's own, the system's, the shipped ones."""
    path = write(home[0] / place / "robot.toml")
    assert profiles.load("robot", home[1], USER).path == path


def test_the_users_own_profile_comes_first(home):
    """A shipped profile can be replaced by a file of the same name."""
    for place in ("shipped", "system", "config/rtlaunch"):
        path = write(home[0] / place / "robot.toml")
        assert profiles.find("robot", home[1]) == path


def test_a_slash_makes_it_a_path(home, monkeypatch):
    """./robot.toml is the file of that name, wherever profiles are looked for."""
    write(home[0] / "robot.toml")
    monkeypatch.chdir(home[0])
    assert profiles.load("./robot.toml", home[1], USER).texts == {"nice": ("5",)}


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, "/c/rtlaunch"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/h"}, "/h/.config/rtlaunch"),
        ({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/rtlaunch"),
        ({}, "/etc/rtlaunch/profiles"),
    ],
)
def test_the_users_own_place_is_as_the_base_directory_specification_has_it(environ, first):
    """A service without HOME has none."""
    assert profiles.directories(environ)[0] == first


def test_a_missing_name_is_refused_with_the_near_one_and_the_places(home):
    """What exists under nearly that name was probably meant."""
    write(home[0] / "system" / "robot.toml")
    finding = refused("robbot", home[1])
    assert finding.code == "profile-missing"
    assert finding.what.endswith("did you mean robot?")
    assert all(place in finding.what for place in profiles.directories(home[1]))


def test_a_name_that_is_near_none_is_told_them_all(home):
    """Who guesses finds what there is."""
    for place in ("system", "shipped"):
        write(home[0] / place / f"{place}-robot.toml")
    assert refused("qqq", home[1]).what.endswith("; there are system-robot, shipped-robot")


def test_a_missing_file_is_refused_by_its_path(home):
    """And not looked for elsewhere."""
    finding = refused(str(home[0] / "none.toml"), home[1])
    assert finding.code == "profile-missing"


def test_a_file_name_without_a_slash_is_told_that_it_needs_one(home):
    """--profile robot.toml is a name, though it looks like a path."""
    assert "a path needs a slash: ./robot.toml" in refused("robot.toml", home[1]).what


def test_a_parent_is_found_by_name(home):
    """Its keys stand under the child's."""
    write(home[0] / "system" / "base.toml", "format = 1\nnice = 9\n")
    path = write(home[0] / "robot.toml", GOOD + "extends = 'base'")
    profile = profiles.load(path, home[1], USER)
    assert profile.parent is not None
    assert profile.parent.texts == {"nice": ("9",)}


def test_a_missing_parent_is_refused(home):
    """Half a profile is none."""
    path = write(home[0] / "robot.toml", GOOD + "extends = 'base'")
    assert refused(path, home[1]).code == "profile-missing"


@pytest.mark.parametrize("parent", ["robot", "middle"])
def test_a_profile_that_extends_itself_or_in_a_chain_is_refused(home, parent):
    """Neither hangs."""
    write(home[0] / "system" / "robot.toml", GOOD + f"extends = '{parent}'")
    write(home[0] / "system" / "middle.toml", GOOD + "extends = 'base'")
    assert refused("robot", home[1]).code == "profile-invalid"


# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"format = ", b"[[[", b"\xff\xfe", b"\0", b"a = " + b"[" * 5000, b"a=1\na=2"]
)
def test_what_is_not_toml_is_refused_with_its_path(tmp_path, content):
    """Also bytes that are no text, and brackets without end."""
    path = tmp_path / "robot.toml"
    path.write_bytes(content)
    finding = refused(str(path))
    assert finding.code == "profile-invalid"
    assert finding.what.startswith(str(path))


def test_a_directory_is_no_profile(tmp_path):
    """It can be opened, but not read."""
    assert refused(f"{tmp_path}/").code == "profile-unreadable"


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    """Nobody would ever write to it."""
    os.mkfifo(tmp_path / "robot.toml")
    assert refused(str(tmp_path / "robot.toml")).code == "profile-unreadable"


@pytest.mark.parametrize("path", ["/proc/self/mem", "/dev/zero", "/etc/passwd/x", "a/\0b"])
def test_what_cannot_be_read_is_refused(path):
    """A device has no end, and not every path can be opened."""
    assert refused(path).code == "profile-unreadable"


def test_a_file_that_is_too_long_is_refused(tmp_path):
    """A profile is written by a person."""
    path = write(tmp_path / "robot.toml", "#" * 2**20)
    assert refused(path).code == "profile-unreadable"


def test_reading_leaves_no_descriptor_open(tmp_path):
    """Neither when it works nor when it is refused."""
    path, before = write(tmp_path / "robot.toml"), sorted(os.listdir("/proc/self/fd"))
    profiles.load(path, {}, USER)
    refused(f"{tmp_path}/")
    assert sorted(os.listdir("/proc/self/fd")) == before


# --- as root ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_root_refuses_a_profile_that_others_can_write(tmp_path, mode):
    """It would tell root what to run; a user may do as they like."""
    path = write(tmp_path / "robot.toml")
    os.chmod(path, mode)
    finding = refused(path, euid=ROOT)
    assert finding.code == "profile-writable"
    assert finding.try_now.startswith(f"chown root {path}; chmod go-w ")
    assert profiles.load(path, {}, USER).path == path


def test_root_refuses_a_profile_in_a_directory_that_others_can_write(tmp_path):
    """Who can write the directory can put another file in its place."""
    place = tmp_path / "open"
    place.mkdir()
    path = write(place / "robot.toml")
    place.chmod(0o777)
    assert refused(path, euid=ROOT).code == "profile-writable"


def test_root_refuses_a_link_out_of_a_directory_that_others_can_write(tmp_path):
    """The link is what they would replace."""
    place = tmp_path / "open"
    place.mkdir()
    (place / "robot.toml").symlink_to(write(tmp_path / "robot.toml"))
    place.chmod(0o777)
    assert refused(str(place / "robot.toml"), euid=ROOT).code == "profile-writable"


def test_a_shipped_profile_is_trusted_as_the_program_is(home):
    """Who can write it can write rtlaunch; a venv need not belong to root."""
    path = write(home[0] / "shipped" / "robot.toml")
    os.chmod(path, 0o666)
    assert profiles.load("robot", home[1], ROOT).path == path


def status(mode, uid):
    return os.stat_result((mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    "mode",
    [
        stat.S_IFREG | 0o644,
        stat.S_IFREG | 0o1600,
        stat.S_IFDIR | 0o755,
        stat.S_IFDIR | 0o1777,
        stat.S_IFLNK | 0o777,
    ],
)
def test_what_root_alone_can_write_is_trusted(mode):
    """In /tmp with its sticky bit too; a link's own mode means nothing."""
    assert profiles.writers(status(mode, ROOT)) == ""


@pytest.mark.parametrize(
    ("mode", "uid"),
    [
        (stat.S_IFREG | 0o600, USER),
        (stat.S_IFREG | 0o1666, ROOT),
        (stat.S_IFREG | 0o620, ROOT),
        (stat.S_IFDIR | 0o1777, USER),
        (stat.S_IFDIR | 0o775, ROOT),
        (stat.S_IFLNK | 0o777, USER),
    ],
)
def test_what_another_can_write_is_not_trusted(mode, uid):
    """The owner can always; a sticky bit on a file guards nothing."""
    assert profiles.writers(status(mode, uid)) != ""
