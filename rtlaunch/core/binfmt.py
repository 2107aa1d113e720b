"""Handlers registered with binfmt_misc: which one, if any, the kernel would run a file by.

Pure: the texts of /proc/sys/fs/binfmt_misc in, an entry out, by the rules of
fs/binfmt_misc.c (search_binfmt_handler). They are asked only about files that
no built-in format takes, though the kernel asks them first.
"""

from __future__ import annotations

from rtlaunch.core.elf import HEAD_BYTES
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Handler(Record):
    """An enabled entry: what it matches, and the interpreter that it runs files by.

    ``fixed`` (flag F) says that the interpreter was opened when it was
    registered, so that its path need not exist here.
    """

    name: str
    interpreter: str
    fixed: bool
    extension: str
    offset: int
    magic: bytes
    mask: bytes


def parse_handler(name: str, text: str) -> Handler | None:
    """Parse one entry's text; None when it is disabled or no entry."""
    lines = text.split("\n")
    if lines[0] != "enabled":
        return None
    words = dict(line.partition(" ")[::2] for line in lines[1:])
    magic = bytes.fromhex(words.get("magic", ""))
    return Handler(
        name=name,
        interpreter=words.get("interpreter", ""),
        fixed="F" in words.get("flags:", ""),
        extension=words.get("extension", "").removeprefix("."),
        offset=int(words.get("offset", "0")),
        magic=magic,
        mask=bytes.fromhex(words.get("mask", "")) or b"\xff" * len(magic),
    )


def find_handler(entries: Iterable[tuple[str, str]], path: str, head: bytes) -> Handler | None:
    """Return the first enabled entry, given as (name, text), that matches a file, or None."""
    parsed = (parse_handler(name, text) for name, text in entries)
    return next((one for one in parsed if one and _matches(one, path, head)), None)


def _matches(handler: Handler, path: str, head: bytes) -> bool:
    if handler.extension:
        return path.rpartition(".")[1:] == (".", handler.extension)
    end = handler.offset + len(handler.magic)
    seen = head[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0")[handler.offset : end]
    return len(seen) == len(handler.magic) > 0 and all(
        not (have ^ want) & mask
        for have, want, mask in zip(seen, handler.magic, handler.mask, strict=True)
    )
