"""Which children are meant, and when they did the work."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import children
from rtlaunch.core.proc import Stat

# option, executable, meant
MEANT = [
    ("none", "/usr/bin/app", False),
    ("all", "/usr/bin/app", True),
    ("all", "", True),
    ("app", "/usr/bin/app", True),
    ("app", "/usr/bin/apple", False),
    ("app*", "/usr/bin/apple", True),
    ("worker,app", "/opt/app", True),
    ("/usr/bin/*", "/usr/bin/app", True),
    ("/usr/*", "/usr/bin/app", True),
    ("/usr/bin/app", "/opt/usr/bin/app", False),
    ("bin/app", "/usr/bin/app", False),
    ("*/bin/app", "/usr/bin/app", True),
    ("app", "/usr/bin/app (deleted)", True),
    ("app", "", False),
]


@pytest.mark.parametrize(("option", "path", "meant"), MEANT)
def test_a_child_is_meant_by_its_executable(option: str, path: str, meant: bool) -> None:
    """A pattern with a slash is for the whole path, any other for the file name."""
    assert children.is_meant(option, path) is meant


LETTERS = st.text(alphabet="ab/-", max_size=8)
PARTS = st.sampled_from(["a", "b", "/", "*", "?", "[ab]", "[!a]", "[a-b]", "**", "-"])


@given(st.lists(PARTS, max_size=6).map("".join), LETTERS)
def test_it_matches_as_the_standard_library_does(pattern: str, text: str) -> None:
    """Another implementation, which a launch cannot afford to import, says the same."""
    assert children.matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def ended(own: int, theirs: int) -> Stat:
    """A stat with these clock ticks, half of each in the kernel."""
    times = {"utime": own // 2, "stime": own - own // 2}
    waited = {"cutime": theirs // 2, "cstime": theirs - theirs // 2}
    rest = dict.fromkeys(
        ("ppid", "session", "flags", "minflt", "majflt", "starttime",
         "startstack", "processor", "rt_priority", "policy"), 0,
    )  # fmt: skip
    return Stat(pid=7, comm="sh", state="Z", **times, **waited, **rest)


@pytest.mark.parametrize(
    ("own", "theirs", "said"), [(1, 50, True), (50, 50, False), (60, 50, False), (0, 9, False)]
)
def test_more_work_than_its_own_is_said(own: int, theirs: int, said: bool) -> None:
    """Children that used more CPU time than the program, and at least a tenth of a second."""
    finding = children.did_the_work(ended(own, theirs), 100)
    assert (finding is not None) is said
    if finding:
        assert (finding.code, finding.values["children_seconds"]) == ("work-in-child", 0.5)
