"""What the native tests compile, once a session: the shim as the build makes it, and targets."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.native.fake_launcher import FakeLauncher
from tests.skips import skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent

# machine: the compilers to be had for it, the machine's own first, and what runs its programs
COMPILERS = {
    "x86_64": (["cc"], ["x86_64-linux-gnu-gcc"]),
    "i386": (["cc", "-m32"], ["x86_64-linux-gnu-gcc", "-m32"]),
    "aarch64": (["cc"], ["aarch64-linux-gnu-gcc"]),
}
EMULATOR = "qemu-aarch64 -L /usr/aarch64-linux-gnu"


def load_build_hook() -> ModuleType:
    """Import hatch_build.py, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build() -> ModuleType:
    return load_build_hook()


@pytest.fixture(scope="session")
def own_machine(build: ModuleType) -> str:
    return str(build.machine(["cc"]))


def can_make(build: ModuleType, command: list[str], machine: str) -> bool:
    """Tell whether a compiler is there and is one for ``machine``."""
    if not shutil.which(command[0]):
        return False
    try:
        return bool(build.machine(command) == machine)
    except build.BuildError:
        return False


def compiler_for(build: ModuleType, machine: str) -> list[str]:
    """Return a compiler for ``machine``, or skip."""
    for command in COMPILERS[machine]:
        if can_make(build, command, machine):
            return command
    skip("no-32-bit" if machine == "i386" else "no-cross-compiler")


@pytest.fixture(scope="session", params=sorted(COMPILERS))
def machine(request: pytest.FixtureRequest) -> str:
    """Each machine that there is native code for."""
    return str(request.param)


@pytest.fixture(scope="session")
def cc(build: ModuleType, machine: str) -> list[str]:
    return compiler_for(build, machine)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="session")
def any_shim(build: ModuleType, machine: str, cc: list[str], workspace: Path) -> Path:
    """The shim for ``machine``."""
    made: Path = build.compile_native(cc, "shim.c", build.SHIM, workspace / f"shim-{machine}.so")
    return made


@pytest.fixture(scope="session")
def any_stub(
    build: ModuleType, machine: str, own_machine: str, cc: list[str], workspace: Path
) -> Path:
    """The entry stub for ``machine``; a companion has none of its own."""
    if machine in [name for name, _ in build.COMPANIONS.values()]:
        machine, cc = own_machine, [word for word in cc if word != "-m32"]
    made: Path = build.compile_native(cc, "stub.c", build.STUB, workspace / f"stub-{machine}")
    return made


@pytest.fixture(scope="session")
def shim(build: ModuleType, own_machine: str, workspace: Path) -> Path:
    """The shim for this machine."""
    cc = compiler_for(build, own_machine)
    made: Path = build.compile_native(cc, "shim.c", build.SHIM, workspace / "shim.so")
    return made


def compile_books(cc: str, output: Path) -> Path:
    subprocess.run([cc, "-O1", "-o", str(output), str(HERE / "books.c")], check=True)
    return output


@pytest.fixture(scope="session")
def books(workspace: Path) -> Path:
    """books.c, with this machine's libc."""
    return compile_books("cc", workspace / "books")


@pytest.fixture(scope="session")
def musl_books(workspace: Path) -> Path:
    """books.c, with musl."""
    if not shutil.which("musl-gcc"):
        skip("no-musl")
    return compile_books("musl-gcc", workspace / "books-musl")


@pytest.fixture(scope="session")
def aarch64_books(build: ModuleType, workspace: Path) -> Path:
    """books.c for aarch64, where an emulator is there to run it."""
    if not shutil.which("qemu-aarch64"):
        skip("no-qemu-user")
    return compile_books(compiler_for(build, "aarch64")[0], workspace / "books-aarch64")


@pytest.fixture
def launcher(shim: Path) -> Iterator[FakeLauncher]:
    with FakeLauncher(shim) as made:
        yield made
