"""The heap guest's binary: what a program gets with --heap beside the shim, and what not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.native.test_shape import PF_W, PF_X, STRICT, dynamic_symbols, dynamic_tags, segments

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

DF_1_INITFIRST = 0x20


@pytest.fixture(scope="module")
def guest(build: ModuleType, machine: str, cc: list[str], workspace: Path) -> Path:
    """The heap guest for each machine."""
    source, flags = build.GUESTS["heap"]
    made: Path = build.compile_native(cc, source, flags, workspace / f"heap-{machine}.so")
    return made


def test_heap_guest_needs_no_library(guest: Path) -> None:
    """Loading it loads nothing else, and nobody can need it."""
    assert not {"DT_NEEDED", "DT_SONAME", "DT_RPATH", "DT_RUNPATH"} & set(dynamic_tags(guest))


def test_heap_guest_exports_nothing_and_wants_three_names(guest: Path) -> None:
    """malloc, free and __environ, all weak: a program without them still starts."""
    assert sorted(dynamic_symbols(guest)) == [
        ("__environ", "STB_WEAK", "SHN_UNDEF"),
        ("free", "STB_WEAK", "SHN_UNDEF"),
        ("malloc", "STB_WEAK", "SHN_UNDEF"),
    ]


def test_heap_guest_runs_first_of_all(guest: Path) -> None:
    """DF_1_INITFIRST: no library's constructor allocates before the heap is reserved."""
    (flags,) = dynamic_tags(guest)["DT_FLAGS_1"]
    assert isinstance(flags, int) and flags & DF_1_INITFIRST


def test_heap_guest_has_two_segments_and_none_writable_and_executable(guest: Path) -> None:
    """A child that inherits it pays for two mappings; no RELRO, no executable stack."""
    found = segments(guest)
    loaded = [flags for kind, flags in found if kind == "PT_LOAD"]
    assert len(loaded) == 2
    assert not [flags for flags in loaded if flags & PF_W and flags & PF_X]
    assert "PT_GNU_RELRO" not in [kind for kind, _ in found]
    assert [flags & PF_X for kind, flags in found if kind == "PT_GNU_STACK"] == [0]


def test_heap_guest_has_one_constructor_and_no_destructor(guest: Path) -> None:
    """What the loader calls is one function before main(), and nothing at exit."""
    tags = dynamic_tags(guest)
    assert tags["DT_INIT_ARRAYSZ"] in ([4], [8])  # one pointer
    assert not {"DT_INIT", "DT_FINI", "DT_FINI_ARRAY", "DT_PREINIT_ARRAY"} & set(tags)


def test_heap_guest_compiles_without_a_warning(
    build: ModuleType, cc: list[str], guest: Path, tmp_path: Path
) -> None:
    """It is clean under every warning that we know of."""
    source, flags = build.GUESTS["heap"]
    assert build.compile_native(cc, source, [*flags, *STRICT], tmp_path / "heap").exists()
