"""--thread-stack: small stacks for threads, the main stack as it was, in every image of a chain."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest

from tests import books
from tests.host import compile_c
from tests.kernel import seccomp
from tests.skips import skip
from tests.standing import standing

KIB, MIB = 1 << 10, 1 << 20
SMALL = 256 * KIB
IDLE = 8
BUDGET = 6 * MIB  # of eight idle threads; 592 MB without
PRLIMIT = {"x86_64": 302}.get(os.uname().machine, 261)
MANY = "x" * 1000
UNFOLLOWED = ("--allow", "exec-unfollowed")


def codes(report):
    return [finding["code"] for finding in report["findings"]]


def locked_by_threads(held):
    """Start the idle threads; return VmLck with them."""
    assert held.ask(f"threads {IDLE}") == str(IDLE)
    return books.locked_bytes(held.pid)


# ---- what the program finds


def test_threads_get_the_size_by_default(anybody, targets):
    """The C library's own default is what was asked for, to the byte."""
    with standing(anybody, "--thread-stack", "256K", "--", targets / "shaper") as held:
        assert held.number("default") == SMALL
        report = held.end().report
    assert report["lock"]["thread_stack_bytes"] == SMALL


def test_the_limit_is_whole_again_in_main(anybody, targets):
    """Soft and hard RLIMIT_STACK of the running program are those of who started rtlaunch."""
    with standing(anybody, "--thread-stack", "256K", "--", targets / "shaper") as held:
        assert books.limits(held.pid)["stack"] == books.limits("self")["stack"]


def test_the_limit_is_whole_again_before_main(rtlaunch, targets):
    """The shim restores it: the program's own constructor sees it already."""
    words = ("--thread-stack", "256K", "--", targets / "waiter")
    with standing(rtlaunch, *words, before_main=True) as held:
        assert books.limits(held.pid)["stack"] == books.limits("self")["stack"]


def test_a_stack_limit_that_was_asked_for_holds_in_main(rtlaunch, targets):
    """--limit stack=4M:16M and --thread-stack 256K are two things."""
    words = ("--limit", "stack=4M:16M", "--thread-stack", "256K", "--", targets / "shaper")
    with standing(rtlaunch, *words) as held:
        assert held.number("default") == SMALL
        assert books.limits(held.pid)["stack"] == (4 * MIB, 16 * MIB)


def test_an_unlimited_stack_is_unlimited_again(rtlaunch, targets):
    """RLIM_INFINITY goes through the protocol."""
    words = ("--limit", "stack=unlimited", "--thread-stack", "256K", "--", targets / "shaper")
    with standing(rtlaunch, *words) as held:
        assert held.number("default") == SMALL
        assert books.limits(held.pid)["stack"][0] == -1


def test_the_main_stack_grows_to_its_limit(anybody, targets):
    """7 MiB of main stack can be used, which is past any thread's."""
    words = ("--lock", "none", "--thread-stack", "256K", "--", targets / "shaper")
    with standing(anybody, *words) as held:
        assert held.ask(f"stack {7 * MIB}") == "used"


def test_the_main_stack_is_prefaulted_past_a_threads(rtlaunch, targets):
    """--prefault-stack is bounded by the restored limit, not by the small one."""
    words = ("--prefault-stack", "2M", "--thread-stack", "256K", "--", targets / "shaper")
    with standing(rtlaunch, *words) as held:
        assert books.stack(held.pid).resident >= 2 * MIB
        assert books.not_held(held.pid) == []


