"""A unit's files: which they are, and what a directive comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtlaunch.core import unitfile
from rtlaunch.linux import unitfile as reading

UNIT = "[Unit]\nType=notthis\n[Service]\nType = notify\nLimitMEMLOCK=infinity\n"


@pytest.mark.parametrize(
    ("texts", "key", "expected"),
    [
        ((UNIT,), "Type", "notify"),
        ((UNIT,), "PIDFile", ""),
        ((UNIT, "[Service]\nType=exec\n"), "Type", "exec"),
        ((UNIT, "[Service]\nLimitMEMLOCK=\n"), "LimitMEMLOCK", ""),
        (("[Service]\n# Type=forking\n;Type=forking\n",), "Type", ""),
        (("[Service]\nExecStart=/bin/x \\\n  Type=forking\n",), "Type", ""),
        (("Type=forking\n",), "Type", ""),
    ],
)
def test_the_last_assignment_in_service_counts(texts, key, expected):
    """Comments, other sections and continued lines do not; an empty one takes it back."""
    assert unitfile.value(texts, key) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("infinity", -1), ("64M", 64 << 20), ("8M:64M", 64 << 20), ("8M:infinity", -1),
        ("65536", 65536), ("1T", 1 << 40), ("", None), ("soon", None), ("M", None),
    ],
)  # fmt: skip
def test_a_limit_is_its_hard_part(text, expected):
    """SOFT:HARD, or one for both."""
    assert unitfile.hard_limit(text) == expected


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        (-1, 8 << 20, True), (64 << 20, 8 << 20, True), (8 << 20, 8 << 20, False),
        (-1, -1, False), (64 << 20, -1, False), (None, 8 << 20, False), (-1, None, False),
    ],
)  # fmt: skip
def test_more_than_what_was_given(asked, given, expected):
    """Infinity is more than any number."""
    assert unitfile.is_more(asked, given) is expected


def test_an_instance_has_its_templates_files_too():
    """systemd.unit(5): the name itself, its template, its prefixes, its kind."""
    assert unitfile.fragments("a-b@c.service") == ("a-b@c.service", "a-b@.service")
    assert unitfile.drop_in_folders("a-b@c.service") == (
        "a-b@c.service.d", "a-b@.service.d", "a-.service.d", "service.d",
    )  # fmt: skip


def test_files_are_read_as_the_manager_applies_them(tmp_path: Path) -> None:
    """The first folder's own file; drop-ins by name, of one name the first folder's."""
    files = {
        "etc/x.service": "own", "lib/x.service": "masked",
        "lib/x.service.d/20-b.conf": "b", "lib/x.service.d/10-a.conf": "masked",
        "etc/x.service.d/10-a.conf": "a", "lib/service.d/30-c.conf": "c",
        "etc/x.service.d/README": "no drop-in",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    folders = [str(tmp_path / "etc"), str(tmp_path / "nowhere"), str(tmp_path / "lib")]
    assert list(reading.texts("x.service", folders)) == ["own", "a", "b", "c"]
    assert list(reading.texts("y.service", folders)) == ["c"]


def test_a_users_units_are_where_the_user_has_them():
    """XDG's folders, and no folder of a variable that is not set."""
    found = unitfile.folders(True, {"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/user/7"})
    assert found[0] == "/home/me/.config/systemd/user"
    assert "/run/user/7/systemd/transient" in found
    assert unitfile.folders(True, {}) == unitfile.USER_FOLDERS
