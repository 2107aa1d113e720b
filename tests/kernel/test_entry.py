"""The command as people install it: wheel, virtual environment, pipx's link, prefix, editable.

Each installation is made of one source distribution, unpacked in a path with a space.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from tests import installs
from tests.skips import skip

ROOT = installs.ROOT
VARIABLES = {
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere/either",
    "PYTHONSTARTUP": "/nowhere/start.py",
    "PYTHONINSPECT": "1",
    "PYTHONVERBOSE": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "nonsense",
    "PYTHONMALLOC": "debug",
    "PYTHONSAFEPATH": "1",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, in a path with a space."""
    folder = tmp_path_factory.mktemp("a checkout")
    checkout = installs.copy_checkout(folder / "its copy")
    return installs.build_sdist(checkout, folder)


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installs.build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a space in its path, and rtlaunch in it.

    Its bytecode was compiled although the environment forbids Python to write any.
    """
    folder = installs.make_venv(tmp_path_factory.mktemp("venv") / "an environment")
    forbidden = installs.environment(PYTHONDONTWRITEBYTECODE="1")
    installs.install(folder, wheel, env=forbidden)
    return folder


@pytest.fixture
def run(tmp_path: Path):
    """Run a command that must succeed, with a state directory of its own; give its output."""

    def run(*words: str | Path, env: dict[str, str] | None = None, **how: object) -> str:
        state = {"RTLAUNCH_STATE_DIR": str(tmp_path / "state")}
        env = {**(installs.environment() if env is None else env), **state}
        done = subprocess.run(
            list(map(str, words)), env=env, capture_output=True, text=True, check=False, **how
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def libraries(prefix: Path) -> Path:
    return prefix / installs.LIBRARIES / "rtlaunch"


# ---- what is built ----


def test_wheel_is_for_this_machine_and_every_python(wheel: Path) -> None:
    """The wheel's tag names the machine, and no Python ABI."""
    assert wheel.stem.split("-")[2:] == ["py3", "none", f"linux_{machine()}"]


def machine() -> str:
    told = subprocess.run(["cc", "-dumpmachine"], capture_output=True, text=True, check=True)
    return told.stdout.partition("-")[0]


def test_wheel_has_the_native_files_and_no_source_of_them(wheel: Path) -> None:
    """Both guests are in the package, the stub and the interpreter's name among the scripts."""
    names = zipfile.ZipFile(wheel).namelist()
    scripts = {Path(name).name for name in names if ".data/scripts/" in name}
    native = {name for name in names if name.startswith("rtlaunch/native/")}
    assert scripts == {"rtlaunch", "rtlaunch-python"}
    guests = ("shim", "heap", "standalone")
    own = {f"rtlaunch/native/rtlaunch-{guest}-{machine()}.so" for guest in guests}
    other = {name for name in native if "/split/" in name or "/merged/" in name or "i386" in name}
    assert native - other == own
    assert not other or {name for name in other if Path(name).parent.name == "native"} == {
        f"rtlaunch/native/rtlaunch-{guest}-i386.so" for guest in guests
    }


def test_each_loader_finds_the_guest_of_its_class(wheel: Path) -> None:
    """Under each folder that a loader can put for $LIB lies a copy of the one for its machine."""
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if "/split/" in name or "/merged/" in name]
        if not names:
            skip("no-32-bit")
        for name in names:
            folder = Path(name).parent
            small = folder.name in ("lib32", "i386-linux-gnu") or name.count("/split/lib/r")
            other = f"{Path(name).stem}-{'i386' if small else 'x86_64'}.so"
            assert packed.read(name) == packed.read(f"rtlaunch/native/{other}")


def test_a_compiler_without_32_bits_builds_the_rest(tmp_path: Path) -> None:
    """It is no error, and nothing of i386 is made."""
    folder = installs.copy_checkout(tmp_path / "checkout")
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase " $* " in *" -m32 "*) exit 1 ;; esac\nexec cc "$@"\n')
    compiler.chmod(0o755)
    done = build_with(str(compiler), folder)
    assert done.returncode == 0
    assert "i386" not in done.stdout and "split" not in done.stdout
    assert done.stdout.count(f"-{machine()}.so") == 3


def test_wheel_has_the_profiles(wheel: Path) -> None:
    """Those that lie in the checkout, and each as it is there."""
    shipped = {f"rtlaunch/profiles/{path.name}": path.read_bytes()
               for path in (ROOT / "rtlaunch" / "profiles").iterdir()}  # fmt: skip
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.startswith("rtlaunch/profiles/")]
        assert {name: packed.read(name) for name in names} == shipped


