"""What the value of each option may be, what it becomes, and what a refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core import kinds, spelling
from rtlaunch.core.findings import CODES
from rtlaunch.core.options import (
    BY_NAME,
    SETTINGS,
    Arm,
    HugePages,
    Identity,
    LimitDemand,
    Reaction,
    ReportTo,
    Sched,
)

GOOD = [
    ("lock", "future,current", ("current", "future")),
    ("lock", "current,onfault", ("current", "onfault")),
    ("lock", "none", ()),
    ("prefault-stack", "1M", 2**20),
    ("prefault-stack", "none", 0),
    ("prefault-stack", "0", 0),
    ("memlock", "max", "max"),
    ("memlock", "inherit", "inherit"),
    ("memlock", "8M", 2**23),
    ("core", "unlimited", -1),
    ("core", "0", 0),
    ("limit", "nofile=4096", LimitDemand("nofile", 4096)),
    ("limit", "RLIMIT_STACK=8M:unlimited", LimitDemand("stack", 2**23, -1)),
    ("limit", "rtprio=0:99", LimitDemand("rtprio", 0, 99)),
    ("rewrite", "TERM:QUIT", ((15, 3),)),
    ("rewrite", "SIGRTMIN+3:none", ((37, 0),)),
    ("rewrite", "15:KILL", ((15, 9),)),
    ("rewrite", "none", ()),
    ("map-exit", "143=0", ((143, 0),)),
    ("map-exit", "128+TERM=255", ((143, 255),)),
    ("map-exit", "3=128+9", ((3, 137),)),
    ("signal-to", "group", "group"),
    ("ambient-caps", "auto", None),
    ("ambient-caps", "none", ()),
    ("ambient-caps", "CAP_SYS_NICE,ipc_lock,sys_nice", ("ipc_lock", "sys_nice")),
    ("user", "nobody", Identity("nobody")),
    ("user", "1000:audio", Identity("1000", "audio")),
    ("user", "none", None),
    ("no-new-privs", "TRUE", True),
    ("no-new-privs", "0", False),
    ("sched", "fifo:50", Sched("fifo", 50)),
    ("sched", "batch", Sched("batch")),
    ("sched", "other:0", Sched("other")),
    ("sched", "inherit", None),
    ("cpu-list", "0,2-3", (0, 2, 3)),
    ("nice", "-5", -5),
    ("timer-slack", "50us", 50_000),
    ("hugepages", "2M:512", (HugePages(2**21, 512),)),
    ("hugepages", "1G:4@1", (HugePages(2**30, 4, 1),)),
    ("hugepages", "none", ()),
    ("heap", "64M", 2**26),
    ("heap", "inherit", None),
    ("heap-pages", "thp", "thp"),
    ("heap-pages", "2M", 2**21),
    ("arenas", "1", 1),
    ("thread-stack", "256K", 2**18),
    ("thp", "never", "never"),
    ("via", "preload", "preload"),
    ("children", "all", "all"),
    ("children", "worker*, /opt/*/bin/[a-c]", "worker*,/opt/*/bin/[a-c]"),
    ("children", "worker", "worker"),
    ("watch", "proc", "proc"),
    ("arm", "locked", Arm("locked")),
    ("arm", "2s", Arm("time", after_ns=2 * 10**9)),
    ("arm", "signal:SIGUSR1", Arm("signal", signal=10)),
    ("on-major", "signal:RTMIN+1", Reaction("signal", 35)),
    ("on-minor", "log", Reaction("log")),
    ("max-major", "0", 0),
    ("max-minor", "none", None),
    ("pdeathsig", "KILL", 9),
    ("pdeathsig", "none", 0),
    ("allow", "swap-on,memlock-limit", ("swap-on", "memlock-limit")),
    ("report", "/tmp/{host}-{pid}.json", ReportTo("/tmp/{host}-{pid}.json")),
    ("report", "{not closed", ReportTo("{not closed")),
    ("report", "fd:3", ReportTo("", 3)),
    ("profile", "robot", "robot"),
    ("profile", "none", ""),
]

BAD = [
    ("lock", "onfault", "says how, not what: add current, future or both"),
    ("lock", "curent", "no lock flag: use current, future, onfault, or none; did you mean current"),
    ("lock", "current,,future", "empty item"),
    ("lock", "", "empty item"),
    ("lock", "none,current", "'none' is no lock flag"),
    ("prefault-stack", "12Q", "no size: use bytes, or K, M, G, T"),
    ("prefault-stack", "-1", "no size"),
    ("memlock", "lots", "no size: .*or unlimited, max or inherit"),
    ("memlock", "99999999999999999999", "too large"),
    ("limit", "nofile", "use NAME=SOFT or NAME=SOFT:HARD"),
    ("limit", "nofiles=3", "'nofiles' is no limit: use one of .*did you mean nofile"),
    ("limit", "nofile=", "no size"),
    ("limit", "nofile=1:", "no size"),
    ("limit", "nofile=9:8", "the soft limit is above the hard one"),
    ("limit", "nofile=unlimited:8", "the soft limit is above the hard one"),
    ("limit", "memlock=8M", "has an option of its own: --memlock"),
    ("hugepages", "2M", "use SIZE:COUNT, as in 2M:512"),
    ("hugepages", "3M:1", "no page size: use a power of two"),
    ("hugepages", "2M:0", "count of pages"),
    ("hugepages", "2M:99999999999999", "count of pages"),
    ("hugepages", "2M:1@", "NUMA node"),
    ("hugepages", "2M:1@x", "NUMA node"),
    ("heap", "0", "is nothing: use a size"),
    ("heap", "much", "no size"),
    ("heap-pages", "3M", "a power of two, as in 2M; or inherit, base, thp"),
    ("arenas", "0", "number"),
    ("thread-stack", "0", "is nothing"),
    ("thp", "always", "not one of inherit, never, madvise"),
    ("ambient-caps", "ipc_lok", "did you mean ipc_lock"),
    ("ambient-caps", "", "empty item"),
    ("user", "", "no user"),
    ("user", ":audio", "no user"),
    ("user", "root:", "no user"),
    ("user", "4294967295:1", "no number of a user: use a whole number from 0 to 4294967294"),
    ("user", "1000:4294967295", "no number of a group"),
    ("user", "99999999999999999999:1", "no number of a user"),
    ("sched", "fifo", "fifo needs a priority from 1 to 99, as in fifo:50"),
    ("sched", "fifo:0", "no priority: use a whole number from 1 to 99"),
    ("sched", "rr:100", "no priority"),
    ("sched", "batch:1", "no priority of batch"),
    ("sched", "fast", "no policy: use other, fifo, rr, batch, idle"),
    ("sched", "deadline", "needs a runtime and a period"),
    ("cpu-list", "3-1", "its end is below its start"),
    ("nice", "20", "no nice value: use a whole number from -20 to 19"),
    ("timer-slack", "0s", "means the default slack to the kernel"),
    ("timer-slack", "50", "no time"),
    ("via", "prelaod", "is not one of auto, preload, ptrace; did you mean preload"),
    ("children", "al", "'al' is neither none nor all"),
    ("children", "None", "'None' is neither none nor all"),
    ("children", "all,worker*", "all stands alone"),
    ("arm", "ready", "'ready' is not in this version yet"),
    ("arm", "signal:KILL", "cannot be caught"),
    ("arm", "signal:", "no signal"),
    ("arm", "soon", "no time: .*or locked, or signal:NAME"),
    ("on-major", "kill", "no action: use none, log or signal:NAME"),
    ("on-major", "signal:NONE", "no signal"),
    ("max-major", "-1", "no count: .*or none"),
    ("pdeathsig", "99", "no signal"),
    ("log-format", "xml", "'xml' is not one of text, json, journal"),
    ("signal-to", "all", "'all' is not one of main, group"),
    ("rewrite", "TERM", "no rewriting: use FROM:TO"),
    ("rewrite", ":TERM", "no rewriting: use FROM:TO"),
    ("rewrite", "TREM:INT", "did you mean TERM"),
    ("rewrite", "TERM:INTT", "did you mean INT"),
    ("rewrite", "none:TERM", "'none' is no signal"),
    ("rewrite", "RTMIN+99:TERM", "no signal"),
    ("rewrite", "32:TERM", "no signal"),
    ("rewrite", "KILL:TERM", "KILL cannot be rewritten: the kernel lets nobody take it"),
    ("rewrite", "STOP:TERM", "STOP cannot be rewritten"),
    ("rewrite", "CHLD:TERM", "CHLD cannot be rewritten: .*its own children"),
    ("map-exit", "143", "maps no exit code: use A=B"),
    ("map-exit", "256=0", "exit code"),
    ("map-exit", "-1=0", "exit code"),
    ("map-exit", "1=256", "exit code"),
    ("map-exit", "TERM=0", "or 128[+] and a signal"),
    ("map-exit", "128+0=0", "no signal"),
    ("map-exit", "128+TREM=0", "did you mean TERM"),
    ("allow", "memlock-limt", "is the code of no finding; did you mean memlock-limit"),
    ("allow", "usage", "usage cannot be allowed"),
    ("report", "", "'' is no name"),
    ("report", "fd:x", "no descriptor"),
    ("report", "fd:-1", "no descriptor"),
    ("report", "{hots}.json", "no placeholder: use {host}, {rank}, {pid}, {unit}, {time}"),
    ("report", "--quiet", "looks like an option"),
    ("profile", "", "'' is no name"),
    ("no-new-privs", "maybe", "use 1, 0, true or false"),
]


def field_of(row, value):
    """The field that one ``value`` makes: limits are collected, everything else is the field."""
    if row.kind != "rlimit":
        return value
    return () if value is None else (value,)


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_value_is_read(name, text, value):
    """The text of the command line becomes what the launch works with."""
    assert kinds.read(BY_NAME[name], text) == value


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_value_that_was_written_is_read_back(name, text, value):
    """What plan and report show can be typed again, with the same meaning."""
    row = BY_NAME[name]
    assert kinds.read(row, spelling.write(row, field_of(row, value))) == value


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_a_value_that_is_none_is_refused_with_what_is_allowed(name, text, message):
    """The message says what was wrong and what would be right."""
    with pytest.raises(ValueError, match=message):
        kinds.read(BY_NAME[name], text)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
@given(text=st.text() | st.text(alphabet="nonecurt,futre:=0129KMusignal-"))
def test_any_text_is_read_and_written_back_or_refused(row, text):
    """No text makes an option's reader do anything but answer or raise ValueError."""
    try:
        value = kinds.read(row, text)
    except ValueError:
        return
    assert kinds.read(row, spelling.write(row, field_of(row, value))) == value


def test_every_finding_that_can_be_waived_can_be_allowed():
    """--allow knows the whole table of findings."""
    for code, (_, _, waivable) in CODES.items():
        if waivable:
            assert kinds.read_codes(code) == (code,)
        else:
            with pytest.raises(ValueError, match="cannot be allowed"):
                kinds.read_codes(code)
