"""--heap: there, in memory and locked before main(), by the kernel's books; and no fault of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import books
from tests.host import compile_c
from tests.kernel.hugepools import own_pools, set_pool
from tests.skips import skip
from tests.standing import standing

KIB, MIB = 1 << 10, 1 << 20
HUGE = 2 * MIB
ASKED = 64 * MIB
BENCH = Path(__file__).parents[2] / "bench"
EIGHT_THREADS = 6 * MIB  # what eight idle threads may lock on the diet; 592 MB without
MANY_FAULTS = 1000  # of the same mixing without a heap: 110,000
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """Leases are kept in the books of this test."""
    monkeypatch.setenv("RTLAUNCH_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def mixing(targets):
    """The program of the bench that mixes sizes, in main and 4 threads."""
    return compile_c(BENCH / "mixing.c", targets / "mixing")


@pytest.fixture(scope="module")
def idle(targets):
    """The program of the bench with 8 idle threads."""
    return compile_c(BENCH / "idle.c", targets / "idle")


def codes(ran) -> list[str]:
    return [finding["code"] for finding in ran.report["findings"]]


def heap_of(pid: int) -> books.Mapping:
    """Return the mapping that brk made."""
    return next(each for each in books.smaps(pid) if each.path == "[heap]")


def rows_of(pid: int, path: str) -> dict[str, int]:
    """Add up what smaps says, in bytes, of every mapping whose name begins so."""
    sums: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = words[-1].startswith(path) or f" {path}" in line
        elif inside and words[-1] == "kB":
            sums[words[0][:-1]] = sums.get(words[0][:-1], 0) + int(words[1]) * KIB
    return sums


def mapped(pid: int) -> list[tuple[int, int]]:
    return [(each.start, each.end) for each in books.smaps(pid)]


# ---- it is there ----


def test_the_heap_is_there_before_main(anybody, targets):
    """Before the program's own constructor: as large as asked, all of it resident and locked."""
    words = ("--heap", "1M", "--", targets / "waiter")
    with standing(anybody, *words, before_main=True) as held:
        heap = heap_of(held.pid)
        assert heap.end - heap.start >= MIB
        assert heap.locked
        assert heap.resident == heap.end - heap.start


def test_the_report_has_the_kernels_figures(rtlaunch, targets):
    """heap.found_bytes, locked_bytes, resident_bytes and page_bytes are smaps' own."""
    words = ("--heap", "64M", "--", targets / "waiter")
    with standing(rtlaunch, *words, before_main=True) as held:
        rows = rows_of(held.pid, "[heap]")
        held.tell("")
        report = held.end().report["heap"]
    assert report["asked_bytes"] == ASKED <= report["found_bytes"] == rows["Size"]
    assert report["locked_bytes"] == rows["Locked"]
    assert report["resident_bytes"] == rows["Rss"]
    assert (report["page_bytes"], report["allocator"]) == (books.PAGE, "glibc")
    assert "glibc.malloc.mmap_max=0" in report["variables"]["GLIBC_TUNABLES"]


def test_the_summary_says_what_was_found(rtlaunch):
    """With -v: how much heap, on what pages."""
    assert "; heap 64 MiB on 4 KiB pages; " in rtlaunch.run("-v", "--heap", "64M", "--", "true").err


def test_a_large_block_takes_no_fault_and_no_mapping(rtlaunch, targets):
    """malloc of 40 MiB of 64: no address space more, and writing to it takes no fault."""
    with standing(rtlaunch, "--heap", "64M", "--", targets / "waiter") as held:
        held.ask("counts")
        before = mapped(held.pid)
        address = held.number(f"malloc {40 * MIB}")
        assert held.number(f"write {address:#x} {40 * MIB}") == 0
        assert mapped(held.pid) == before


@pytest.mark.parametrize("pages", ["inherit", "base", "thp"])
def test_no_malloc_faults_in_main_or_threads(rtlaunch, mixing, pages):
    """Mixed sizes from the first call on, freed and taken again: 0 faults, alone and in 5 threads.

    More threads than the one arena's lock lets in change nothing.
    """
    if pages == "thp":
        need_thp()
    ran = rtlaunch.run("--heap", "256M", "--heap-pages", pages, "--", mixing)
    assert (ran.out.split(), codes(ran)) == (["mixed", "0", "0"], [])


def test_without_a_heap_the_same_program_faults(rtlaunch, mixing):
    """Also when it is locked: what is mapped in its time is populated in its time."""
    _, alone, all_threads = rtlaunch.run("--", mixing).out.split()
    assert int(alone) > MANY_FAULTS
    assert int(all_threads) > MANY_FAULTS