def test_a_size_is_rounded_to_pages(rtlaunch, targets):
    """What is no multiple of a page becomes the next one, as glibc has it."""
    with standing(rtlaunch, "--thread-stack", "200001", "--", targets / "shaper") as held:
        assert held.number("default") == -(-200001 // books.PAGE) * books.PAGE
        assert codes(held.end().report) == []


def test_without_the_option_nothing_is_measured(rtlaunch, targets):
    """The default stays RLIMIT_STACK, and the report does not claim to have looked."""
    with standing(rtlaunch, "--", targets / "shaper") as held:
        assert held.number("default") == books.limits("self")["stack"][0]
        assert held.end().report["lock"]["thread_stack_bytes"] is None


def test_what_the_program_starts_has_the_whole_limit(rtlaunch):
    """A child inherits the restored limit."""
    ran = rtlaunch.run("--thread-stack", "256K", "--", "sh", "-c", "true; sh -c 'ulimit -S -s'")
    assert ran.out.split() == [str(books.limits("self")["stack"][0] >> 10)]


# ---- what it is for


def test_eight_idle_threads_fit_the_budget(rtlaunch, targets):
    """VmLck of eight idle threads with small stacks and one arena: 6 MiB at most."""
    one_arena = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}
    words = ("--thread-stack", "256K", "--", targets / "shaper")
    with standing(rtlaunch, *words, env=one_arena) as held:
        assert locked_by_threads(held) <= BUDGET
        assert books.not_held(held.pid) == []


def test_without_it_they_cost_their_virtual_size(rtlaunch, targets):
    """The figure that `plan` states: 8 MiB of stack for each, charged whole."""
    one_arena = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}
    with standing(rtlaunch, "--", targets / "shaper", env=one_arena) as held:
        assert locked_by_threads(held) > IDLE * 8 * MIB


def test_an_unprivileged_user_at_eight_mebibytes_runs_them(as_user, targets):
    """Eight idle threads within the limit, and there is room for more threads and memory."""
    diet = ("--thread-stack", "256K", "--arenas", "1")
    with standing(as_user("limited"), *diet, "--", targets / "shaper") as held:
        assert int(books.status(held.pid)["CapEff"], 16) == 0
        assert books.limits(held.pid)["memlock"] == (8 * MIB, 8 * MIB)
        assert locked_by_threads(held) <= BUDGET
        assert held.ask("threads 2") == "2"
        assert [held.ask("work") for _ in range(20)] == ["ran"] * 20
        assert held.ask(f"malloc {64 * KIB}").startswith("0x")
        assert books.not_held(held.pid) == []
        ran = held.end()
    assert (ran.code, codes(ran.report), ran.report["verdict"]) == (0, [], "clean")


def test_the_headroom_is_counted_in_small_stacks(as_user, targets):
    """At 8 MiB a default stack would be warned of, and one of 256K is not."""
    with standing(as_user("limited"), "--thread-stack", "256K", "--", targets / "waiter") as held:
        assert held.ask("thread") == "ran"
        assert codes(held.end().report) == []


# ---- chains


def chain(*words):
    """Return a chain whose last image is shaper."""
    return lambda shaper: [*(word.replace("SHAPER", str(shaper)) for word in words), str(shaper)]


def script(text):
    """Return a shell's script that becomes shaper."""
    return lambda shaper: ["sh", "-c", text.replace("SHAPER", str(shaper))]


KEPT = {
    "env": chain("env", "A=1"),
    "nice": chain("nice", "-n", "1"),
    "nohup": chain("nohup"),
    "setpriv": chain("setpriv", "--no-new-privs"),
    "three": chain("env", "A=1", "nice", "-n", "1", "setpriv", "--no-new-privs"),
    "ulimit": script("ulimit -S -s 256; exec SHAPER"),
}


@pytest.mark.parametrize("words", KEPT.values(), ids=KEPT)
def test_a_wrapper_passes_the_size_on(rtlaunch, targets, words):
    """The last image's threads have it, its main stack is whole, and there is nothing to say."""
    command = words(targets / "shaper")
    with standing(rtlaunch, "--thread-stack", "256K", "--", *command) as held:
        assert held.number("default") == SMALL
        assert books.limits(held.pid)["stack"] == books.limits("self")["stack"]
        ran = held.end()
    assert codes(ran.report) == []
    assert ran.report["lock"]["thread_stack_bytes"] == SMALL


def test_a_shell_that_becomes_the_program_loses_it_and_that_is_said(rtlaunch, targets):
    """`sh -c 'exec app'`: the shell had its limit back; the warning has image and figure."""
    command = ("sh", "-c", f"exec {targets / 'shaper'}")
    with standing(rtlaunch, "--thread-stack", "256K", "--", *command) as held:
        got = held.number("default")
        ran = held.end()
    assert got == books.limits("self")["stack"][0]
    [lost] = [one for one in ran.report["findings"] if one["code"] == "thread-stack-lost"]
    assert lost["values"]["thread_stack_bytes"] == got
    assert (
        "warning [thread-stack-lost]: threads of shaper get stacks of 8 MiB by default, not 256 KiB"
        in ran.err
    )
    assert ran.report["lock"]["thread_stack_bytes"] == got


