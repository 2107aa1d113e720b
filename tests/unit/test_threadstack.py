"""--thread-stack: what may be asked, what is planned, and when it was lost."""

from __future__ import annotations

import pytest

from rtlaunch.core import plan, preflight, threadstack
from rtlaunch.core.asked_steps import SetThreadStack
from rtlaunch.core.facts import Shape
from rtlaunch.core.limits import Limit
from rtlaunch.core.record import replace
from rtlaunch.core.steps import Execute
from rtlaunch.core.target import Reach
from rtlaunch.core.units import RLIMITS, UNLIMITED
from tests.unit.deciding import MIB, codes, facts, options

KIB = 1 << 10
ASKED = options(thread_stack="256K")


def about(known, asked=ASKED):
    """Return what preflight finds of threads' stacks."""
    return list(preflight.of_thread_stack(asked, known))


def on(machine):
    """Return facts of another machine."""
    known = facts()
    program = known.target.images[-1]
    there = replace(program, elf=replace(program.elf, machine=machine))
    return replace(
        known,
        target=replace(known.target, images=(there,)),
        reach=Reach(machine, frozenset((machine,)), True),
    )


def with_limit(soft, hard):
    limits = {name: Limit(8 * MIB, 8 * MIB) for name in RLIMITS}
    return facts(limits=limits | {"stack": Limit(soft, hard)})


# ---- preflight


def test_nothing_stands_against_a_usual_size():
    """256K on a plain machine."""
    assert about(facts()) == []


def test_without_the_option_nothing_is_found():
    """Not even where it would be refused."""
    assert about(facts(shim=None), options()) == []


@pytest.mark.parametrize(
    ("machine", "size", "expected"),
    [
        ("x86_64", "16383", []),
        ("x86_64", "12K", ["thread-stack-size"]),
        ("aarch64", "127K", []),
        ("aarch64", "64K", ["thread-stack-size"]),
        ("riscv64", "12K", ["thread-stack-size"]),
    ],
)
def test_the_least_is_the_c_librarys(machine, size, expected):
    """PTHREAD_STACK_MIN of each machine, after rounding to pages."""
    found = codes(about(on(machine), options(thread_stack=size)))
    assert [code for code in found if code != "thread-stack-arguments"] == expected


def test_a_larger_minimum_of_this_cpu_counts():
    """sysconf(_SC_THREAD_STACK_MIN) grows with the registers that a signal saves."""
    known = facts(shape=Shape(thread_stack_least=300 * KIB))
    [finding] = about(known)
    assert (finding.code, finding.values["least_bytes"]) == ("thread-stack-size", 300 * KIB)


def test_the_hard_limit_bounds_it():
    """It is set as a soft limit; that of --limit counts, where there is one."""
    assert codes(about(facts(), options(thread_stack="16M"))) == ["thread-stack-size"]
    wide = options(thread_stack="16M", limit="stack=8M:32M")
    assert about(facts(), wide) == []
    assert about(with_limit(8 * MIB, UNLIMITED), options(thread_stack="16M")) == []


@pytest.mark.parametrize(
    ("size", "kib", "fits"),
    [("256K", 120, True), ("256K", 130, False), ("1M", 250, True), ("1M", 260, False),
     ("64K", 30, True), ("64K", 33, False)],
)  # fmt: skip
def test_arguments_have_to_fit_beside(size, kib, fits):
    """A quarter of the limit, or 128 KiB; and 32 KiB are the loader's."""
    known = facts(environ={"A": "x" * (kib * KIB)})
    expected = [] if fits else ["thread-stack-arguments"]
    assert codes(about(known, options(thread_stack=size))) == expected


def test_pointers_count():
    """Many short strings take more in pointers than in letters."""
    few = threadstack.strings_bytes(facts(environ={"A": "x" * 998}))
    many = threadstack.strings_bytes(facts(environ={f"{at:03}": "" for at in range(250)}))
    assert many - few == 250 * (5 + 8) - (1001 + 8)


def test_musl_is_named():
    """Its loader tells; the reason is musl's, not the shim's."""
    known = facts()
    program = known.target.images[-1]
    musl = replace(program, elf=replace(program.elf, interp=b"/lib/ld-musl-x86_64.so.1"))
    [finding] = about(replace(known, target=replace(known.target, images=(musl,))))
    assert (finding.code, finding.values["libc"]) == ("thread-stack-unsupported", "musl")


def test_a_program_that_the_shim_does_not_reach_keeps_its_limit():
    """Without a shim nobody would restore it."""
    assert codes(about(facts(shim=None))) == ["thread-stack-unsupported"]


# ---- the plan


def step(asked, known=None):
    """Return the step of the plan, if it has one, and what comes after it."""
    actions = plan.make_plan(asked, known or facts())
    at = next((i for i, one in enumerate(actions) if isinstance(one, SetThreadStack)), None)
    return None if at is None else (actions[at], actions[at + 1])


def test_the_limit_is_set_last_before_exec():
    """Whatever else is asked: our own stack is bounded by it from then on."""
    asked = options(thread_stack="256K", no_new_privs="true", thp="never", nice="5")
    known = facts(shape=Shape(thp_system="madvise"))
    found, after = step(asked, known)
    assert isinstance(after, Execute)
    assert found.size == 256 * KIB


def test_what_is_restored_is_what_main_would_have_had():
    """Ours, or that of --limit."""
    assert step(ASKED)[0].restored == Limit(8 * MIB, 8 * MIB)
    asked = options(thread_stack="256K", limit="stack=4M:6M")
    assert step(asked)[0].restored == Limit(4 * MIB, 6 * MIB)


def test_the_step_says_both_limits():
    """Small for the exec, whole before main()."""
    assert step(ASKED)[0].describe() == (
        "set the soft RLIMIT_STACK to 256 KiB for the exec, the default stack of threads; "
        "restored to 8 MiB before main()"
    )


def test_allowed_to_go_without_it_is_not_set():
    """--allow thread-stack-unsupported."""
    known = facts(shim=None)
    asked = options(thread_stack="256K", best_effort="true")
    actions = plan.make_plan(asked, known, preflight.findings(asked, known))
    assert SetThreadStack not in [type(one) for one in actions]


def test_an_unlimited_stack_is_all_ones_to_the_shim():
    """RLIM64_INFINITY, and back."""
    asked = options(thread_stack="256K", limit="stack=unlimited")
    told = threadstack.restored(asked, facts())
    assert (told, threadstack.as_limit(told)) == (2**64 - 1, UNLIMITED)


# ---- what an image keeps


@pytest.mark.parametrize(
    ("soft", "program", "kept"),
    [(256, "env", True), (8192, "env", False), (256, "bash", False), (256, "app", False)],
)
def test_only_a_wrapper_with_the_small_limit_keeps_it(soft, program, kept):
    """A shell is none: it starts other programs."""
    assert threadstack.is_kept(256 * KIB, soft * KIB, program) is kept
