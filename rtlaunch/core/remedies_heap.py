"""The remedies for the heap: the same anywhere.

Part of :mod:`rtlaunch.core.remedies`, which says what a row is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rtlaunch.core.remedies_parts import Row

HEAP: dict[str, Row] = {
    "heap-allocator": (
        "what the program is linked against, or LD_PRELOAD",
        "%(allow)s   # goes without --heap and --arenas",
        "the program on glibc's malloc (2.26 or newer), without that library; or that allocator's "
        "own settings, and without --heap",
    ),
    "heap-tunables": (
        "GLIBC_TUNABLES, or a MALLOC_ variable, in the environment of rtlaunch",
        "env -u GLIBC_TUNABLES -u MALLOC_ARENA_MAX -u MALLOC_TOP_PAD_ -u MALLOC_MMAP_MAX_ "
        "-u MALLOC_TRIM_THRESHOLD_ %(run)s",
        "take these keys out where they are set; %(allow)s keeps them instead of ours",
    ),
    "heap-too-large": (
        "--heap, RTLAUNCH_HEAP or the profile, against the machine's memory",
        "%(small_heap)s",
        "a heap that leaves room for all else: rtlaunch fit measures what the program needs",
    ),
    "heap-pages": (
        "the C library, the kernel's pools of huge pages, or --thp",
        "%(pages_for_heap)s",
        "the pages reserved at boot: rtlaunch hugepages reserve, or hugepages= on the kernel's "
        "command line",
    ),
    "heap-short": (
        "a limit (RLIMIT_DATA, RLIMIT_AS, a hugetlb cgroup), strict overcommit, or a malloc that "
        "is not the C library's",
        "grep -E 'data|address' /proc/self/limits; %(allow)s   # runs with what is there",
        "raise that limit; or a smaller --heap",
    ),
    "heap-fallback": (
        "--heap-pages and --lock, against what the kernel had",
        "grep -A25 -E 'heap|anon_huge' /proc/PID/smaps   # while it runs",
        "huge pages by --hugepages rather than thp; a --lock with current; a dynamic program",
    ),
}