def test_a_script_is_no_chain(rtlaunch, here):
    """The kernel loads a script's interpreter in the same exec."""
    file = here / "script"
    file.write_text("#!/bin/sh\nulimit -S -s\n")
    file.chmod(0o755)
    ran = rtlaunch.run("--thread-stack", "256K", "--", file)
    assert ran.out.split() == [str(books.limits("self")["stack"][0] >> 10)]
    assert codes(ran.report) == []


@pytest.mark.parametrize("watch", ["perf", "proc"])
def test_an_image_without_the_shim_gets_its_limit_back(rtlaunch, watch):
    """`env -i` takes the shim away; who restores the main stack's limit then is the launcher.

    Also where the chain is not followed, and that image runs unlocked.
    """
    wait = "while [ $(ulimit -S -s) = 256 ]; do sleep 0.01; done; ulimit -S -s"
    words = ("--watch", watch, "--thread-stack", "256K", "--", "env", "-i", "/bin/sh", "-c", wait)
    for allowed, code in (((), "thread-stack-lost"), (UNFOLLOWED, "exec-unannounced")):
        ran = rtlaunch.run(*allowed, *words)
        assert ran.out.split() == [str(books.limits("self")["stack"][0] >> 10)]
        assert code in codes(ran.report)


# ---- what cannot be


@pytest.mark.parametrize("size", ["1", "4096", "12K"])
def test_less_than_the_library_gives_is_refused(rtlaunch, size, tmp_path):
    """glibc would take 16 KiB without a word."""
    marker = tmp_path / "marker"
    ran = rtlaunch.run("--thread-stack", size, "--", "touch", marker)
    assert (ran.code, marker.exists()) == (125, False)
    assert ran.err.startswith("rtlaunch: refused [thread-stack-size]: --thread-stack ")


def test_the_smallest_that_starts_a_program_starts_it(rtlaunch, targets):
    """What preflight lets through does start: 48K, with an environment of next to nothing."""
    least = {"PATH": os.environ["PATH"]}
    words = ("--thread-stack", "48K", "--", targets / "shaper")
    with standing(rtlaunch, *words, env=least) as held:
        assert held.number("default") == 48 * KIB
        assert held.ask("work") == "ran"


def test_more_than_the_hard_limit_is_refused(rtlaunch):
    """The size is a soft limit, and the hard one stays."""
    ran = rtlaunch.run("--limit", "stack=1M:1M", "--thread-stack", "2M", "--", "true")
    assert ran.code == 125
    assert "[thread-stack-size]: --thread-stack 2 MiB is above the hard RLIMIT_STACK" in ran.err


def test_arguments_that_do_not_fit_are_found_before_exec(rtlaunch):
    """With 256K of stack the kernel takes 128 KiB of arguments; 130 are refused, with both."""
    ran = rtlaunch.run("--thread-stack", "256K", "--", "true", *[MANY] * 133)
    assert ran.code == 125
    assert ran.err.startswith("rtlaunch: refused [thread-stack-arguments]: arguments and ")
    assert "with --thread-stack 256 KiB there is room for 128 KiB" in ran.err
    assert ran.report["target"]["pid"] is None


@pytest.mark.parametrize("count", [60, 110])
def test_arguments_that_fit_by_our_count_fit(rtlaunch, count):
    """What preflight lets through, the kernel and the loader take."""
    ran = rtlaunch.run("--thread-stack", "256K", "--", "true", *[MANY] * count)
    assert (ran.code, ran.err) == (0, "")


def test_a_static_program_is_refused_by_name(rtlaunch, here):
    """No shim would restore its limit."""
    program = static_program(here)
    ran = rtlaunch.run("--allow", "target-static", "--thread-stack", "256K", "--", program)
    assert ran.code == 125
    assert "refused [thread-stack-unsupported]: " in ran.err


