"""Allocators that take the place of the C library's malloc, by the names they are known by.

Why they are refused and not served: what they reserve by their own variables they map again, purge
and give back as they like, so that neither "no fault" nor "in memory" could be promised
(docs/decisions/0021). Pure: names and bytes in, a name out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# how the library's file is called: whose it is
LIBRARIES = (
    ("libjemalloc", "jemalloc"),
    ("libtcmalloc", "tcmalloc"),
    ("libmimalloc", "mimalloc"),
    ("libsnmalloc", "snmalloc"),
    ("libhoard", "hoard"),
    ("libtbbmalloc_proxy", "tbbmalloc"),
    ("libumem", "umem"),
    ("libscudo", "scudo"),
    ("libc_malloc_debug", "glibc's debugging malloc"),
    ("libefence", "electric fence"),
    ("libasan", "AddressSanitizer"),
    ("libtsan", "ThreadSanitizer"),
    ("liblsan", "LeakSanitizer"),
)

# what only that allocator has in its messages or its variables' names: whose it is
MARKS = (
    (b"<jemalloc>", "jemalloc"),
    (b"TCMALLOC_", "tcmalloc"),
    (b"mimalloc: ", "mimalloc"),
)

OWN = "an allocator of its own"

# what an allocator calls what it can do instead of --heap, shown to who is refused
OWN_VARIABLES = {
    "jemalloc": "MALLOC_CONF",
    "tcmalloc": "TCMALLOC_HEAP_LIMIT_MB and the like",
    "mimalloc": "MIMALLOC_RESERVE_OS_MEMORY and the like",
}


def by_library(path: str) -> str:
    """Return whose library a file is, by its name; "" for none that is known."""
    name = path.rpartition("/")[2].removesuffix(" (deleted)")
    return next((owner for start, owner in LIBRARIES if name.startswith(start)), "")


def first_library(paths: Iterable[str]) -> tuple[str, str]:
    """Return the first allocator among libraries and the library's name; two empty ones if none."""
    for path in paths:
        owner = by_library(path)
        if owner:
            return owner, path
    return "", ""


def by_marks(image: bytes) -> str:
    """Return whose code is in a program that defines malloc itself."""
    return next((owner for mark, owner in MARKS if image.find(mark) >= 0), OWN)
