"""What the parsers of /proc promise: the kernel's texts, whole and strange, become values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import proc
from rtlaunch.core.numbers import UNLIMITED
from rtlaunch.core.proc import Mapping

STATUS = """\
Name:\t(sd-pam) two words
Umask:\t0022
State:\tS (sleeping)
Tgid:\t811
Pid:\t812
PPid:\t1
TracerPid:\t4711
Uid:\t1000\t1001\t1002\t1003
Gid:\t100\t101\t102\t103
Groups:\t4 24 1000\x20
VmSize:\t   12345 kB
VmPeak:\t    9000 kB
VmLck:\t    8192 kB
VmHWM:\t    3000 kB
VmPTE:\t      60 kB
VmPin:\t       4 kB
VmRSS:\t    9000 kB
VmStk:\t     132 kB
Threads:\t7
SigPnd:\t0000000040000000
SigBlk:\t0000000000010000
SigIgn:\t0000000000001000
SigCgt:\t0000000180004a02
CapInh:\t0000000000004000
CapPrm:\t000001fffeffffff
CapEff:\t0000000000004000
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000001
NoNewPrivs:\t1
THP_enabled:\t1
Seccomp:\t2
Seccomp_filters:\t3
Cpus_allowed:\tff
Cpus_allowed_list:\t0-3,7
voluntary_ctxt_switches:\t150
"""
STATUS_VALUES = {
    "name": "(sd-pam) two words",
    "state": "S",
    "pid": 812,
    "ppid": 1,
    "uids": (1000, 1001, 1002, 1003),
    "gids": (100, 101, 102, 103),
    "groups": (4, 24, 1000),
    "threads": 7,
    "vm_size": 12345 * 1024,
    "vm_lck": 8192 * 1024,
    "vm_rss": 9000 * 1024,
    "tracer": 4711,
    "sig_pnd": 1 << 30,
    "cap_inh": 1 << 14,
    "cap_prm": 0x1FFFEFFFFFF,
    "cap_eff": 1 << 14,
    "cap_bnd": 0x1FFFFFFFFFF,
    "cap_amb": 1,
    "no_new_privs": 1,
    "seccomp": 2,
    "seccomp_filters": 3,
    "tgid": 811,
    "thp_enabled": 1,
    "vm_peak": 9000 << 10,
    "vm_hwm": 3000 << 10,
    "vm_pte": 60 << 10,
    "cpus": "0-3,7",
}


def test_status_is_read_field_by_field() -> None:
    """Each field of the record has its line's value, sizes in bytes and sets as masks."""
    status = proc.parse_status(STATUS)
    assert {name: getattr(status, name) for name in STATUS_VALUES} == STATUS_VALUES
    assert set(STATUS_VALUES) == set(proc.Status._fields)


def test_a_zombie_has_no_memory() -> None:
    """Its status lacks the Vm lines: the sizes are 0."""
    text = "\n".join(line for line in STATUS.splitlines() if not line.startswith("Vm"))
    status = proc.parse_status(text)
    assert (status.vm_size, status.vm_lck, status.vm_rss) == (0, 0, 0)


def test_a_text_that_is_no_status_is_an_error() -> None:
    """Nothing is made up for a name, a state or an owner that is not there."""
    with pytest.raises(TypeError):
        proc.parse_status("Name:\tx\n")


def test_our_own_status_is_read() -> None:
    """The running kernel's text, which may have more lines, parses."""
    status = proc.parse_status(Path("/proc/self/status").read_text())
    assert (status.pid, status.uids[1]) == (os.getpid(), os.geteuid())
    assert status.vm_rss > 0


# ---- stat


def stat_line(comm: str) -> str:
    fields = ["S", *(str(number) for number in range(4, 53))]  # field N holds N
    return f"77 ({comm}) {' '.join(fields)}\n"


def test_stat_is_read_by_the_numbers_of_its_manual() -> None:
    """Each value is the field that proc(5) numbers so."""
    stat = proc.parse_stat(stat_line("app"))
    assert (stat.pid, stat.comm, stat.state) == (77, "app", "S")
    assert (stat.ppid, stat.session, stat.flags) == (4, 6, 9)
    assert (stat.minflt, stat.majflt, stat.utime, stat.stime) == (10, 12, 14, 15)
    assert (stat.starttime, stat.startstack) == (22, 28)
    assert (stat.processor, stat.rt_priority, stat.policy) == (39, 40, 41)


@given(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=15))
def test_any_command_name_is_kept_apart_from_the_numbers(comm: str) -> None:
    """A name may hold spaces and parentheses, and look like the rest of the line."""
    stat = proc.parse_stat(stat_line(comm))
    assert (stat.comm, stat.majflt) == (comm, 12)


