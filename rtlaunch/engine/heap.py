"""Reading what bounds ``--heap`` and ``--arenas``: the C library, the allocator, pages, memory.

Imported only for these. It reads the program and its loader whole, once: whose malloc it is stands
in no header.
"""

from __future__ import annotations

import os

from rtlaunch.core import allocators, symbols
from rtlaunch.core.heap import GLIBC, MUSL, HeapFacts
from rtlaunch.engine import shape, shims
from rtlaunch.linux import memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.options import Options
    from rtlaunch.core.target import Image, Target

POOLS = "/sys/kernel/mm/hugepages"
KIB = 1024

# The names of glibc's settings stand in its loader, or in a static program (elf/dl-tunables.list).
TUNABLES, HUGETLB = b"glibc.malloc.top_pad", b"glibc.malloc.hugetlb"


def read(options: Options, target: Target, environ: Mapping[str, str]) -> HeapFacts | None:
    """Return the facts; None where no program would run."""
    program = target.program
    if program is None or program.elf is None:
        return None
    image, machine = read_file(program.path), program.elf.machine
    loader = os.fsdecode(program.elf.interp or b"") or program.path
    settings = image if program.elf.interp is None else read_file(loader)
    allocator, evidence = find_allocator(program, image, environ)
    pages = options.heap_pages
    return HeapFacts(
        libc=libc_of(loader, settings),
        loader=loader,
        tunables=TUNABLES in settings,
        hugetlb=HUGETLB in settings,
        allocator=allocator,
        evidence=evidence,
        guest=shims.guest("heap", machine, environ) if options.heap is not None else "",
        thp=shape.thp_system() if pages == "thp" else "",
        pool=usable_pages(pages) if isinstance(pages, int) else None,
        total_bytes=total_memory(),
    )


def read_file(path: str) -> bytes:
    """Return what a file holds; b"" where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as stream:
            return stream.readall()
    except OSError:
        return b""


def libc_of(loader: str, settings: bytes) -> str:
    """Return whose C library it is, by its loader's name, or by the settings that it knows."""
    name = loader.rpartition("/")[2]
    if name.startswith("ld-musl"):
        return MUSL
    known = name.startswith(("ld-linux", "ld64.so", "ld-2.", "ld.so"))
    return GLIBC if known or TUNABLES in settings else ""


def find_allocator(program: Image, image: bytes, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return another malloc than the C library's, and where it was seen; two empty ones if none.

    Libraries that come by other libraries are seen in the running target.
    """
    preloaded = environ.get("LD_PRELOAD", "").replace(":", " ").split()
    owner, name = allocators.first_library(preloaded)
    if owner:
        return owner, f"LD_PRELOAD has {name}"
    dynamic = symbols.read_dynamic(image)
    owner, name = allocators.first_library(dynamic.needed)
    if owner:
        return owner, f"{program.path} needs {name}"
    if symbols.defines(image, dynamic, "malloc"):
        return allocators.by_marks(image), f"{program.path} defines malloc"
    return "", ""


def usable_pages(page_bytes: int) -> int | None:
    """Return how many huge pages are free and reserved by nobody; None for a size unknown here."""
    folder = f"{POOLS}/hugepages-{page_bytes // KIB}kB"
    free = memory.read_number(f"{folder}/free_hugepages")
    reserved = memory.read_number(f"{folder}/resv_hugepages")
    return None if free is None else free - (reserved or 0)


def total_memory() -> int:
    """Return the machine's memory in bytes, 0 where it cannot be told."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
