"""The way into the target: by preload where its loader honours one, from outside otherwise."""

from __future__ import annotations

import pytest

from rtlaunch.core import preflight, tracee, way
from rtlaunch.core.facts import Shim
from rtlaunch.core.record import replace
from rtlaunch.core.target import FileCaps, Reach
from tests.unit.deciding import ALL, USER, codes, facts, options

X86 = frozenset(("x86_64",))
PRIVILEGED, PLAIN = Reach("x86_64", X86, True), Reach("x86_64", X86, False)
TWO = Reach("x86_64", frozenset(("x86_64", "i386")), False)
CAPS = FileCaps(1 << 13, 0, True)


def target(machine: str = "x86_64", linkage: str = "dynamic", **changed: object):
    """A command whose program is changed so."""
    known = facts().target
    program = known.images[0]
    assert program.elf is not None
    interp = program.elf.interp if linkage == "dynamic" else None
    elf = replace(program.elf, machine=machine, linkage=linkage, interp=interp)
    return replace(known, images=(replace(program, elf=elf, **changed),))


# what is changed of the facts; the way, and a word of its reason
WAYS = {
    "dynamic": ({}, "preload", "honours LD_PRELOAD"),
    "static": ({"target": target(linkage="static")}, "ptrace", "is static"),
    "static-pie": ({"target": target(linkage="static-pie")}, "ptrace", "is static"),
    "no-shim": ({"shim": None}, "ptrace", "no shim for this machine"),
    "no-path": ({"shim": Shim("x86_64", "/a b/s.so", "")}, "ptrace", "cannot carry"),
    "set-uid": (
        {"target": target(mode=0o4755), "who": USER, "reach": PRIVILEGED}, "ptrace", "set-uid",
    ),
    "file-caps": (
        {"target": target(file_caps=CAPS), "who": USER, "reach": PRIVILEGED}, "ptrace",
        "file capabilities",
    ),
    "i386": ({"target": target("i386")}, "ptrace", "word size"),
    "i386-shim": ({"target": target("i386"), "reach": TWO}, "preload", "honours LD_PRELOAD"),
    "i386-static": ({"target": target("i386", "static")}, "ptrace", "word size"),
}  # fmt: skip


@pytest.mark.parametrize("case", WAYS)
def test_the_way_is_chosen_by_what_the_program_is(case):
    """What a preload does not reach is locked by ptrace, and nothing is refused."""
    changed, way, reason = WAYS[case]
    known = facts(**{"who": replace(USER, caps=replace(USER.caps, effective=ALL)), **changed})
    chosen, why = preflight.way_in(options(), known)
    assert (chosen, reason in why) == (way, True), why
    assert codes(preflight.findings(options(memlock="inherit"), known)) == []


@pytest.mark.parametrize(
    ("program", "code"),
    [(target(mode=0o4755), "target-setuid"), (target(file_caps=CAPS), "target-file-caps")],
    ids=["set-uid", "file-caps"],
)
@pytest.mark.parametrize("via", ["auto", "ptrace", "preload"])
def test_a_secure_program_is_refused_where_a_tracer_would_cost_it_its_privileges(
    program, code, via
):
    """Without CAP_SYS_PTRACE the kernel gives a traced program none (cap_bprm_creds_from_file)."""
    known = facts(target=program, who=USER, reach=PLAIN)
    assert codes(preflight.findings(options(via=via), known)) == [code]


def test_a_static_program_that_is_secure_as_well_is_refused_for_that():
    """One reason that ptrace removes does not remove the other."""
    known = facts(target=target(linkage="static", mode=0o4755), who=USER, reach=PLAIN)
    assert codes(preflight.findings(options(), known)) == ["target-setuid"]


def test_preload_that_was_asked_for_is_refused_where_it_does_not_reach():
    """--via preload never becomes another way."""
    known = facts(target=target(linkage="static"))
    assert codes(preflight.findings(options(via="preload"), known)) == ["target-static"]
    assert preflight.way_in(options(via="preload"), known) == ("preload", "asked for")


def test_ptrace_that_was_asked_for_needs_no_shim():
    """--via ptrace locks dynamic programs too, and leaves LD_PRELOAD alone."""
    asked = options(via="ptrace")
    assert preflight.way_in(asked, facts()) == ("ptrace", "asked for")
    assert codes(preflight.findings(asked, facts(shim=None))) == []


def test_a_machine_whose_registers_are_unknown_is_refused():
    """riscv64 has no layout in the table: what a preload does not reach there is refused."""
    reach = Reach("riscv64", frozenset(("riscv64",)), True)
    known = facts(target=target("riscv64", "static"), reach=reach)
    assert codes(preflight.findings(options(), known)) == ["target-static"]


def test_the_machines_are_those_whose_registers_are_known():
    """The plan promises no injection that the engine cannot do, and the other way round."""
    assert set(way.INJECTABLE) == {layout.machine for layout in tracee.BY_BYTES.values()}


KEEP = {"static": ("static", "x86_64"), "static-pie": ("static-pie", "x86_64")}
DROP = {"i386": ("dynamic", "i386"), "i386-static": ("static", "i386")}


@pytest.mark.parametrize(("linkage", "machine"), KEEP.values(), ids=KEEP)
def test_a_static_program_passes_the_shim_on(linkage, machine):
    """Nothing reads LD_PRELOAD in it, and what it execs may be dynamic."""
    known = facts(target=target(machine, linkage))
    assert way.preloaded(options(), known, way.PTRACE) == "/opt/shim.so"
    assert way.preloaded(options(via="ptrace"), known, way.PTRACE) == ""


@pytest.mark.parametrize(("linkage", "machine"), DROP.values(), ids=DROP)
def test_a_loader_is_not_given_what_it_would_complain_of(linkage, machine):
    """A 32-bit loader says on stderr that it ignores a 64-bit shim."""
    known = facts(target=target(machine, linkage))
    assert way.preloaded(options(), known, way.PTRACE) == ""


def test_a_name_for_both_word_sizes_is_passed_on_by_either():
    """Each loader finds its own under $LIB, and complains of nothing."""
    shim = Shim("x86_64", "/opt/shim.so", "/opt/$LIB/shim.so", both=True)
    known = facts(target=target("i386", "static"), shim=shim)
    assert way.preloaded(options(), known, way.PTRACE) == shim.preload


def test_a_shim_that_cannot_be_mapped_is_not_named():
    """On a noexec file system the loader would say so on stderr."""
    known = facts(shim=Shim("x86_64", "/noexec/s.so", "/noexec/s.so", noexec=True))
    assert preflight.way_in(options(), known)[0] == "ptrace"
    assert way.preloaded(options(), known, way.PTRACE) == ""


def test_children_are_not_reached_from_outside():
    """--via ptrace preloads nothing, so --children all cannot hold: said, not refused."""
    asked = options(via="ptrace", children="all")
    (finding,) = preflight.findings(asked, facts())
    assert (finding.code, finding.refuses) == ("child-unlocked", False)
    assert "no child" in finding.what
    assert codes(preflight.findings(options(children="all"), facts())) == []
