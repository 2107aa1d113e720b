"""Resource limits: what was asked, what the target got by its own book, and what is said."""

from __future__ import annotations

import pytest

from tests import books
from tests.skips import skip

PRINT_LIMITS = ("cat", "/proc/self/limits")
CAP_SYS_RESOURCE = 24
MIB = 1 << 20
EIGHT, HALF = 8 * MIB, MIB // 2
NO_RESOURCE_CAP = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")


class Limited:
    """rtlaunch under given limits, without CAP_SYS_RESOURCE, as one of the tests' users."""

    def __init__(self, launcher, *limits):
        self.launcher = launcher
        self.limits = limits

    def run(self, *words, **how):
        prefix, user = ["prlimit", *self.limits], self.launcher.prefix
        if self.launcher.user == "root":
            prefix = [*prefix, *NO_RESOURCE_CAP]
        if self.launcher.user == "limited":
            user = user[2:]  # without its own prlimit
        self.launcher.prefix = [*prefix, *user]
        return self.launcher.run(*words, **how)


@pytest.fixture
def under(anybody):
    """Put every kind of user under limits."""
    return lambda *limits: Limited(anybody, *limits)


@pytest.fixture
def as_root(as_user):
    """Put root, with all capabilities but CAP_SYS_RESOURCE, under limits."""
    return lambda *limits: Limited(as_user("root"), *limits)


def limits_in(ran):
    assert ran.code == 0, ran.err
    return books.limits_of(ran.out)


def reported(ran, name, when):
    """Return a limit of the report as (soft, hard), -1 for unlimited."""
    pair = ran.report["limits"][name][when]
    return tuple(-1 if pair[kind] == "unlimited" else pair[kind] for kind in ("soft", "hard"))


# ---- memlock and core ----


@pytest.mark.parametrize("name", ["memlock", "core"])
def test_max_raises_the_soft_limit_to_the_hard_one(under, name):
    """By default the target's soft limit is the hard one, without any privilege."""
    limits = {"memlock": f"--memlock={4 * MIB + HALF}:{EIGHT}", "core": f"--core=0:{EIGHT}"}
    ran = under(*limits.values()).run("--", *PRINT_LIMITS)
    assert limits_in(ran)[name] == (EIGHT, EIGHT)
    assert reported(ran, name, "after") == (EIGHT, EIGHT)
    assert ran.report["limits"][name]["asked"] == "max"


def test_the_limits_before_are_those_that_we_had(under):
    """`before` is what rtlaunch was started with."""
    ran = under(f"--memlock={5 * MIB}:{EIGHT}", f"--core=4096:{EIGHT}").run("--", *PRINT_LIMITS)
    assert reported(ran, "memlock", "before") == (5 * MIB, EIGHT)
    assert reported(ran, "core", "before") == (4096, EIGHT)


def test_inherit_leaves_a_limit_alone(under):
    """inherit: the target has what we had, and the report has no row for what was not asked."""
    limited = under(f"--memlock={5 * MIB}:{EIGHT}", f"--core=4096:{EIGHT}")
    ran = limited.run("--memlock", "inherit", "--core", "inherit", "--", *PRINT_LIMITS)
    assert limits_in(ran)["memlock"] == (5 * MIB, EIGHT)
    assert limits_in(ran)["core"] == (4096, EIGHT)
    assert ran.report["limits"] == {}


def test_a_size_is_set_to_the_byte(under):
    """A SIZE sets the soft limit and leaves the hard one."""
    words = ("--memlock", "6M", "--core", "12288", "--", *PRINT_LIMITS)
    ran = under(f"--memlock={EIGHT}:{EIGHT}", "--core=0:unlimited").run(*words)
    assert limits_in(ran)["memlock"] == (6 * MIB, EIGHT)
    assert limits_in(ran)["core"] == (12288, -1)
    assert reported(ran, "memlock", "after") == (6 * MIB, EIGHT)


@pytest.mark.parametrize("asked", ["unlimited", "9M"])
def test_a_demand_above_the_hard_limit_is_refused(under, tmp_path, asked):
    """Without CAP_SYS_RESOURCE more than the hard limit is refused by name, and nothing starts."""
    marker = tmp_path / "marker"
    ran = under(f"--memlock={EIGHT}:{EIGHT}").run("--memlock", asked, "--", "touch", marker)
    shown = {"unlimited": "unlimited", "9M": "9 MiB"}[asked]
    assert ran.code == 125
    assert ran.err.startswith(
        f"rtlaunch: refused [limit-raise]: RLIMIT_MEMLOCK {shown} was asked for; the hard limit is "
        "8 MiB, no CAP_SYS_RESOURCE"
    )
    assert not marker.exists()


