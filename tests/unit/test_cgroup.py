"""Which memory cgroup we are in, under v1, v2 and both, from inside and outside of containers."""

from __future__ import annotations

import pytest

from rtlaunch.core.cgroup import memory_hierarchies, parse_limit
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
    ],
)
def test_limits(text, limit):
    """No limit is max in v2, and in v1 the largest multiple of the page size, whatever that is."""
    assert parse_limit(text) == limit
