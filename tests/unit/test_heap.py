"""What malloc is told for --heap, merged with what the user told it, and what stands against it."""

from __future__ import annotations

import pytest

from rtlaunch.core import heap, heapfindings, plan, preflight
from rtlaunch.core.asked_steps import ReserveHeap
from rtlaunch.core.heap import HeapFacts
from rtlaunch.core.record import replace
from tests.unit.deciding import MIB, codes, facts, options

GIB = 1 << 30
PAGE = 2 * MIB
GLIBC = HeapFacts(
    heap.GLIBC, "/lib64/ld-linux-x86-64.so.2", True, True, guest="/opt/heap.so", total_bytes=8 * GIB
)


def known(users_own: str = "", **changed: object):
    """Facts of a dynamic glibc program; ``changed`` is of its HeapFacts."""
    environ = {"GLIBC_TUNABLES": users_own} if users_own else {}
    return facts(heap=replace(GLIBC, **changed), environ=environ)


def static(**changed: object):
    """The same of a static program."""
    whole = known(**changed)
    program = whole.target.images[0]
    image = replace(program, elf=replace(program.elf, linkage="static", interp=None))
    return replace(whole, target=replace(whole.target, images=(image,)))


def step(asked, facts_known, waived=()):
    (found,) = heap.steps(asked, facts_known, waived)
    return found


def told(asked, facts_known) -> dict[str, str]:
    return dict(heap.parse_tunables(step(asked, facts_known).tunables))


# ---- settings ----


def test_a_heap_serves_all_threads_and_every_size_and_is_kept():
    """No block is mapped by itself, nothing is trimmed, one arena."""
    settings = told(options(heap="64M"), known())
    assert settings["glibc.malloc.mmap_max"] == "0"
    assert int(settings["glibc.malloc.trim_threshold"]) == (1 << 63) - 1
    assert settings["glibc.malloc.arena_max"] == "1"
    assert "glibc.malloc.hugetlb" not in settings


def test_arenas_alone_set_nothing_else():
    """--arenas without --heap is arena_max, and no guest."""
    found = step(options(arenas="2"), known())
    assert (found.tunables, found.guest) == ("glibc.malloc.arena_max=2", "")


def test_arenas_beside_a_heap_are_kept():
    """--heap --arenas 4: four arenas."""
    assert told(options(heap="64M", arenas="4"), known())["glibc.malloc.arena_max"] == "4"


@pytest.mark.parametrize(
    "pages, value, growth",
    [("base", "0", MIB), ("thp", "1", MIB), ("2M", str(PAGE), 0), ("1G", str(GIB), 0)],
)
def test_pages_are_told_by_number(pages, value, growth):
    """hugetlb is 0, 1 or the size; on huge pages the heap grows by no more than it must."""
    settings = told(options(heap="1G", heap_pages=pages), known(pool=4096))
    assert settings["glibc.malloc.hugetlb"] == value
    assert settings["glibc.malloc.top_pad"] == str(growth)


def test_a_static_program_takes_its_heap_at_once():
    """No guest gets in: top_pad is the heap's size, and a warning says what that is not."""
    asked, program = options(heap="64M", allow="target-static"), static()
    found = step(asked, program)
    assert f"glibc.malloc.top_pad={64 * MIB}" in found.tunables
    assert found.guest == ""
    assert "heap-fallback" in codes(preflight.findings(asked, program))


def test_other_settings_of_the_user_are_kept():
    """What is ours stands first, what is the user's own behind it, unchanged."""
    users = "glibc.malloc.tcache_count=3:glibc.cpu.hwcaps=-AVX2"
    text = step(options(heap="64M"), known(users)).tunables
    assert text.endswith(":" + users)
    assert text.startswith("glibc.malloc.mmap_max=0:")


