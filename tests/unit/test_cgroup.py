"""Which memory cgroup we are in, under v1, v2 and both, from inside and outside of containers."""

from __future__ import annotations

import pytest

from rtlaunch.core.cgroup import CgroupLimit, memory_hierarchies, parse_limit, usual_hierarchy
from rtlaunch.core.units import UNLIMITED

V2 = "28 23 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "34 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
V1 = V1_CPU + "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
UNIFIED = "36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
V1_DOCKER = "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
SPACED = "28 23 0:25 / /mnt/c\\040g rw - cgroup2 cgroup2 rw\n"
PLAIN = "23 1 254:0 / / rw - ext4 /dev/root rw\n"

CASES = {
    "v2": (V2, "0::/system.slice/a.service\n", [(2, "/sys/fs/cgroup", "/system.slice/a.service")]),
    "v2 in its own namespace": (V2, "0::/\n", [(2, "/sys/fs/cgroup", "/")]),
    "v2, outside of what is seen": (V2, "0::/../b\n", [(2, "/sys/fs/cgroup", "")]),
    "v1": (V1, "4:memory:/a\n1:cpu:/b\n", [(1, "/sys/fs/cgroup/memory", "/a")]),
    "hybrid": (
        V1 + UNIFIED,
        "4:memory:/a\n0::/c\n",
        [(1, "/sys/fs/cgroup/memory", "/a"), (2, "/sys/fs/cgroup/unified", "/c")],
    ),
    "v1 in docker": (V1_DOCKER, "4:memory:/docker/ab\n", [(1, "/sys/fs/cgroup/memory", "")]),
    "v1 below docker": (V1_DOCKER, "4:memory:/docker/ab/x\n", [(1, "/sys/fs/cgroup/memory", "/x")]),
    "v1 beside docker": (V1_DOCKER, "4:memory:/docker/abc\n", [(1, "/sys/fs/cgroup/memory", "")]),
    "a space in the mount point": (SPACED, "0::/a\n", [(2, "/mnt/c g", "/a")]),
    "nothing mounted": (PLAIN, "0::/a\n", []),
    "v1 without memory": (V1_CPU, "1:cpu:/b\n", []),
    "nothing at all": ("", "", []),
}


@pytest.mark.parametrize("name", CASES)
def test_hierarchies(name):
    """The mounted hierarchies that could limit our memory are found, with our place in them."""
    mountinfo, cgroup, expected = CASES[name]
    found = memory_hierarchies(cgroup, mountinfo)
    assert [(each.version, each.mount, each.path) for each in found] == expected


def test_every_cgroup_above_counts():
    """A limit may stand at any level: our own directory first, the mount point last."""
    (found,) = memory_hierarchies("0::/a.slice/b.service\n", V2)
    assert found.folders == (
        "/sys/fs/cgroup/a.slice/b.service",
        "/sys/fs/cgroup/a.slice",
        "/sys/fs/cgroup",
    )


def test_files_have_the_names_of_their_version():
    """v1 and v2 call limit and use differently."""
    one, two = memory_hierarchies("4:memory:/a\n0::/c\n", V1 + UNIFIED)
    assert (one.limit_file, one.usage_file) == ("memory.limit_in_bytes", "memory.usage_in_bytes")
    assert (two.limit_file, two.usage_file) == ("memory.max", "memory.current")


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max\n", UNLIMITED),
        ("9223372036854771712\n", UNLIMITED),
        ("9223372036854710272\n", UNLIMITED),
        ("67108864\n", 64 << 20),
        ("0\n", 0),
        ("", None),
        ("-1\n", None),
        ("some\n", None),
    ],
)
def test_limits(text, limit):
    """No limit is max in v2, and in v1 the largest multiple of the page size, whatever that is."""
    assert parse_limit(text) == limit


# --- the look that spares mountinfo ----------------------------------------------------------


@pytest.mark.parametrize(
    ("cgroup", "mount", "path"),
    [
        ("0::/user.slice/a.scope\n", "/sys/fs/cgroup", "/user.slice/a.scope"),
        ("4:memory:/a\n0::/c\n", "/sys/fs/cgroup/memory", "/a"),
        ("4:memory:/\n", "/sys/fs/cgroup/memory", "/"),
    ],
    ids=["v2", "hybrid", "v1"],
)
def test_the_usual_place(cgroup, mount, path):
    """Where systemd mounts it; the memory controller is v1's where v1 has it."""
    found = usual_hierarchy(cgroup)
    assert found
    assert (found.mount, found.path) == (mount, path)


@pytest.mark.parametrize("cgroup", ["", "1:cpu:/a\n", "0::/../b\n", "garbage"])
def test_no_usual_place(cgroup):
    """Outside of what is seen, mountinfo has to tell."""
    assert usual_hierarchy(cgroup) is None


# --- what a limit leaves ---------------------------------------------------------------------

# Of a Debian 12 machine, as captured; the lines that matter and some that do not.
V2_STAT = """\
anon 1310720
file 104857600
kernel 3145728
kernel_stack 65536
pagetables 131072
sock 0
shmem 4096
inactive_anon 1048576
active_anon 262144
inactive_file 83886080
active_file 20971520
unevictable 524288
slab_reclaimable 2097152
slab_unreclaimable 196608
"""
V1_STAT = """\
cache 9666560
rss 7487488
inactive_anon 0
active_anon 1531904
unevictable 15122432
total_cache 1307332608
total_rss 50933760
total_inactive_anon 43261952
total_active_anon 1605632
total_inactive_file 951087104
total_active_file 346939392
total_unevictable 15261696
"""
MIB = 1 << 20


def test_v2_has_its_caches_in_one_file():
    """Page cache and reclaimable slab go before anything is killed; what is locked stays."""
    (place,) = memory_hierarchies("0::/a\n", V2)
    assert place.cache_in(V2_STAT) == 83886080 + 20971520 + 2097152
    assert place.kernel_file == ""


def test_v1_counts_all_below_a_group():
    """A limit holds for the whole subtree, and the plain lines are of the group alone."""
    (place,) = memory_hierarchies("4:memory:/a\n", V1)
    assert place.cache_in(V1_STAT) == 951087104 + 346939392
    assert place.kernel_file == "memory.kmem.usage_in_bytes"


@pytest.mark.parametrize("stat", ["", "odd\n", "inactive_file\n", "inactive_file many\n", "\0"])
def test_an_odd_stat_has_no_cache(stat):
    """What is not understood is not counted."""
    (place,) = memory_hierarchies("0::/a\n", V2)
    assert place.cache_in(stat) == 0


def test_what_is_left_is_the_limit_less_what_is_held():
    """The cache makes room, and no more than the limit goes in."""
    group = CgroupLimit("/a", 64 * MIB, 60 * MIB, 36 * MIB)
    assert (group.held, group.left) == (24 * MIB, 40 * MIB)
    assert CgroupLimit("/a", 64 * MIB, 10 * MIB, 36 * MIB).left == 64 * MIB
    assert CgroupLimit("/a", 64 * MIB, 90 * MIB).left == 0
    assert CgroupLimit("/a", 64 * MIB, None).left == 64 * MIB


def test_swap_takes_what_others_hold():
    """As much as there is swap for."""
    group = CgroupLimit("/a", 64 * MIB, 60 * MIB, 36 * MIB)
    assert group.room(4 * MIB) == 44 * MIB
    assert group.room(1 << 40) == 64 * MIB