def test_a_stat_line_cut_short_is_an_error() -> None:
    """No count is taken from half a line."""
    with pytest.raises(ValueError, match="10 fields"):
        proc.parse_stat("77 (app) S 1 2 3 4 5 6 7")


# ---- limits


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max locked memory         65536                8388608              bytes     
Max nice priority         0                    30                   
Max realtime timeout      18446744073709551614 unlimited            us        
"""  # noqa: W291  (as the kernel pads it)


def test_limits_are_read_by_name() -> None:
    """Soft and hard, -1 where there is none, a number that fills its column."""
    assert proc.parse_limits(LIMITS) == {
        "cpu": (UNLIMITED, UNLIMITED),
        "stack": (8388608, UNLIMITED),
        "core": (0, UNLIMITED),
        "memlock": (65536, 8388608),
        "nice": (0, 30),
        "rttime": (18446744073709551614, UNLIMITED),
    }


def test_the_kernels_limits_are_all_known() -> None:
    """Every line of our own limits has a name."""
    text = Path("/proc/self/limits").read_text()
    assert len(proc.parse_limits(text)) == len(text.splitlines()) - 1


# ---- maps and smaps


MAPS = """\
55e0a0000000-55e0a0021000 r-xp 00002000 fd:01 1234567                    /usr/bin/an app
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
7f0000000000-7f0000001000 rw-s 00000000 00:05 99                         /memfd:a b (deleted)
7f1000000000-7f1000001000 ---p 00000000 00:00 0 
"""  # noqa: W291  (as the kernel pads it)


def test_maps_are_read_with_their_names() -> None:
    """Addresses, permissions, offset, file and name, which may hold spaces or be absent."""
    app, stack, memfd, nothing = proc.parse_maps(MAPS)
    assert app == Mapping(
        0x55E0A0000000, 0x55E0A0021000, "r-xp", 0x2000, "fd:01", 1234567, "/usr/bin/an app"
    )
    assert (stack.path, stack.size) == ("[stack]", 0x21000)
    assert (memfd.path, memfd.inode) == ("/memfd:a b (deleted)", 99)
    assert (nothing.path, nothing.accessible) == ("", False)


def smaps(header: str, rss: int, locked: int, flags: str) -> str:
    return f"""{header}
Size:                132 kB
KernelPageSize:        4 kB
Rss:                 {rss} kB
Pss:                  96 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:               {locked} kB
THPeligible:           0
ProtectionKey:         0
VmFlags: {flags}\x20
"""


def test_of_maps_the_stack_and_what_lies_below_it_are_enough() -> None:
    """The same as of all of them, first or last, and nothing where there is no main stack."""
    app, stack = proc.parse_maps(MAPS)[:2]
    assert (stack.path, proc.parse_stack(MAPS)) == ("[stack]", (app, stack))
    lines = MAPS.splitlines(keepends=True)
    assert proc.parse_stack("".join(lines[1:])) == (stack,)
    assert proc.parse_stack("".join(lines[:2])) == (app, stack)
    assert proc.parse_stack(lines[0]) == proc.parse_stack("") == ()


def test_smaps_are_read_mapping_by_mapping() -> None:
    """Residence, lock and flags belong to the header above them."""
    headers = MAPS.splitlines()
    text = smaps(headers[0], 100, 90, "rd ex lo") + smaps(headers[3], 0, 0, "mr mw")
    app, nothing = proc.parse_smaps(text)
    assert (app.path, app.rss, app.locked) == ("/usr/bin/an app", 102400, 92160)
    assert app.flags == frozenset(("rd", "ex", "lo"))
    assert (nothing.start, nothing.rss, nothing.flags) == (0x7F1000000000, 0, {"mr", "mw"})


def test_an_smaps_cut_short_is_an_error() -> None:
    """A mapping without its flags is no proof of anything."""
    text = smaps(MAPS.splitlines()[0], 100, 90, "rd")
    with pytest.raises(ValueError, match="substring"):
        proc.parse_smaps(text[: text.index("VmFlags")])


def test_our_own_smaps_agree_with_our_maps() -> None:
    """The running kernel's text: same mappings, all with flags, something in memory."""
    found = proc.parse_smaps(Path("/proc/self/smaps").read_text())
    maps = proc.parse_maps(Path("/proc/self/maps").read_text())
    assert {one.path for one in found if one.path} == {one.path for one in maps if one.path}
    assert all(mapping.flags for mapping in found)
    assert sum(mapping.rss for mapping in found) > 0