@pytest.mark.parametrize("same", ["0", "0x0", "00"])
def test_the_same_value_is_no_contradiction(same):
    """mmap_max=0, however it is spelled, is what we would say; it is said once."""
    text = f"glibc.malloc.mmap_max={same}"
    assert codes(preflight.findings(options(heap="64M"), known(text))) == []
    assert step(options(heap="64M"), known(text)).tunables.count("mmap_max") == 1


@pytest.mark.parametrize(
    "text",
    [
        "glibc.malloc.mmap_max=65536",
        "glibc.malloc.arena_max=8",
        "glibc.malloc.top_pad=1",
        "glibc.malloc.trim_threshold=131072",
        "glibc.malloc.tcache_count=3:glibc.malloc.arena_max=2",
        "nonsense",
        "glibc.malloc.arena_max=",
        "glibc.malloc.arena_max=1=2",
        "=1",
    ],
)
def test_a_contradiction_is_refused(text):
    """Another value of a key of ours, and what is no NAME=VALUE, are refused and named."""
    (finding,) = preflight.findings(options(heap="64M"), known(text))
    assert (finding.code, finding.refuses) == ("heap-tunables", True)
    assert text.rpartition(":")[2] in finding.what


@pytest.mark.parametrize(
    "name", ["MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_"]
)
def test_the_older_variables_are_the_same_settings(name):
    """MALLOC_ARENA_MAX=8 contradicts as arena_max=8 does."""
    (finding,) = preflight.findings(options(heap="64M"), replace(known(), environ={name: "8"}))
    assert finding.code == "heap-tunables"
    assert f"{name}=8" in finding.what


def test_a_contradiction_that_is_allowed_stands():
    """--allow heap-tunables: the user's value, and ours of all else."""
    asked = options(heap="64M", allow="heap-tunables")
    contradicting = known("glibc.malloc.arena_max=8")
    found = preflight.findings(asked, contradicting)
    reserve = next(
        each for each in plan.make_plan(asked, contradicting, found)
        if isinstance(each, ReserveHeap)
    )  # fmt: skip
    settings = dict(heap.parse_tunables(reserve.tunables))
    assert (settings["glibc.malloc.arena_max"], settings["glibc.malloc.mmap_max"]) == ("8", "0")


def test_the_plan_says_how_much_on_which_pages_and_how():
    """The words of the step, as plan and -v print them."""
    words = step(options(heap="64M", heap_pages="2M"), known(pool=32)).describe()
    assert words.startswith("reserve 64 MiB of heap on 2 MiB pages: GLIBC_TUNABLES=glibc.malloc.")


# ---- the guest ----


def test_the_guest_stands_behind_the_shim_and_before_the_users_own():
    """LD_PRELOAD is shim, guest, and what the user had; the variable names the process."""
    reserve = step(options(heap="64M"), known())
    made = heap.environment(reserve, "/s.so", {"LD_PRELOAD": "/s.so:/own.so"}, 16)
    assert made["LD_PRELOAD"] == "/s.so:/opt/heap.so:/own.so"
    assert made["_RTL_HEAP"] == f"0:{64 * MIB:x}:0:10"


