"""What a program's dynamic section says of its libraries and symbols, from the file's bytes.

Only 64-bit little-endian files are read, which is what a preload of ours can reach; of any other,
and of a damaged one, nothing is known: no name is needed, no symbol defined. It must not open
files.
"""

from __future__ import annotations

import struct
from struct import iter_unpack, unpack_from

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 0, 1, 4, 5, 6, 0x6FFFFEF5
_SYMBOL = "<IBBHQQ"  # Elf64_Sym: name, info, other, section, value, size
_SYMBOL_BYTES = 24
_CHAIN_END = 1  # the lowest bit of the last hash in a chain
_WORD = 0xFFFFFFFF
NAME_MAX = 4096
NO_SENSE = (struct.error, IndexError, ValueError, OverflowError)  # what a damaged file comes to


class Dynamic(Record):
    """The dynamic section: what is needed, by name, and where in the file the tables lie."""

    needed: tuple[str, ...] = ()
    strings: int = 0
    symbols: int = 0
    gnu_hash: int = 0
    sysv_hash: int = 0


def read_dynamic(image: bytes) -> Dynamic:
    """Read the dynamic section of an ELF file; an empty one where there is none, or no sense."""
    try:
        return _read(image)
    except NO_SENSE:
        return Dynamic()


def defines(image: bytes, dynamic: Dynamic, name: str) -> bool:
    """Tell whether the file defines the dynamic symbol ``name``, as the loader would look it up."""
    wanted = name.encode()
    try:
        if dynamic.gnu_hash:
            return any(_is(image, dynamic, at, wanted) for at in _gnu(image, dynamic, wanted))
        if dynamic.sysv_hash:
            return any(_is(image, dynamic, at, wanted) for at in _sysv(image, dynamic))
    except NO_SENSE:
        return False
    return False


def imports(image: bytes, dynamic: Dynamic) -> frozenset[str]:
    """Name the dynamic symbols that the file takes from others.

    A GNU hash table has the defined ones alone, and says at which the first of them is.
    """
    try:
        if dynamic.gnu_hash:
            _, count = unpack_from("<II", image, dynamic.gnu_hash)
        elif dynamic.sysv_hash:
            _, count = unpack_from("<II", image, dynamic.sysv_hash)
        else:
            return frozenset()
        table = image[dynamic.symbols : dynamic.symbols + count * _SYMBOL_BYTES]
        names = [row[0] for row in iter_unpack(_SYMBOL, table) if row[3] == 0]
        return frozenset(_name(image, dynamic.strings + at).decode("latin-1") for at in names)
    except NO_SENSE:
        return frozenset()


def _read(image: bytes) -> Dynamic:
    if image[:6] != b"\x7fELF\x02\x01":
        return Dynamic()
    (table,) = unpack_from("<Q", image, 32)
    size, count = unpack_from("<HH", image, 54)
    segments = [unpack_from("<IIQQQQ", image, table + at * size) for at in range(count)]
    loaded = [each for each in segments if each[0] == _PT_LOAD]
    places = [(each[2], each[5]) for each in segments if each[0] == _PT_DYNAMIC]
    tags: dict[int, int] = {}
    needed = []
    for offset, length in places[:1]:
        for tag, value in iter_unpack("<QQ", image[offset : offset + length - length % 16]):
            if tag == _DT_NULL:
                break
            if tag == _DT_NEEDED:
                needed.append(value)
            tags[tag] = value
    where = {tag: _offset(loaded, value) for tag, value in tags.items()}
    strings = where.get(_DT_STRTAB, 0)
    return Dynamic(
        tuple(_name(image, strings + at).decode("utf-8", "replace") for at in needed),
        strings,
        where.get(_DT_SYMTAB, 0),
        where.get(_DT_GNU_HASH, 0),
        where.get(_DT_HASH, 0),
    )


def _offset(loaded: list[tuple[int, ...]], address: int) -> int:
    """Return where in the file an address comes from; 0, where the ELF header is, for nowhere."""
    for _, _, offset, start, _, length in loaded:
        if start <= address < start + length:
            return address - start + offset
    return 0


def _name(image: bytes, at: int) -> bytes:
    return image[at : at + NAME_MAX].partition(b"\0")[0]


def _is(image: bytes, dynamic: Dynamic, index: int, wanted: bytes) -> bool:
    name, _, _, section, _, _ = unpack_from(_SYMBOL, image, dynamic.symbols + index * _SYMBOL_BYTES)
    return section != 0 and _name(image, dynamic.strings + name) == wanted


def _gnu(image: bytes, dynamic: Dynamic, wanted: bytes) -> Iterator[int]:
    """Yield the symbols in the chain of the name's bucket (dl-lookup.c, do_lookup_x)."""
    table = dynamic.gnu_hash
    buckets, first, bloom, _ = unpack_from("<IIII", image, table)
    if not buckets:
        return
    value = 5381
    for byte in wanted:
        value = (value * 33 + byte) & _WORD
    chains = table + 16 + bloom * 8 + buckets * 4
    (at,) = unpack_from("<I", image, table + 16 + bloom * 8 + value % buckets * 4)
    while at >= first:
        (found,) = unpack_from("<I", image, chains + (at - first) * 4)
        if found | _CHAIN_END == value | _CHAIN_END:
            yield at
        if found & _CHAIN_END:
            return
        at += 1


def _sysv(image: bytes, dynamic: Dynamic) -> range:
    """Return all symbols: the old table is found in few programs, and says how many there are."""
    _, count = unpack_from("<II", image, dynamic.sysv_hash)
    return range(count)
