"""The images of examples/03-containers, with this machine's files for the registry's."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.host import compile_c
from tests.installs import ROOT
from tests.rigs.containers import BASE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rigs.containers import Engine

EXAMPLES = ROOT / "examples" / "03-containers"
BARE, STATIC = "localhost/rig/bare", "localhost/rig/static"
PYTHON_APP, STATIC_APP = "localhost/rig/python-app", "localhost/rig/static-app"


def build(engine: Engine, folder: Path, tag: str, containerfile: Path, **given: str) -> None:
    """Build an image without a network."""
    values = [f"--build-arg={name}={value}" for name, value in given.items()]
    engine("build", "--network=none", "-t", tag, *values, "-f", containerfile, folder)


def build_all(engine: Engine, folder: Path) -> None:
    """Build both: from a base that has no rtlaunch, and one each that has what would be built.

    In ``folder`` is the checkout, as far as the stages that run need it, and a static program.
    """
    shutil.copytree(EXAMPLES, folder / EXAMPLES.relative_to(ROOT))
    compile_c(EXAMPLES / "static" / "app.c", folder / "app", "-static")
    bare, static = folder / "bare", folder / "static"
    bare.write_text(f"FROM {BASE}\nRUN rm -rf /opt/rtlaunch && mkdir -p /usr/local/bin\n")
    static.write_text(f"FROM {BASE}\nCOPY app /app/app\n")
    build(engine, folder, BARE, bare)
    build(engine, folder, STATIC, static)
    made = {"PYTHON": BARE, "RTLAUNCH": BASE}
    build(engine, folder, PYTHON_APP, EXAMPLES / "python" / "Containerfile", **made)
    build(engine, folder, STATIC_APP, EXAMPLES / "static" / "Containerfile", APP=STATIC, **made)


def locked_kib(said: str) -> int:
    """Return VmLck out of what a program has said of itself."""
    return int(said.partition("VmLck:")[2].split()[0])
