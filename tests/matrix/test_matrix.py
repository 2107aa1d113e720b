"""Every cell of the matrix is as the committed table says, and the table is whole.

A cell that should not be there on this machine is skipped by the fact that is missing;
`make matrix` skips nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests import launching
from tests.kernel import attack
from tests.matrix import table
from tests.matrix.cells import SILENT, faults_without, found, make
from tests.matrix.kinds import KINDS, Kind

CELLS = table.load()
HEADS = [cell for cell in CELLS if (cell.who, cell.via) == ("root", "auto")]
# Whatever compilers make for this machine has to be locked by root, without being asked how.
NATIVE = (
    "glibc-pie", "glibc-no-pie", "glibc-static", "static-pie", "musl-dynamic", "musl-static",
    "go", "go-cgo",
)  # fmt: skip


@pytest.fixture(scope="module")
def base():
    folder = Path(tempfile.mkdtemp(prefix="rtlaunch-matrix-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def of_kind(base):
    """Make the program of a kind, once."""
    attack.need_right()
    made = {}

    def get(name: str):
        if name not in made:
            made[name] = make(KINDS[name], base / name)
        return made[name]

    return get


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_cell_is_as_expected(cell, of_kind, as_user):
    """What rtlaunch does there is what the table says."""
    what = found(of_kind(cell.kind), as_user(cell.who), cell.via)
    assert cell.accepts(what), f"{what}, and expected was {cell.expected}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_attack_hurts_a_program_that_is_not_locked(kind, of_kind, base):
    """The control: without rtlaunch each kind takes major faults."""
    assert faults_without(of_kind(kind), base) > 0


# ---- the matrix itself


def test_native_programs_are_expected_to_be_locked():
    """As root, by auto: glibc, musl, static and Go; this line of the table cannot be given up."""
    expected = {cell.kind: cell.expected for cell in HEADS}
    assert {kind: expected[kind] for kind in NATIVE} == dict.fromkeys(NATIVE, "locked")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("java          root", "java          limited"),
        lambda text: text.replace("musl-static   everybody", "# musl-static"),
        lambda text: text + "mips everybody locked locked locked\n",
        lambda text: text.replace("refused:target-setuid", "UNLOCKED", 1),
    ],
    ids=["twice", "missing", "unknown", "silence"],
)
def test_a_table_that_is_not_whole_is_refused(change):
    """One row for each kind and user, and no cell that expects silence."""
    with pytest.raises(ValueError):
        table.read(change(table.EXPECTED.read_text()))


RUNS_IT_ALL_THE_SAME = """#!/bin/sh
# A rtlaunch that locks nothing, and says so if told to.
while [ "$1" != -- ]; do
    [ "$1" != --report ] || report=$2
    shift
done
shift
"$@"
"""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", f"{SILENT}: "),
        ("""echo '{"lock": {"ok": true, "via": "preload"}}' >"$report"\n""", f"{SILENT}: "),
        ("""echo '{"lock": {"ok": false}}' >"$report"\n""", f"{SILENT}: "),
        (
            """echo '{"lock": {"ok": false}}' >"$report"\n"""
            "echo 'rtlaunch: not locked: shim-silent' >&2\n",
            "unlocked:shim-silent",
        ),
    ],
    ids=["nothing", "a lie", "the report alone", "both"],
)
def test_a_program_that_runs_unlocked_is_found_out(of_kind, tmp_path, more, expected):
    """Whatever a launcher says: the kernel is asked, and to be silent, or to lie, is no way out."""
    program = tmp_path / "launcher"
    program.write_text(RUNS_IT_ALL_THE_SAME + more)
    program.chmod(0o755)
    launcher = launching.Launcher(program, tmp_path)
    assert found(of_kind("glibc-pie"), launcher, "auto").startswith(expected)


def test_a_kind_that_does_not_come_to_main_is_no_refusal(of_kind, base, rtlaunch):
    """A program that ends before it is ready, unlocked or locked, is wrong in every cell."""
    kind = Kind("says nothing", lambda folder: ["/bin/true"])
    assert found(make(kind, base / "silent"), rtlaunch, "auto").startswith("ENDED with 0")
