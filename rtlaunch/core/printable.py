"""Text from outside on one line of a message: a file's name must not forge a second one.

Why: paths, arguments and unit names may hold newlines and terminal escapes, and
end up on a root's terminal. It must not quote for a shell (core.argv does).
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """Return ``text`` with every character that does not print escaped as Python writes it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