def test_an_allowed_demand_takes_what_it_gets(as_root):
    """--allow limit-raise: the program runs, and the report has the limit that it really has."""
    words = ("--memlock", "unlimited", "--allow", "limit-raise", "--", *PRINT_LIMITS)
    ran = as_root(f"--memlock={4 * MIB}:{EIGHT}").run(*words)
    assert limits_in(ran)["memlock"] == (EIGHT, EIGHT)
    assert reported(ran, "memlock", "after") == (EIGHT, EIGHT)
    assert "allowed [limit-raise]: RLIMIT_MEMLOCK unlimited was asked for" in ran.err


def test_with_the_capability_max_is_unlimited(rtlaunch):
    """Where CAP_SYS_RESOURCE is held, max raises the hard limit too."""
    if not books.holds("self", CAP_SYS_RESOURCE):
        skip("no-sys-resource")
    ran = rtlaunch.run("--", *PRINT_LIMITS)
    assert limits_in(ran)["memlock"] == (-1, -1)


@pytest.mark.parametrize("user", ["root", "ambient"])
def test_no_limit_binds_who_has_the_capability(as_user, user):
    """CAP_IPC_LOCK locks everything under a limit of 0."""
    ran = Limited(as_user(user), "--memlock=0:0").run("--", *PRINT_LIMITS)
    assert limits_in(ran)["memlock"] == (0, 0)
    assert (ran.report["lock"]["ok"], ran.report["lock"]["headroom_bytes"]) == (True, "unlimited")


@pytest.mark.parametrize("limit", [0, 4096, MIB])
def test_a_limit_that_is_too_small_is_refused(as_user, tmp_path, limit):
    """Without the capability: refused with both numbers, and nothing starts."""
    marker = tmp_path / "marker"
    limited = Limited(as_user("limited"), f"--memlock={limit}:{limit}")
    ran = limited.run("--", "sh", "-c", f"echo ran; touch {marker}")
    shown = {0: "0 bytes", 4096: "4 KiB", MIB: "1 MiB"}[limit]
    assert (ran.code, ran.out, marker.exists()) == (125, "", False)
    assert ran.err.startswith("rtlaunch: refused [memlock-limit]: sh needs at least ")
    assert f"RLIMIT_MEMLOCK is {shown}" in ran.err
    assert "no CAP_IPC_LOCK" in ran.err
    assert ran.report["verdict"] == "refused"


def test_best_effort_runs_unlocked_and_says_so(as_user):
    """Under a limit of 0 --best-effort runs it, and three places say that it is not locked."""
    limited = Limited(as_user("limited"), "--memlock=0:0")
    ran = limited.run("--best-effort", "--", "sh", "-c", "grep VmLck /proc/$$/status; exit 4")
    assert (ran.code, ran.out.split()) == (4, ["VmLck:", "0", "kB"])
    assert "not locked: " in ran.err
    assert (ran.report["lock"]["ok"], ran.report["verdict"]) == (False, "unlocked")
    assert [one["waived"] for one in ran.report["findings"] if one["code"] == "memlock-limit"]


def test_one_finding_allowed_by_name_is_enough(as_user):
    """--allow memlock-limit is as good, for that finding alone."""
    limited = Limited(as_user("limited"), "--memlock=0:0")
    ran = limited.run("--allow", "memlock-limit", "--", "sh", "-c", "grep VmLck /proc/$$/status")
    assert (ran.code, ran.out.split()) == (0, ["VmLck:", "0", "kB"])
    other = limited.launcher.run("--allow", "memlock-headroom", "--", "true")
    assert other.code == 125


# ---- any other limit ----

# of each limit a value that every user may lower it to, and the target can live with
LOWER = {
    "cpu": 500,
    "fsize": 1 << 30,
    "data": 1 << 31,
    "stack": 4 * MIB,
    "rss": 1 << 30,
    "nproc": 10_000,
    "nofile": 300,
    "as": 1 << 32,
    "locks": 100,
    "sigpending": 1000,
    "msgqueue": 4096,
    "nice": 0,
    "rtprio": 0,
    "rttime": 10**9,
}


