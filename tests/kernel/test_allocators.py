"""--heap and another malloc: refused by name, wherever it comes from; never ignored."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.host import compile_c
from tests.skips import skip

ALLOCATORS = {
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "mimalloc": "libmimalloc.so.[0-9]*",
}


def codes(ran) -> list[str]:
    return [finding["code"] for finding in ran.report["findings"]]


def test_musl_is_refused_by_name(rtlaunch, targets, tmp_path):
    """Its malloc has no settings."""
    if not shutil.which("musl-gcc"):
        skip("no-musl")
    program = tmp_path / "musl"
    source = Path(__file__).parents[1] / "targets" / "started.c"
    subprocess.run(["musl-gcc", "-o", program, source], check=True)
    ran = rtlaunch.run("--heap", "64M", "--", program)
    assert (ran.code, codes(ran), "musl" in ran.err) == (125, ["heap-allocator"], True)


def library(name: str) -> str:
    """Return the path of an allocator's library; skips where it is not installed."""
    found = sorted(Path("/usr/lib").glob(f"*/{name}"))
    if not found:
        skip("no-allocators")
    return str(found[0])


@pytest.mark.parametrize("owner", ALLOCATORS)
def test_a_preloaded_allocator_is_refused_by_name(rtlaunch, owner):
    """The user's own LD_PRELOAD has one."""
    env = {"PATH": "/usr/bin:/bin", "LD_PRELOAD": library(ALLOCATORS[owner])}
    ran = rtlaunch.run("--heap", "64M", "--", "true", env=env)
    assert (ran.code, codes(ran), owner in ran.err) == (125, ["heap-allocator"], True)


@pytest.mark.parametrize("owner", ALLOCATORS)
def test_a_linked_allocator_is_refused_by_name(rtlaunch, tmp_path, owner):
    """The program names it as a library that it needs."""
    source = tmp_path / "app.c"
    source.write_text("#include <stdlib.h>\nint main(void) { free(malloc(9)); return 0; }\n")
    flags = ("-Wl,--no-as-needed", library(ALLOCATORS[owner]))
    program = compile_c(source, tmp_path / "app", *flags)
    ran = rtlaunch.run("--heap", "64M", "--", program)
    assert (ran.code, codes(ran)) == (125, ["heap-allocator"])
    assert f"allocates by {owner}" in ran.err


@pytest.mark.parametrize("owner", ALLOCATORS)
def test_an_allocator_of_a_library_is_found_in_the_running_target(rtlaunch, tmp_path, owner):
    """It comes by a library of the program's: seen before main(), which does not run."""
    (tmp_path / "part.c").write_text("int part(void);\nint part(void) { return 0; }\n")
    (tmp_path / "app.c").write_text(
        '#include <stdio.h>\nint part(void);\nint main(void) { puts("ran"); return part(); }\n'
    )
    part = tmp_path / "libpart.so"
    needed = ("-Wl,--no-as-needed", library(ALLOCATORS[owner]))
    compile_c(tmp_path / "part.c", part, "-shared", "-fPIC", *needed)
    program = compile_c(tmp_path / "app.c", tmp_path / "app", str(part))
    ran = rtlaunch.run("--heap", "64M", "--", program)
    assert (ran.code, ran.out) == (125, "")
    assert f"allocates by {owner}: it is mapped into it" in ran.err


def test_a_program_with_a_malloc_of_its_own_is_refused(rtlaunch, tmp_path):
    """It defines malloc: what the C library is told serves nobody."""
    source = tmp_path / "own.c"
    source.write_text(
        "#include <stddef.h>\nstatic char all[65536]; static size_t used;\n"
        "void *malloc(size_t n) { used += n + 64 & ~63UL; return all + used - (n + 64 & ~63UL); }\n"
        "void free(void *p) { (void)p; }\nint main(void) { return malloc(1) == 0; }\n"
    )
    program = compile_c(source, tmp_path / "own", "-Wno-parentheses")
    ran = rtlaunch.run("--heap", "64M", "--", program)
    assert (ran.code, codes(ran)) == (125, ["heap-allocator"])
    assert "defines malloc" in ran.err


def test_an_allowed_allocator_runs_without_a_heap(rtlaunch):
    """--allow heap-allocator: locked, and nothing told to a malloc that would not listen."""
    env = {"PATH": "/usr/bin:/bin", "LD_PRELOAD": library(ALLOCATORS["jemalloc"])}
    words = ("--allow", "heap-allocator", "--heap", "64M", "--", "env")
    ran = rtlaunch.run(*words, env=env)
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)
    assert "GLIBC_TUNABLES" not in ran.out