def test_wheel_says_its_licence(wheel: Path) -> None:
    """The licence travels with the wheel: the shim goes into other people's programs."""
    assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/LICENSE")]


def test_missing_compiler_is_one_line(tmp_path: Path) -> None:
    """Without a C compiler the build says which one was looked for, and what to install."""
    checkout = installs.copy_checkout(tmp_path / "checkout")
    done = build_with("no-such-cc", checkout)
    assert done.returncode != 0
    assert "rtlaunch: no C compiler: no-such-cc is not found" in done.stderr.splitlines()[-1]


def test_unknown_machine_is_one_line(tmp_path: Path) -> None:
    """A compiler for a machine that we have no header for is refused by the machine's name."""
    checkout = installs.copy_checkout(tmp_path / "checkout")
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho riscv64-linux-gnu\n")
    compiler.chmod(0o755)
    done = build_with(str(compiler), checkout)
    assert done.returncode != 0
    assert "compiles for riscv64; there is native code for x86_64, i386, aarch64" in done.stderr


def build_with(cc: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "hatch_build.py"],
        cwd=checkout,
        env=installs.environment(CC=cc),
        capture_output=True,
        text=True,
        check=False,
    )


# ---- where it is installed ----


def test_runs_from_a_venv_with_a_space_in_its_path(venv: Path, run) -> None:
    """The command in a virtual environment starts its target."""
    assert run(venv / "bin" / "rtlaunch", "--", "echo", "a b") == "a b\n"


def test_runs_through_a_symlink(venv: Path, run, tmp_path: Path) -> None:
    """A link in another folder, as pipx makes it, is as good as the command."""
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "rtlaunch"
    link.symlink_to(venv / "bin" / "rtlaunch")
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    assert run("rtlaunch", "--", "echo", "x", env={"PATH": path}) == "x\n"


def test_runs_from_a_prefix(wheel: Path, run, tmp_path: Path) -> None:
    """With --prefix no python3 is beside the command, and the package there is the one run.

    The dependencies are not there either: they are found where the interpreter has them.
    """
    prefix = tmp_path / "a prefix"
    pip = [*installs.PIP, "install", *installs.ANEW, *installs.OFFLINE]
    installs.run(*pip, "--prefix", prefix, wheel)
    assert not (prefix / "bin" / "python3").exists()
    mark_version(libraries(prefix))
    assert run(prefix / "bin" / "rtlaunch", "--", "echo", "x") == "x\n"
    assert "0.0+marked" in run(prefix / "bin" / "rtlaunch", "--version")


def mark_version(package: Path) -> None:
    """Make an installation tell that it is the one that runs."""
    (package / "__init__.py").write_text('__version__ = "0.0+marked"\n')


def test_runs_from_a_moved_venv(venv: Path, run, tmp_path: Path) -> None:
    """A copied environment runs its own package, not that of the path where it was made."""
    moved = shutil.copytree(venv, tmp_path / "moved", symlinks=True)
    mark_version(libraries(moved))
    assert "0.0+marked" in run(moved / "bin" / "rtlaunch", "--version")


def test_editable_install_runs_the_checkout(run, tmp_path: Path) -> None:
    """An editable install, from and into a path with a space: what is edited is what runs."""
    checkout = installs.copy_checkout(tmp_path / "a checkout")
    venv = installs.make_venv(tmp_path / "an environment")
    installs.install(venv, "--editable", checkout)
    assert uncompiled(checkout / "rtlaunch") == []
    mark_version(checkout / "rtlaunch")
    assert "0.0+marked" in run(venv / "bin" / "rtlaunch", "--version")
    assert run(venv / "bin" / "rtlaunch", "--", "echo", "x") == "x\n"


# ---- bytecode ----


def uncompiled(package: Path) -> list[Path]:
    """Return the modules of an installed package that have no .pyc beside them."""
    cached = sys.implementation.cache_tag
    return [
        path
        for path in package.rglob("*.py")
        if not (path.parent / "__pycache__" / f"{path.stem}.{cached}.pyc").exists()
    ]


def test_bytecode_is_in_place_after_install(venv: Path) -> None:
    """No launch pays for compiling, although PYTHONDONTWRITEBYTECODE was set for the installer."""
    assert uncompiled(libraries(venv)) == []


PACK = installs.PACK
# What a launch by a bare name imports before main() and does not read from the pack.
READS_THE_PACK = {"rtlaunch", "rtlaunch.cli"}


def packed(package: Path) -> dict[str, str]:
    """Return the modules in the pack of an installed package, with their files."""
    return {name: file for group in installs.packed_groups(package) for name, file in group.items()}


