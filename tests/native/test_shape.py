"""The binaries themselves: what a program gets when the shim is loaded, and what it does not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

PF_X, PF_W = 1, 2

# What the build leaves out, because another compiler's new warning must not stop an installation.
STRICT = [
    "-Werror",
    "-Wpedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wcast-qual",
    "-Wcast-align=strict",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wold-style-definition",
    "-Wundef",
    "-Wvla",
    "-Wformat=2",
    "-Wimplicit-fallthrough",
    "-Wlogical-op",
    "-Wduplicated-cond",
    "-Wduplicated-branches",
    "-Wnull-dereference",
    "-Wwrite-strings",
]


def dynamic_tags(path: Path) -> dict[str, list[object]]:
    with path.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".dynamic")
        tags: dict[str, list[object]] = {}
        for tag in section.iter_tags():
            tags.setdefault(tag.entry.d_tag, []).append(tag.entry.d_val)
        return tags


def dynamic_symbols(path: Path) -> list[tuple[str, str, str]]:
    """Return (name, binding, section) of each dynamic symbol that another object could see."""
    with path.open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".dynsym").iter_symbols()
        found = [(one.name, one["st_info"]["bind"], one["st_shndx"]) for one in symbols]
    return [one for one in found if one[1] != "STB_LOCAL"]


def segments(path: Path) -> list[tuple[str, int]]:
    with path.open("rb") as stream:
        return [(one["p_type"], one["p_flags"]) for one in ELFFile(stream).iter_segments()]


def test_shim_needs_no_library(any_shim: Path) -> None:
    """Loading the shim loads nothing else: no DT_NEEDED, and no name that another could need."""
    assert not {"DT_NEEDED", "DT_SONAME", "DT_RPATH", "DT_RUNPATH"} & set(dynamic_tags(any_shim))


def test_shim_exports_nothing_and_wants_only_the_environment(any_shim: Path) -> None:
    """No symbol of the target can be taken by ours; the only one looked up is a weak __environ."""
    assert dynamic_symbols(any_shim) == [("__environ", "STB_WEAK", "SHN_UNDEF")]


def test_shim_has_two_segments_and_no_relro(any_shim: Path) -> None:
    """A child that inherits the shim pays for two mappings and no mprotect."""
    found = segments(any_shim)
    assert [kind for kind, _ in found].count("PT_LOAD") == 2
    assert "PT_GNU_RELRO" not in [kind for kind, _ in found]


def test_shim_has_a_tail_to_clear(any_shim: Path) -> None:
    """A child that inherits the shim pays for one page fault in what is writable, not for two."""
    with any_shim.open("rb") as stream:
        loaded = [one.header for one in ELFFile(stream).iter_segments("PT_LOAD")]
    (written,) = (one for one in loaded if one["p_flags"] & PF_W)
    assert written["p_memsz"] > written["p_filesz"]


def test_shim_is_never_writable_and_executable(any_shim: Path) -> None:
    """Neither code nor stack of the target becomes writable code through us; no text relocation."""
    found = segments(any_shim)
    loaded = [flags for kind, flags in found if kind == "PT_LOAD"]
    assert not [flags for flags in loaded if flags & PF_W and flags & PF_X]
    assert [flags & PF_X for kind, flags in found if kind == "PT_GNU_STACK"] == [0]
    assert "DT_TEXTREL" not in dynamic_tags(any_shim)


def test_shim_runs_one_constructor_and_no_destructor(any_shim: Path) -> None:
    """What the loader calls is one function before main(), and nothing at exit."""
    tags = dynamic_tags(any_shim)
    with any_shim.open("rb") as stream:
        pointer_bytes = ELFFile(stream).elfclass // 8
    assert tags["DT_INIT_ARRAYSZ"] == [pointer_bytes]
    assert not {"DT_INIT", "DT_FINI", "DT_FINI_ARRAY", "DT_PREINIT_ARRAY"} & set(tags)


def test_shim_does_not_weaken_control_flow_protection(any_shim: Path) -> None:
    """A loader turns IBT, shadow stack or BTI off where a library is unmarked: ours is marked."""
    with any_shim.open("rb") as stream:
        notes = ELFFile(stream).get_section_by_name(".note.gnu.property")
        assert notes is not None
        properties = [one for note in notes.iter_notes() for one in note["n_desc"]]
    assert [one["pr_type"] for one in properties] and all(one["pr_data"] for one in properties)


def test_stub_is_static_and_small(any_stub: Path) -> None:
    """The command runs wherever the kernel does: no loader, no libc, under 16 KiB."""
    assert not {"PT_INTERP", "PT_DYNAMIC"} & {kind for kind, _ in segments(any_stub)}
    assert any_stub.stat().st_size < 16 * 1024


def test_shim_compiles_without_a_warning(
    build: ModuleType, cc: list[str], any_shim: Path, tmp_path: Path
) -> None:
    """The shim is clean under every warning that we know of."""
    assert build.compile_native(cc, "shim.c", [*build.SHIM, *STRICT], tmp_path / "shim").exists()


def test_stub_compiles_without_a_warning(build: ModuleType, cc: list[str], tmp_path: Path) -> None:
    """The stub is clean under every warning that we know of."""
    cc = [word for word in cc if word != "-m32"]  # it is the launcher's, and so of its machine
    assert build.compile_native(cc, "stub.c", [*build.STUB, *STRICT], tmp_path / "stub").exists()


def test_poisoned_function_does_not_compile(build: ModuleType, tmp_path: Path) -> None:
    """A libc call in the shim is stopped by the preprocessor, before a linker sees it."""
    native = tmp_path / "rtlaunch" / "native"
    native.mkdir(parents=True)
    for part in (build.ROOT / "rtlaunch" / "native").glob("*.[ch]"):
        (native / part.name).write_bytes(part.read_bytes())
    with (native / "shim.c").open("a") as shim:
        shim.write("void extra(void);\nvoid extra(void) { exit(1); }\n")
    arch = build.machine(["cc"])
    done = subprocess.run(
        ["cc", "-fsyntax-only", f'-DARCH_HEADER="arch_{arch}.h"', str(native / "shim.c")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert 'attempt to use poisoned "exit"' in done.stderr