def test_each_image_of_a_chain_has_its_heap(rtlaunch, targets):
    """sh -c 'exec …': the last image has a heap of its own, and the report is of that one."""
    words = ("--heap", "64M", "--", "sh", "-c", f"exec {targets / 'waiter'}")
    with standing(rtlaunch, *words) as held:
        heap = heap_of(held.pid)
        assert heap.locked and heap.resident >= ASKED
        ran = held.end()
    assert ran.report["heap"]["found_bytes"] >= ASKED
    assert len(ran.report["target"]["images"]) == 2


def test_a_child_has_no_such_heap(rtlaunch):
    """What it inherits is the variables: its heap is small, and not in memory before its use."""
    line = "grep -A1 '\\[heap\\]' /proc/self/smaps; true"
    ran = rtlaunch.run("--heap", "64M", "--", "sh", "-c", line)
    size = int(ran.out.split("Size:")[1].split()[0]) * KIB
    assert size < 4 * MIB


# ---- pages ----


def need_thp() -> None:
    if "[never]" in THP.read_text():
        skip("no-thp")


def test_huge_pages_hold_the_heap_and_no_page_more(rtlaunch, targets):
    """64 MiB on 2 MiB pages, leased: exactly 32 of them, all in memory; the pool is given back."""
    with own_pools():
        words = ("--hugepages", "2M:32", "--heap", "64M", "--heap-pages", "2M")
        with standing(rtlaunch, *words, "--", targets / "waiter", before_main=True) as held:
            rows = rows_of(held.pid, "/anon_hugepage")
            held.tell("")
            ran = held.end()
    assert (rows["Private_Hugetlb"], rows["Size"]) == (ASKED, ASKED)
    heap = ran.report["heap"]
    assert (heap["found_bytes"], heap["locked_bytes"], heap["page_bytes"]) == (ASKED, ASKED, HUGE)
    assert (ran.code, codes(ran)) == (0, [])


def test_malloc_on_huge_pages_takes_no_fault(rtlaunch, mixing):
    """The same mixing, on a heap of leased pages."""
    with own_pools():
        words = ("--hugepages", "2M:128", "--heap", "256M", "--heap-pages", "2M", "--", mixing)
        ran = rtlaunch.run(*words)
    assert (ran.out.split(), codes(ran)) == (["mixed", "0", "0"], [])


def test_too_few_huge_pages_are_refused(rtlaunch):
    """31 pages for 32: refused before anything starts, with the lease that would do."""
    with own_pools():
        set_pool(31)
        ran = rtlaunch.run("--heap", "64M", "--heap-pages", "2M", "--", "true")
    assert (ran.code, codes(ran)) == (125, ["heap-pages"])
    assert "takes 32 huge pages of 2 MiB; usable are 31" in ran.err
    assert "--hugepages 2M:32" in ran.err


def test_a_fallback_that_was_allowed_is_said(rtlaunch):
    """Without a page in the pool glibc takes small ones: a warning with the numbers."""
    with own_pools():
        words = ("--allow", "heap-pages", "--heap", "64M", "--heap-pages", "2M", "--", "true")
        ran = rtlaunch.run(*words)
    assert (ran.code, "heap-fallback" in codes(ran)) == (0, True)
    assert ran.report["heap"]["page_bytes"] == books.PAGE
    assert "on pages of 4 KiB, asked was 2 MiB" in ran.err


def test_transparent_huge_pages_hold_the_heap(rtlaunch, targets):
    """--heap-pages thp: nearly all of it, although it is locked before main()."""
    need_thp()
    words = ("--heap", "64M", "--heap-pages", "thp", "--", targets / "waiter")
    with standing(rtlaunch, *words, before_main=True) as held:
        assert rows_of(held.pid, "[heap]")["AnonHugePages"] >= ASKED - 2 * HUGE
        held.tell("")
        assert held.end().report["heap"]["page_bytes"] == HUGE


def test_pages_without_a_heap_are_refused(rtlaunch):
    """--heap-pages alone is a usage error."""
    ran = rtlaunch.run("--heap-pages", "thp", "--", "true")
    assert (ran.code, codes(ran)) == (125, ["usage"])


# ---- the lock leaves it ----


@pytest.mark.parametrize("lock", ["none", "future"])
def test_a_heap_that_nothing_locks_is_in_memory_and_said(rtlaunch, targets, lock):
    """Without current the guest populates it, and a warning says that it is not locked."""
    words = ("--lock", lock, "--heap", "64M", "--", targets / "waiter")
    with standing(rtlaunch, *words, before_main=True) as held:
        assert heap_of(held.pid).resident >= ASKED
        held.tell("")
        ran = held.end()
    assert codes(ran) == ["heap-fallback"]
    assert ran.report["heap"]["locked_bytes"] == 0


