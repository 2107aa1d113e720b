"""The entry stub: which interpreter it becomes, with which package and which arguments.

The interpreters here are shell scripts that print their command line, so that each choice shows.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.native.conftest import compiler_for
from tests.skips import skip

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

REFUSED = 125
OWN = 6  # words before ours: the interpreter, -I -X TOLD, -m rtlaunch
TOLD = "rtlaunch=0:0:2"  # no signal ignored, no child, SIGINT held back
SHELLS_OWN = 10  # where dash keeps the script that it reads


@pytest.fixture(scope="session")
def stub(build: ModuleType, own_machine: str, workspace: Path) -> Path:
    cc = compiler_for(build, own_machine)
    made: Path = build.compile_native(cc, "stub.c", build.STUB, workspace / "rtlaunch")
    return made


@pytest.fixture
def prefix(stub: Path, tmp_path: Path) -> Path:
    """An installation prefix, in a path with a space, that has the stub and nothing else."""
    folder = tmp_path / "a prefix"
    (folder / "bin").mkdir(parents=True)
    shutil.copy2(stub, folder / "bin" / "rtlaunch")
    return folder


def add_interpreter(path: Path) -> Path:
    """Put an interpreter there that prints its own path and its arguments, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
    path.chmod(0o755)
    return path


def add_package(prefix: Path, libraries: str) -> Path:
    main = prefix / libraries / "rtlaunch" / "__main__.py"
    main.parent.mkdir(parents=True)
    main.touch()
    return main


def name_interpreter(prefix: Path, python: Path | str) -> None:
    (prefix / "bin" / "rtlaunch-python").write_text(f"#!{python}\n# more\n")