@pytest.mark.parametrize("name", LOWER)
def test_any_limit_is_set_and_read_back(rtlaunch, name):
    """--limit NAME=SOFT:HARD: the target has both, and the report has what the target has."""
    value = LOWER[name]
    ran = rtlaunch.run("--limit", f"{name}={value}:{value}", "--", *PRINT_LIMITS)
    assert limits_in(ran)[name] == (value, value)
    assert reported(ran, name, "after") == (value, value)


def test_a_soft_limit_alone_leaves_the_hard_one(under):
    """--limit NAME=SOFT does not touch the hard limit."""
    ran = under("--nofile=1000:2000").run("--limit", "nofile=500", "--", *PRINT_LIMITS)
    assert limits_in(ran)["nofile"] == (500, 2000)


def test_several_limits_at_once(rtlaunch):
    """--limit is repeatable; each is set."""
    words = ("--limit", "nofile=300:400", "--limit", "stack=2M:4M", "--limit", "cpu=100:200")
    seen = limits_in(rtlaunch.run(*words, "--", *PRINT_LIMITS))
    assert (seen["nofile"], seen["cpu"]) == ((300, 400), (100, 200))
    assert seen["stack"] == (2 * MIB, 4 * MIB)


def test_limits_that_nobody_asked_for_are_untouched(rtlaunch):
    """All limits but memlock and core are those of rtlaunch's own parent."""
    seen, ours = limits_in(rtlaunch.run("--", *PRINT_LIMITS)), books.limits("self")
    kept = [name for name in ours if name not in {"memlock", "core"}]
    assert {name: seen[name] for name in kept} == {name: ours[name] for name in kept}


@pytest.mark.parametrize(
    ("demand", "message"),
    [
        ("nofile=3000:4000", "RLIMIT_NOFILE 4000 was asked for; the hard limit is 2000"),
        ("nofile=4000", "RLIMIT_NOFILE 4000 was asked for; the hard limit is 2000"),
    ],
)
def test_a_limit_that_cannot_be_had_is_refused(as_root, tmp_path, demand, message):
    """With both numbers, before anything starts."""
    marker = tmp_path / "marker"
    ran = as_root("--nofile=1000:2000").run("--limit", demand, "--", "touch", marker)
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith("rtlaunch: refused [limit-raise]: ")
    assert message in ran.err


@pytest.mark.parametrize("limit", ["nofile=0", "nofile=3", "nofile=8"])
def test_a_limit_without_descriptors_is_a_refusal_or_a_run(rtlaunch, limit):
    """Too few descriptors for our channel: 125, or a proven run; never an unlocked one."""
    ran = rtlaunch.run("--limit", limit, "--", "true")
    assert ran.code in {0, 125, 127}
    assert (ran.code == 0) is (ran.report["lock"]["ok"] is True)
    if ran.code == 125:
        assert "rtlaunch: refused [" in ran.err  # ld.so has its say before


# ---- the stack ----


def test_a_stack_limit_below_the_prefault_is_refused(under, tmp_path):
    """`ulimit -s 256` and the default prefault of 512K: refused with both, not a SIGSEGV."""
    marker = tmp_path / "marker"
    ran = under(f"--stack={256 << 10}:{EIGHT}").run("--", "touch", marker)
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith("rtlaunch: refused [stack-limit]: --prefault-stack 512 KiB does not")
    assert "RLIMIT_STACK is 256 KiB" in ran.err


def test_a_prefault_within_a_small_stack_runs(under):
    """With the prefault turned down the same program runs, locked."""
    ran = under(f"--stack={256 << 10}:{EIGHT}").run("--prefault-stack", "64K", "--", "true")
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)
    assert ran.report["lock"]["stack_bytes"] >= 64 << 10


def test_a_limit_set_by_us_counts_for_the_prefault(rtlaunch):
    """--limit stack=256K is judged as the target will have it."""
    ran = rtlaunch.run("--limit", "stack=256K", "--", "true")
    assert (ran.code, "refused [stack-limit]" in ran.err) == (125, True)


@pytest.mark.parametrize("kilobytes", [128, 160, 176, 184, 192, 208, 224, 240, 256, 264])
def test_no_prefault_near_the_limit_is_a_segfault(as_root, kilobytes):
    """Around what a limit of 256K leaves, a run is clean or refused: never ended by SIGSEGV."""
    limited = as_root(f"--stack={256 << 10}:{EIGHT}")
    ran = limited.run("--prefault-stack", f"{kilobytes}K", "--", "true", "x" * 20_000)
    assert ran.code in {0, 125}
    assert (ran.code == 125) is ("refused [stack-limit]" in ran.err)
