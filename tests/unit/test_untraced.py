"""Why a target may not be traced: the rule that decides is named, with its values."""

from __future__ import annotations

import pytest

from rtlaunch.core.untraced import Denial, denied, failed

EPERM = 1
SAID = "Operation not permitted"

CASES = {
    "tracer": (Denial(EPERM, SAID, 77, "strace"), "process 77 (strace) traces it already"),
    "hidden-tracer": (Denial(EPERM, SAID, 77), "process 77 traces it already"),
    "tracer-and-filter": (Denial(EPERM, SAID, 77, "gdb", seccomp=True), "process 77 (gdb)"),
    "filter": (Denial(EPERM, SAID, seccomp=True, yama=1), "a seccomp filter is in force"),
    "yama-2": (Denial(EPERM, SAID, yama=2), "ptrace_scope is 2, and we lack CAP_SYS_PTRACE"),
    "yama-3": (Denial(EPERM, SAID, yama=3), "ptrace_scope is 3: nobody may"),
    "yama-1": (Denial(EPERM, SAID, yama=1), "not dumpable, or a security module"),
    "no-yama": (Denial(EPERM, SAID), "not dumpable, or a security module"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rule_is_named(case):
    """Another tracer first, then a filter, then yama: an own child may be traced under scope 1."""
    denial, words = CASES[case]
    finding = denied(denial)
    assert finding.code == "ptrace-denied"
    assert words in finding.what
    assert finding.values["tracer"] == (denial.tracer or None)


def test_a_failed_injection_says_what_failed():
    """An errno's words, or ours where the kernel had none."""
    finding = failed("app", 5, OSError(0, "its vdso has no instruction that enters the kernel"))
    assert finding.code == "inject-failed"
    assert finding.what.startswith("app[5] stands at its exec")
    assert finding.what.endswith("its vdso has no instruction that enters the kernel")
    assert finding.values == {"pid": 5, "errno": None}