def test_the_pack_has_all_that_a_launch_imports(venv: Path, tmp_path: Path) -> None:
    """No module of ours is looked for in a file before the target's main() runs."""
    target = ["sh", "-c", "echo main >&2"]
    entry = libraries(venv) / "__main__.py"
    python = [venv / "bin" / "python3", "-I", "-S", "-X", "importtime", entry]
    environ = installs.environment(RTLAUNCH_STATE_DIR=str(tmp_path / "state"))
    ran = subprocess.run(
        [*python, "--", *target], env=environ, capture_output=True, text=True, check=True
    )
    lines = ran.stderr.partition("main\n")[0].splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines}
    ours = {name for name in names if name.partition(".")[0] == "rtlaunch"}
    assert len(ours) > len(READS_THE_PACK)
    assert ours - packed(libraries(venv)).keys() == READS_THE_PACK


def test_the_pack_is_what_is_read(venv: Path, run, tmp_path: Path) -> None:
    """A launch works where the modules in the pack are nowhere else."""
    moved = shutil.copytree(venv, tmp_path / "moved", symlinks=True)
    files = packed(libraries(moved)).values()
    for path in libraries(moved).rglob("*.pyc"):
        path.unlink()
    for file in files:
        (libraries(moved).parent / file).unlink()
    assert run(moved / "bin" / "rtlaunch", "--", "echo", "x") == "x\n"


def test_the_pack_of_another_python_is_left_alone(venv: Path, run, tmp_path: Path) -> None:
    """Bytecode with another magic number is not run; the modules are found one by one."""
    moved = shutil.copytree(venv, tmp_path / "moved", symlinks=True)
    pack = libraries(moved) / PACK
    pack.write_bytes(b"\0\0\r\n" + pack.read_bytes()[len(MAGIC_NUMBER) :])
    assert run(moved / "bin" / "rtlaunch", "--", "echo", "x") == "x\n"


def test_a_pack_that_is_replaced_meanwhile_is_not_read_on(venv: Path, tmp_path: Path) -> None:
    """After an upgrade the places of the old index are not those of the new pack."""
    moved = shutil.copytree(venv, tmp_path / "moved", symlinks=True)
    pack = libraries(moved) / PACK
    other = pack.read_bytes()
    other = other[: len(MAGIC_NUMBER)] + bytes(16) + other[len(MAGIC_NUMBER) + 16 :]
    late = "rtlaunch.engine.handshake"
    assert late in installs.packed_groups(libraries(moved))[1]
    program = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "import rtlaunch.cli.launch\n"
        f"open({str(pack)!r}, 'wb').write({other!r})\n"
        f"import {late} as late; print(type(late.__loader__).__name__)\n"
    )
    script = tmp_path / "upgraded.py"
    script.write_text(program)
    python = [moved / "bin" / "python3", "-I", "-S", script, libraries(moved).parent]
    ran = subprocess.run(python, capture_output=True, text=True, check=True)
    assert ran.stdout == "SourceFileLoader\n"


# ---- the environment ----


def test_python_variables_reach_the_target_untouched(venv: Path, run) -> None:
    """PYTHON* is for the target: each variable arrives as it was, and no start-up file ran."""
    env = installs.environment(**VARIABLES)
    seen = run(venv / "bin" / "rtlaunch", "--", "env", "-0", env=env).split("\0")
    given = {f"{name}={value}" for name, value in env.items()}
    assert [entry for entry in seen if entry.startswith("PYTHON") and entry not in given] == []
    assert {f"{name}={value}" for name, value in VARIABLES.items()} <= set(seen)


def test_python_variables_do_not_steer(venv: Path, run, tmp_path: Path) -> None:
    """Modules on PYTHONPATH and in the working directory are not what rtlaunch imports."""
    for name in ("os", "rtlaunch", "site", "time", "sitecustomize", "_prctl"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('stolen by {name}')\n")
    env = installs.environment(**{**VARIABLES, "PYTHONPATH": str(tmp_path)})
    stub = venv / "bin" / "rtlaunch"
    assert run(stub, "--", "echo", "x", env=env, cwd=tmp_path) == "x\n"
    assert run(stub, "--version", env=env, cwd=tmp_path)


def test_runs_by_absolute_path_with_an_empty_environment(venv: Path, run) -> None:
    """As sudo and cron start it: no PATH, no HOME, nothing."""
    stub = venv / "bin" / "rtlaunch"
    assert run(stub, "--", "/bin/echo", "x", env={}, cwd="/") == "x\n"