def test_without_a_shim_there_is_no_guest():
    """A program that no preload reaches gets the settings alone."""
    made = heap.environment(step(options(heap="64M"), known()), "", {"LD_PRELOAD": "/own.so"}, 16)
    assert (made["LD_PRELOAD"], "_RTL_HEAP" in made) == ("/own.so", False)


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1, 64 * MIB, 64 * MIB + 1])
def test_both_portions_are_the_heap_rounded_up_to_pages(size):
    """The first block takes one page, the rest what is missing, malloc's own part included."""
    first, rest = heap.portions(size, PAGE)
    pages = -(-size // PAGE)
    chunks = -(-(rest + 48) // PAGE) if rest else 0
    assert first == 1
    assert 1 + chunks == pages


@pytest.mark.parametrize(
    "lock, touched",
    [("current,future", False), ("none", True), ("future", True), ("current,onfault", True)],
)
def test_the_guest_touches_what_no_lock_populates(lock, touched):
    """Without current, and with onfault, mlockall puts nothing into memory."""
    assert step(options(heap="64M", lock=lock), known()).populate is touched


# ---- what stands against it ----


@pytest.mark.parametrize(
    "changed",
    [
        {"libc": "musl", "loader": "/lib/ld-musl-x86_64.so.1"},
        {"libc": "", "loader": "/system/bin/linker64"},
        {"tunables": False},
        {"allocator": "jemalloc", "evidence": "app needs libjemalloc.so.2"},
    ],
)
@pytest.mark.parametrize("asked", [{"heap": "64M"}, {"arenas": "1"}])
def test_a_malloc_without_these_settings_is_refused_by_name(changed, asked):
    """musl, another libc, an old glibc and another allocator: refused, whatever was asked."""
    (finding,) = preflight.findings(options(**asked), known(**changed))
    assert (finding.code, finding.refuses) == ("heap-allocator", True)
    named = changed.get("allocator") or changed.get("loader") or GLIBC.loader
    assert named in finding.what


def test_an_allowed_allocator_is_left_alone():
    """--allow heap-allocator: no setting, no guest."""
    asked, foreign = options(heap="64M", allow="heap-allocator"), known(allocator="jemalloc")
    found = preflight.findings(asked, foreign)
    assert ReserveHeap not in [type(each) for each in plan.make_plan(asked, foreign, found)]


def test_a_heap_larger_than_the_machine_is_refused():
    """More than all memory, whatever is free of it."""
    found = preflight.findings(options(heap="9G"), known())
    assert codes(found)[0] == "heap-too-large"
    assert "8 GiB" in found[0].what


@pytest.mark.parametrize(
    "pool, leased, refused",
    [(0, "", True), (31, "", True), (32, "", False), (0, "2M:32", False), (0, "2M:31", True)],
)
def test_huge_pages_must_be_usable_or_leased(pool, leased, refused):
    """64 MiB are 32 pages of 2 MiB; which are too few is said, and which option leases enough."""
    texts = {"heap": "64M", "heap_pages": "2M"} | ({"hugepages": leased} if leased else {})
    found = list(heapfindings.findings(options(**texts), known(pool=pool)))
    assert codes(found) == (["heap-pages"] if refused else [])
    assert all("--hugepages 2M:32" in finding.what for finding in found)


@pytest.mark.parametrize(
    "texts, changed",
    [
        ({"heap_pages": "4M"}, {"pool": None}),
        ({"heap_pages": "2M"}, {"pool": 32, "hugetlb": False}),
        ({"heap_pages": "thp"}, {"thp": "never"}),
        ({"heap_pages": "thp", "thp": "never"}, {"thp": "madvise"}),
        ({"heap_pages": "thp"}, {"hugetlb": False}),
    ],
)
def test_pages_that_cannot_be_had_are_refused(texts, changed):
    """A size that the kernel lacks, a glibc before 2.35, transparent huge pages that are off."""
    found = heapfindings.findings(options(heap="64M", **texts), known(**changed))
    assert codes(found) == ["heap-pages"]


@pytest.mark.parametrize("pages", ["base", "inherit"])
def test_small_pages_can_always_be_had(pages):
    """Also by a glibc that knows no others."""
    asked = options(heap="64M", heap_pages=pages)
    assert codes(preflight.findings(asked, known(hugetlb=False))) == []


def test_pages_without_a_heap_are_refused():
    """--heap-pages alone would promise what nobody can prove."""
    (finding,) = preflight.findings(options(heap_pages="thp"), known())
    assert (finding.code, "without --heap" in finding.what) == ("usage", True)


def test_a_guest_that_cannot_be_preloaded_is_refused():
    """An installation without it, or under a path that LD_PRELOAD cannot carry."""
    assert codes(preflight.findings(options(heap="64M"), known(guest=""))) == ["heap-short"]