def test_a_static_program_may_go_without(rtlaunch, here):
    """Both allowed: it runs, unlocked, with the limit that it would have had."""
    program = static_program(here)
    words = ("--allow", "target-static,thread-stack-unsupported", "--thread-stack", "256K")
    ran = rtlaunch.run(*words, "--", program)
    assert (ran.code, int(ran.out)) == (0, books.limits("self")["stack"][0])


def static_program(here):
    """Compile a program that prints its soft stack limit."""
    source = here / "limit.c"
    source.write_text(
        "#include <stdio.h>\n#include <sys/resource.h>\nint main(void) { struct rlimit limit; "
        'getrlimit(RLIMIT_STACK, &limit); printf("%ld\\n", (long)limit.rlim_cur); return 0; }\n'
    )
    compile_c(source, here / "limit", "-static")
    return here / "limit"


def test_musl_is_refused_by_name(rtlaunch, here):
    """musl ignores the limit: the refusal says so, and what sets its default."""
    compiler = shutil.which("musl-gcc")
    if not compiler:
        skip("no-musl")
    ran = rtlaunch.run("--thread-stack", "256K", "--", musl_program(compiler, here))
    assert ran.code == 125
    assert "refused [thread-stack-unsupported]: " in ran.err
    assert "is linked against musl" in ran.err
    assert "-z stack-size=N" in ran.report["findings"][0]["why"]


def test_a_musl_program_may_go_without(rtlaunch, here):
    """Allowed, it is locked, and nothing is done to its limit."""
    compiler = shutil.which("musl-gcc")
    if not compiler:
        skip("no-musl")
    words = ("--allow", "thread-stack-unsupported", "--thread-stack", "256K", "--")
    ran = rtlaunch.run(*words, musl_program(compiler, here))
    assert (ran.code, ran.report["verdict"]) == (0, "clean")
    assert ran.report["lock"]["thread_stack_bytes"] is None


def musl_program(compiler, here):
    """Compile a program that does nothing."""
    source = here / "nothing.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run([compiler, "-o", here / "nothing", source], check=True)
    return here / "nothing"


# A library that lets prlimit(2) fail from its constructor on, which precedes the shim's.
FORBID = """
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
__attribute__((constructor)) static void forbid(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}
"""


def forbidding_program(here):
    """Compile a program that is linked against that library."""
    (here / "forbid.c").write_text(FORBID)
    compile_c(here / "forbid.c", here / "forbid.so", "-shared", "-fPIC")
    (here / "main.c").write_text("int main(void) { return 0; }\n")
    compile_c(here / "main.c", here / "app", "-Wl,--no-as-needed", str(here / "forbid.so"))
    return here / "app"


def test_a_limit_that_stays_small_is_refused(rtlaunch, here):
    """The shim may not restore it: the program does not start, and both limits are named."""
    ran = rtlaunch.run("--thread-stack", "256K", "--", forbidding_program(here))
    assert ran.code == 125
    assert (
        "refused [stack-unrestored]: the soft RLIMIT_STACK of app is still 256 KiB, not 8 MiB"
        in ran.err
    )


def test_a_limit_that_stays_small_may_be_allowed(rtlaunch, here):
    """Then it is locked all the same, and its stack is not touched past the small limit."""
    words = ("--thread-stack", "256K", "--allow", "stack-unrestored", "--")
    ran = rtlaunch.run(*words, forbidding_program(here))
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True)
    assert ran.report["lock"]["stack_bytes"] == 0


def test_a_limit_that_cannot_be_set_is_a_refusal(rtlaunch, tmp_path):
    """prlimit forbidden: nothing starts with half of what was asked for."""
    marker = tmp_path / "marker"
    deny = seccomp.EPERM_ANSWER & ~0xFFFF | errno.EPERM
    words = ("--thread-stack", "256K", "--memlock", "inherit", "--core", "inherit")
    before = lambda: seccomp.answer(PRLIMIT, deny)  # noqa: E731
    ran = rtlaunch.run(*words, "--", "touch", marker, preexec_fn=before)
    assert (ran.code, marker.exists()) == (125, False)
