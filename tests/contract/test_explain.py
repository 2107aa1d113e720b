"""rtlaunch explain: a page for every code, each with what a person needs at night."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import rtlaunch.report
from rtlaunch.core.findings import CODES

PAGES = Path(rtlaunch.report.__file__).parent / "pages"
LONGEST_LINE = 96
FEWEST_LINES, MOST_LINES = 9, 40


def page(code: str) -> str:
    return (PAGES / f"{code}.md").read_text()


def explain(rtlaunch, *words: str) -> subprocess.CompletedProcess[str]:
    process = rtlaunch.start("explain", *words)
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


# --- the pages -------------------------------------------------------------------------------


def test_every_code_has_its_page_and_every_page_its_code():
    """No finding can be emitted that explain knows nothing of, and no page is left over."""
    assert {path.stem for path in PAGES.iterdir()} == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_page_begins_with_its_code_and_a_title(code):
    """The first line is the code and what it means, since the list prints it."""
    assert re.fullmatch(rf"# {code}: \S.{{10,80}}", page(code).split("\n")[0])


@pytest.mark.parametrize("code", CODES)
def test_a_page_shows_how_to_see_it_oneself(code):
    """Each page has lines that can be copied into a shell or a file."""
    assert any(line.startswith("    ") for line in page(code).split("\n"))


@pytest.mark.parametrize("code", CODES)
def test_a_page_fits_a_terminal(code):
    """A page is read on a terminal: plain characters, short lines, one screen or so."""
    lines = page(code).rstrip("\n").split("\n")
    assert page(code).isascii()
    assert max(map(len, lines)) <= LONGEST_LINE
    assert FEWEST_LINES <= len(lines) <= MOST_LINES


@pytest.mark.parametrize(
    "code", [code for code, (severity, _, may) in CODES.items() if severity == "error" and may]
)
def test_the_page_of_a_waivable_error_says_how_to_accept_it(code):
    """What can be allowed by name is told with its name."""
    assert f"--allow {code}" in page(code)


@pytest.mark.parametrize("code", [code for code, (_, _, may) in CODES.items() if not may])
def test_the_page_of_a_final_error_offers_no_waiver(code):
    """What cannot be allowed is not advertised as if it could."""
    assert f"--allow {code}" not in page(code)


@pytest.mark.parametrize("code", CODES)
def test_a_page_names_no_code_that_does_not_exist(code):
    """Every page that a page sends to is there."""
    named = re.findall(r"rtlaunch explain ([a-z-]+)|--allow ([a-z-]+)", page(code))
    assert {name for pair in named for name in pair if name} <= set(CODES)


# --- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_explain_prints_the_page(rtlaunch, code):
    """explain CODE prints that page, whole, on stdout."""
    ran = explain(rtlaunch, code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, page(code), "")


def test_explain_lists_every_code(rtlaunch):
    """explain alone prints one line for each code, with its page's title."""
    ran = explain(rtlaunch)
    listed = [line.split(None, 1) for line in ran.stdout.splitlines()]
    titles = {code: page(code).split("\n")[0].split(": ", 1)[1] for code in CODES}
    assert dict(listed) == titles
    assert ran.returncode == 0


def test_explain_suggests_the_near_name(rtlaunch):
    """A typing error is refused with the code that was meant, as a line to copy."""
    ran = explain(rtlaunch, "memlok-limit")
    assert (ran.returncode, ran.stdout) == (125, "")
    assert "'memlok-limit'; did you mean memlock-limit?" in ran.stderr
    assert "try now: rtlaunch explain memlock-limit\n" in ran.stderr


def test_explain_of_nonsense_points_to_the_list(rtlaunch):
    """A word that is near nothing is refused with the way to the list."""
    ran = explain(rtlaunch, "x/../../etc/passwd")
    assert (ran.returncode, ran.stdout) == (125, "")
    assert "did you mean" not in ran.stderr
    assert "rtlaunch explain   # lists every code" in ran.stderr
