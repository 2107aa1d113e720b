"""``rtlaunch explain``: the page behind a finding's code, or the list of all of them.

The pages are files beside the report, one for each code; a test holds the two
equal. It must not know anything about a code that its page does not say.
"""

from __future__ import annotations

import os

from rtlaunch.core.findings import CODES, Finding, Refusal
from rtlaunch.core.units import did_you_mean, near, shown

PAGES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "report", "pages")


def run(code: str | None) -> int:
    """Print the page of ``code``, or one line for each code; Refusal ``usage`` if unknown."""
    print(listing() if code is None else page(known(code)))
    return 0


def known(code: str) -> str:
    """Return ``code``; Refusal with the near name where there is no such code."""
    if code in CODES:
        return code
    meant = near(code, CODES)
    raise Refusal(
        Finding(
            "usage",
            f"no finding is called {shown(code)}{did_you_mean(code, CODES)}",
            try_now=f"rtlaunch explain {meant}".rstrip(),
            for_good="rtlaunch explain   # lists every code",
        )
    )


def page(code: str) -> str:
    """Return a page, whole; Refusal ``launch-failed`` where the installation lacks it."""
    path = os.path.join(PAGES, f"{code}.md")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except OSError as error:
        raise Refusal(
            Finding(
                "launch-failed",
                f"the page cannot be read: {path}: {error.strerror}",
                why="the installation is damaged",
                try_now="pip install --force-reinstall rtlaunch",
            )
        ) from error


def listing() -> str:
    """Return one line for each code: the code and its page's title."""
    width = max(map(len, CODES))
    return "\n".join(f"{code:{width}}  {title(code)}" for code in CODES)


def title(code: str) -> str:
    """Return what a page's first line says after the code."""
    return page(code).split("\n", 1)[0].split(": ", 1)[1]