def test_onfault_leaves_the_heap_whole(rtlaunch, targets):
    """MCL_ONFAULT populates nothing: the guest does, and the lock holds it."""
    words = ("--lock", "current,future,onfault", "--heap", "64M", "--", targets / "waiter")
    with standing(rtlaunch, *words, before_main=True) as held:
        heap = heap_of(held.pid)
        assert heap.locked and heap.resident >= ASKED
        held.tell("")
        ran = held.end()
    assert codes(ran) == []
    assert ran.report["heap"]["locked_bytes"] >= ASKED


# ---- arenas, and threads ----


def test_one_arena_is_what_threads_share(rtlaunch, idle):
    """--arenas 1: eight threads that allocate lock their stacks, and no 64 MiB each besides."""
    with standing(rtlaunch, "--arenas", "1", "--", idle) as held:
        assert books.locked_bytes(held.pid) < 80 * MIB
        assert held.end().report["heap"]["variables"] == {
            "GLIBC_TUNABLES": "glibc.malloc.arena_max=1"
        }


def test_eight_idle_threads_fit_as_anybody(anybody, idle):
    """Small stacks, one arena, a heap: at most 6 MiB, and further threads start and allocate.

    Also for a user with 8 MiB and no capability.
    """
    diet = ("--thread-stack", "256K", "--arenas", "1", "--heap", "1M")
    with standing(anybody, *diet, "--", idle, "malloc") as held:
        assert books.locked_bytes(held.pid) <= EIGHT_THREADS
        assert [held.ask("more") for _ in range(3)] == ["9", "10", "11"]
        assert books.not_held(held.pid) == []


# ---- the user's own settings ----


def test_the_users_own_tunables_reach_the_program(rtlaunch):
    """Keys that are none of ours stay in GLIBC_TUNABLES."""
    env = {"PATH": "/usr/bin:/bin", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"}
    out = rtlaunch.run("--heap", "64M", "--", "env", env=env).out
    (told,) = [line for line in out.splitlines() if line.startswith("GLIBC_TUNABLES=")]
    assert "glibc.malloc.tcache_count=3" in told
    assert "glibc.malloc.mmap_max=0" in told


@pytest.mark.parametrize(
    "name, value",
    [
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=8"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536"),
        ("GLIBC_TUNABLES", "glibc.malloc.top_pad=1"),
        ("GLIBC_TUNABLES", "nonsense"),
        ("MALLOC_ARENA_MAX", "8"),
    ],
)
def test_a_contradiction_is_refused(rtlaunch, name, value):
    """125, and the key with both values in the message."""
    env = {"PATH": "/usr/bin:/bin", name: value}
    ran = rtlaunch.run("--heap", "64M", "--", "true", env=env)
    assert (ran.code, codes(ran)) == (125, ["heap-tunables"])
    assert value.partition("=")[0] in ran.err


# ---- what it cannot be ----


def test_a_heap_larger_than_the_machine_is_refused(rtlaunch):
    """1000 TiB, before anything starts."""
    ran = rtlaunch.run("--heap", "1000T", "--", "true")
    assert (ran.code, codes(ran)[-1]) == (125, "heap-too-large")


def test_a_heap_that_a_limit_cuts_is_an_error(rtlaunch):
    """RLIMIT_DATA of 16 MiB: malloc gets less, says nothing, and main() does not run."""
    ran = rtlaunch.run("--limit", "data=16M", "--heap", "64M", "--", "echo", "ran")
    assert (ran.code, ran.out) == (125, "")
    assert "refused [heap-short]" in ran.err


def test_a_static_program_gets_the_settings_and_a_warning(rtlaunch, tmp_path):
    """No guest gets in: its first malloc takes the whole heap, which is said to be unlocked."""
    source = tmp_path / "static.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "int main(void) { char *volatile block = malloc(1); "
        'return block ? system("grep heap /proc/$PPID/maps") : 1; }\n'
    )
    program = compile_c(source, tmp_path / "static", "-static")
    words = ("--via", "preload", "--allow", "target-static", "--heap", "64M")
    ran = rtlaunch.run(*words, "--", program)
    assert ran.code == 0
    start, _, end = ran.out.split()[0].partition("-")
    assert int(end, 16) - int(start, 16) >= ASKED
    assert "heap-fallback" in codes(ran)
    assert ran.report["heap"]["found_bytes"] is None