def lines(prefix: Path, *arguments: str) -> list[str]:
    """Run the stub; return what the interpreter said, line by line."""
    words = [str(prefix / "bin" / "rtlaunch"), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def refusal(*words: str | Path) -> str:
    """Run a stub that must refuse; return its one line."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert done.stderr.startswith("rtlaunch: refused [") and done.stderr.count("\n") == 1
    return done.stderr


# ---- the interpreter ----


def test_venv_runs_the_python_beside_it(prefix: Path) -> None:
    """In a virtual environment it is the environment's own, whatever rtlaunch-python names."""
    python = add_interpreter(prefix / "bin" / "python3")
    name_interpreter(prefix, add_interpreter(prefix / "elsewhere" / "python3"))
    (prefix / "pyvenv.cfg").touch()
    assert lines(prefix)[0] == str(python)


def test_elsewhere_runs_the_one_that_the_installer_wrote(prefix: Path) -> None:
    """A python3 that happens to be in /usr/local/bin too is not the one that has the package."""
    add_interpreter(prefix / "bin" / "python3")
    named = add_interpreter(prefix / "else where" / "python3")
    name_interpreter(prefix, named)
    assert lines(prefix)[0] == str(named)


@pytest.mark.parametrize("named", [None, "/gone/python3", "python", ""])
def test_moved_tree_runs_the_python_beside_it(prefix: Path, named: str | None) -> None:
    """Where the named interpreter is gone, or none was written, the one beside the stub is run."""
    python = add_interpreter(prefix / "bin" / "python3")
    if named is not None:
        name_interpreter(prefix, named)
    assert lines(prefix)[0] == str(python)


def test_venv_without_python3_runs_the_named_one(prefix: Path) -> None:
    """A virtual environment that lost its python3 still has the name of one."""
    named = add_interpreter(prefix / "elsewhere" / "python3")
    name_interpreter(prefix, named)
    (prefix / "pyvenv.cfg").touch()
    assert lines(prefix)[0] == str(named)


def test_symlinks_lead_to_the_installation(prefix: Path, tmp_path: Path) -> None:
    """A link to a link to the stub, one of them relative, runs what is beside the stub itself."""
    python = add_interpreter(prefix / "bin" / "python3")
    far = tmp_path / "far" / "bin"
    far.mkdir(parents=True)
    (far / "second").symlink_to(os.path.relpath(prefix / "bin" / "rtlaunch", far))
    (far / "rtlaunch").symlink_to(far / "second")
    done = subprocess.run(
        ["rtlaunch"], env={"PATH": str(far)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == str(python)


# ---- the package ----


@pytest.mark.parametrize(
    "libraries", ["lib/{}/site-packages", "lib/{}/dist-packages", "lib64/{}/site-packages"]
)
def test_package_of_that_interpreter_is_run_by_path(prefix: Path, libraries: str) -> None:
    """The interpreter's real name, found through links, picks one of several python3.N folders."""
    real = add_interpreter(prefix / "opt" / "python3.12")
    (prefix / "bin" / "python").symlink_to(real)
    (prefix / "bin" / "python3").symlink_to("python")
    for version in ("python3.1", "python3.11", "python3.13"):
        add_package(prefix, libraries.format(version))
    main = add_package(prefix, libraries.format("python3.12"))
    python = str(prefix / "bin" / "python3")
    assert lines(prefix, "x") == [python, "-I", "-X", TOLD, "-S", str(main), "x"]


@pytest.mark.parametrize("name", ["python3", "python3.12"])
def test_without_the_package_the_interpreter_looks_for_it(prefix: Path, name: str) -> None:
    """An editable install, or an interpreter whose name tells no version: -m rtlaunch."""
    (prefix / "bin" / "python3").symlink_to(add_interpreter(prefix / "opt" / name))
    add_package(prefix, "lib/python3.11/site-packages")
    assert lines(prefix, "x")[1:] == ["-I", "-X", TOLD, "-m", "rtlaunch", "x"]


# ---- what is handed on ----


def test_arguments_are_handed_on_as_they_are(prefix: Path) -> None:
    """Empty words, spaces, quotes and bytes that are no UTF-8 reach the interpreter."""
    add_interpreter(prefix / "bin" / "python3")
    words = [b"", b"a b", b"'\"$x*", b"\xff\xfe", b"--", b"-x"]
    done = subprocess.run(
        [os.fsencode(prefix / "bin" / "rtlaunch"), *words], capture_output=True, check=True
    )
    assert done.stdout.split(b"\n")[OWN:-1] == words


def test_many_arguments_are_handed_on(prefix: Path) -> None:
    """Twenty thousand arguments are no more trouble than one."""
    add_interpreter(prefix / "bin" / "python3")
    assert lines(prefix, *["word"] * 20_000)[OWN:] == ["word"] * 20_000


def test_no_argument_is_none(prefix: Path) -> None:
    """The bare command hands on nothing of its own but what finds the package."""
    add_interpreter(prefix / "bin" / "python3")
    assert lines(prefix)[1:] == ["-I", "-X", TOLD, "-m", "rtlaunch"]


def test_environment_is_handed_on_as_it_is(prefix: Path) -> None:
    """Not a variable is added, removed or moved."""
    add_interpreter(prefix / "bin" / "python3").write_text("#!/bin/sh\n/bin/cat /proc/$$/environ\n")
    given = {"PYTHONHOME": "/nowhere", "B": "", "A": "x y", "PYTHONPATH": ":"}
    stub = str(prefix / "bin" / "rtlaunch")
    done = subprocess.run([stub], env=given, capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{name}={value}\0" for name, value in given.items())


def test_no_descriptor_is_left_open(prefix: Path) -> None:
    """What the stub opened to find its way is closed again, with standard input closed too."""
    python = add_interpreter(prefix / "bin" / "python3")
    python.write_text('#!/bin/sh\ncd /proc/$$/fd && for fd in *; do printf "%s " "$fd"; done\n')
    name_interpreter(prefix, "/gone")
    script = f'exec "{prefix / "bin" / "rtlaunch"}" <&-'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    # 0 is free, and so the folder's that the shell reads; it would be 3 had the stub kept 0
    assert [fd for fd in done.stdout.split() if int(fd) < SHELLS_OWN] == ["0", "1", "2"]


@pytest.mark.parametrize("machine", ["aarch64"], indirect=True)
def test_stub_works_on_aarch64(any_stub: Path, own_machine: str, prefix: Path) -> None:
    """On the other machine too it finds interpreter and package, and hands the arguments on."""
    python = add_interpreter(prefix / "bin" / "python3.12")
    (prefix / "bin" / "python3").symlink_to(python)
    main = add_package(prefix, "lib/python3.12/site-packages")
    shutil.copy2(any_stub, prefix / "bin" / "rtlaunch")
    words = [str(prefix / "bin" / "rtlaunch"), "a b"]
    if own_machine != "aarch64":
        if not shutil.which("qemu-aarch64"):
            skip("no-qemu-user")
        words.insert(0, "qemu-aarch64")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["-I", "-X", TOLD, "-S", str(main), "a b"]


# ---- what the interpreter is told ----


@pytest.mark.parametrize(
    ("ignored", "mask"),
    [("PIPE", 1 << 12), ("XFSZ", 1 << 24), ("PIPE XFSZ", 1 << 12 | 1 << 24), ("HUP", 0)],
)
def test_signals_that_python_ignores_by_itself_are_told(
    prefix: Path, ignored: str, mask: int
) -> None:
    """Python ignores SIGPIPE and SIGXFSZ at its start: what they were before is handed on."""
    add_interpreter(prefix / "bin" / "python3")
    script = f"trap '' {ignored}; exec \"$0\""
    words = ["sh", "-c", script, str(prefix / "bin" / "rtlaunch")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[3] == f"rtlaunch={mask:x}:0:2"


def test_child_that_opens_the_first_event_is_told(prefix: Path) -> None:
    """With a command to launch a child is under way, and its pid is handed on to be reaped."""
    python = add_interpreter(prefix / "bin" / "python3")
    python.write_text("#!/bin/sh\nread -r children </proc/$$/task/$$/children\necho $3 $children\n")
    told, *children = lines(prefix, "--", "true")[0].split()
    assert children == [told.split(":")[1]]


@pytest.mark.parametrize(("blocked", "held"), [([], 2), ([signal.SIGINT], 0)])
def test_interrupts_are_held_back_while_the_interpreter_starts(
    prefix: Path, blocked: list[signal.Signals], held: int
) -> None:
    """SIGINT is blocked, and nothing else; whether it was so before is told."""
    python = add_interpreter(prefix / "bin" / "python3")
    say = "import sys; print(sys.argv[3], *open('/proc/self/status'), sep='\\n')"
    python.write_text(f"#!{sys.executable}\n{say}\n")  # no shell: that would clear its mask
    done = subprocess.run(
        [str(prefix / "bin" / "rtlaunch")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked),
    )
    told, *status = done.stdout.splitlines()
    assert told == f"rtlaunch=0:0:{held}"
    (mask,) = (line.split()[1] for line in status if line.startswith("SigBlk:"))
    assert int(mask, 16) == 1 << signal.SIGINT - 1


# ---- refusals ----


def test_no_interpreter_is_refused_with_the_place(prefix: Path) -> None:
    """Nothing to run: one line that says where it was looked for, and 125."""
    said = refusal(prefix / "bin" / "rtlaunch")
    assert "[launch-failed]" in said and str(prefix / "bin") in said


def test_arguments_too_large_for_the_interpreter_are_named(prefix: Path) -> None:
    """What the stub itself could just be given, and its interpreter's longer line cannot."""
    add_interpreter(prefix / "bin" / "python3")
    stub, least = prefix / "bin" / "rtlaunch", 128 << 10  # a quarter of the stack, in bytes
    said = b""
    for size in range(least // 2 - 1024, least, 16):
        try:
            ran = subprocess.run(
                [stub], env={"A": "x" * (least // 2), "B": "x" * size}, capture_output=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (4 * least,) * 2),
                check=False, timeout=10,
            )  # fmt: skip
        except OSError as error:
            assert error.errno == errno.E2BIG
            break
        said = ran.stderr
    assert b"arguments and environment are too large, errno 7" in said


def test_interpreter_that_cannot_be_executed_is_refused_with_the_errno(prefix: Path) -> None:
    """What execve(2) said is in the line, with the interpreter's path."""
    python = add_interpreter(prefix / "bin" / "python3")
    python.write_bytes(b"\x7fELF" + b"\0" * 60)
    said = refusal(prefix / "bin" / "rtlaunch")
    assert f"{python} cannot be executed: errno 8" in said


def test_without_proc_it_is_refused_by_name(prefix: Path) -> None:
    """Where /proc is not mounted the stub says just that."""
    if os.geteuid() != 0:
        skip("not-root")
    add_interpreter(prefix / "bin" / "python3")
    said = refusal("chroot", prefix, "/bin/rtlaunch")
    assert "[proc-missing]" in said and "mount -t proc" in said
