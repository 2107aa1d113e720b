"""Compile rtlaunch/native when the package is built: the guests and the entry stub.

Why a hook and not an extension module: none is for Python; all are freestanding programs that
one C compiler call makes. Run as a script it compiles the guests in place, for work in a checkout.
It also packs the bytecode of what a launch imports (docs/decisions/0013).

It must not download, configure or guess anything beyond the compiler's own machine.
"""

from __future__ import annotations

import ast
import compileall
import hashlib
import importlib.util
import itertools
import marshal
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent

# CFLAGS is not read: what distributions put there (stack protector, fortify) calls a libc.
FREESTANDING = [
    "-std=c11",
    "-O2",
    "-ffreestanding",
    "-nostdlib",
    "-fno-stack-protector",
    "-fvisibility=hidden",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fno-tree-loop-distribute-patterns",  # a loop that clears memory must not become memset
    "-Wall",
    "-Wextra",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
]

# Each segment more, and RELRO, is a system call more in every child that inherits the shim.
SHIM = [
    "-shared",
    "-fPIC",
    "-Wl,-z,norelro",
    "-Wl,-z,noseparate-code",
    "-Wl,-z,defs",
    "-Wl,--hash-style=gnu",
]

# The libraries for LD_PRELOAD, named rtlaunch-NAME-MACHINE.so: source and flags of each.
GUESTS = {
    "shim": ("shim.c", SHIM),
    "heap": ("heap.c", [*SHIM, "-Wl,-z,initfirst"]),
    "standalone": ("standalone.c", SHIM),
}

# At a fixed address: without a libc nothing would relocate it.
STUB = ["-static", "-fno-pic", "-no-pie"]

# A target built with these stays as hard as it was; without the mark the loader turns them off.
MACHINES = {
    "x86_64": ["-fcf-protection=full"],
    "i386": ["-fcf-protection=full"],
    "aarch64": ["-mbranch-protection=standard"],
}

# What else a machine's kernel runs, and what makes its compiler compile for that.
COMPANIONS = {"x86_64": ("i386", "-m32")}

# In LD_PRELOAD a loader of glibc puts its own folder for $LIB, and so finds the guests of its own
# class (docs/decisions/0045). One that knows no $LIB, musl's, opens the folder of that very name;
# and "" is what a shell makes of it that is given LD_PRELOAD's value as part of a script.
# tree: {folder: machine}; in which of them a system's loaders look is seen when they are used.
TREES = {
    "split": {
        "": "x86_64",
        "$LIB": "x86_64",
        "lib64": "x86_64",
        "lib/x86_64-linux-gnu": "x86_64",
        "lib": "i386",
        "lib32": "i386",
        "lib/i386-linux-gnu": "i386",
    },
    "merged": {"": "x86_64", "$LIB": "x86_64", "lib": "x86_64", "lib32": "i386"},
}

# What a launch imports, in the order of the story: all that these need is packed, and each group is
# taken apart when its first module is wanted. What else a run may import is packed one by one.
PACKED = {
    "before the fork": [
        "rtlaunch.cli.launch",
        "rtlaunch.core.broken",  # for each folder of PATH that a command is not in
    ],
    "while the target starts": [
        "rtlaunch.engine.handshake",
        "rtlaunch.engine.sentry",
        "rtlaunch.engine.supervise",
    ],
    "while the target locks": [
        "rtlaunch.core.forwarding",
        "rtlaunch.engine.ending",
        "rtlaunch.engine.watch",
    ],
    "once the target runs": ["rtlaunch.engine.aside", "rtlaunch.engine.bell"],
    "exec mode, beside the target": ["rtlaunch.engine.detach", "rtlaunch.engine.drafts"],
    "locked from outside": ["rtlaunch.engine.tracing"],
    "what becomes another program": ["rtlaunch.engine.chain"],
    "words and values": ["rtlaunch.core.units"],
    "values that somebody gave": ["rtlaunch.core.kinds"],
    "a profile": ["rtlaunch.linux.profiles"],
}
# typer makes the help of docstrings and annotations, which a pack has none of.
NOT_PACKED = {"rtlaunch.cli.app"}
# What pip and its like turn into the interpreter's own path (binary distribution format).
INTERPRETER_SCRIPT = """\
#!python
# The line above names the interpreter that rtlaunch, beside this file, runs when it is in no venv.
raise SystemExit("rtlaunch-python names rtlaunch's interpreter; run rtlaunch")
"""


class BuildError(SystemExit):
    """A build that cannot be done, told in one line."""

    def __init__(self, what: str) -> None:
        super().__init__(f"rtlaunch: {what}")


def compiler() -> list[str]:
    """Return the C compiler as a command: $CC, else cc; BuildError where there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise BuildError(
            f"no C compiler: {command[0]} is not found; install one (Debian: apt-get install gcc"
            " libc6-dev) or name it in CC"
        )
    return command


def machine(cc: list[str]) -> str:
    """Return the machine that ``cc`` compiles for; BuildError where there is no header for it."""
    plain = without_companion(cc)  # -dumpmachine does not look at it
    told = subprocess.run([*plain, "-dumpmachine"], check=True, capture_output=True, text=True)
    name = told.stdout.partition("-")[0]
    other, flag = COMPANIONS.get(name, ("", ""))
    if flag in cc:
        name = other
    if name not in MACHINES:
        raise BuildError(
            f"{shlex.join(cc)} compiles for {name}; there is native code for {', '.join(MACHINES)}"
            f" (a port is one header: rtlaunch/native/arch_{name}.h)"
        )
    return name


def without_companion(cc: list[str]) -> list[str]:
    """Return the compiler's command as it compiles for its own machine."""
    flags = {flag for _, flag in COMPANIONS.values()}
    return [word for word in cc if word not in flags]


def kernel_headers(cc: list[str]) -> list[str]:
    """Return where a companion finds the kernel's headers, which serve both classes.

    Debian has them in the folder of the compiler's own machine alone (GCC's -print-multiarch).
    """
    plain = without_companion(cc)
    if plain == cc:
        return []
    told = subprocess.run([*plain, "-print-multiarch"], capture_output=True, text=True, check=False)
    return [f"-idirafter/usr/include/{told.stdout.strip()}"] if told.stdout.strip() else []


def compile_native(
    cc: list[str], source: str, flags: list[str], output: Path, root: Path = ROOT
) -> Path:
    """Compile ``source`` of rtlaunch/native into ``output``, whole or not at all; return it."""
    arch = machine(cc)
    native = root / "rtlaunch" / "native"
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f"{output.name}.{os.getpid()}")
    command = [*cc, *FREESTANDING, *MACHINES[arch], *flags, f'-DARCH_HEADER="arch_{arch}.h"']
    command += kernel_headers(cc)
    try:
        subprocess.run([*command, str(native / source), "-o", str(unfinished)], check=True)
    except subprocess.CalledProcessError as failed:
        unfinished.unlink(missing_ok=True)
        raise BuildError(f"{source} did not compile: {shlex.join(failed.cmd)}") from None
    return unfinished.replace(output)


def build_guests(root: Path = ROOT) -> list[Path]:
    """Compile each guest to where the package looks for it; return their paths.

    Those of a companion only where the compiler can: what they lack is said, and is no error.
    """
    cc = compiler()
    made = build_guests_by(cc, root)
    _, flag = COMPANIONS.get(machine(cc), ("", ""))
    if not flag:
        return made
    try:
        made += build_guests_by([*cc, flag], root)
    except BuildError as error:
        print(f"{error}; 32-bit programs will be locked by ptrace", file=sys.stderr)
        return made
    return made + build_trees(root)


def build_guests_by(cc: list[str], root: Path) -> list[Path]:
    """Compile each guest by this compiler."""
    native, name = root / "rtlaunch" / "native", machine(cc)
    return [
        compile_native(cc, source, flags, native / f"rtlaunch-{guest}-{name}.so", root)
        for guest, (source, flags) in GUESTS.items()
    ]


def build_trees(root: Path) -> list[Path]:
    """Copy the guests to where each loader finds its own; a wheel has no links."""
    native = root / "rtlaunch" / "native"
    made = []
    for tree, folders in TREES.items():
        for folder, name in folders.items():
            for guest in GUESTS:
                copy = native / tree / folder / f"rtlaunch-{guest}.so"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(native / f"rtlaunch-{guest}-{name}.so", copy)
                made.append(copy)
    return made


def build_scripts(root: Path = ROOT) -> dict[str, str]:
    """Make the two files that go beside python3; return path: name for hatchling."""
    stub = compile_native(compiler(), "stub.c", STUB, root / "build" / "rtlaunch", root)
    named = root / "build" / "rtlaunch-python"
    named.write_text(INTERPRETER_SCRIPT, encoding="utf-8")
    named.chmod(0o755)
    return {str(stub): stub.name, str(named): named.name}


def module_file(name: str, root: Path) -> Path | None:
    """Return the file of a module or package of ours; None where there is none of that name."""
    path = root.joinpath(*name.split("."))
    found = (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())
    return next(found, None)


def imports_of(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that are imported in ``nodes`` themselves."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def imported_by(names: list[str], root: Path) -> dict[str, Path]:
    """Return the modules of ours that importing ``names`` imports, each after what it imports.

    Not what their functions import, nor what is imported for types. By reading them: what they
    import of others is not there while the package is built.
    """
    found: dict[str, Path] = {}
    begun: set[str] = set()

    def add(name: str) -> None:
        file = module_file(name, root)
        if file is None or name in begun or name.partition(".")[0] != "rtlaunch":
            return
        begun.add(name)
        add(name.rpartition(".")[0])
        for imported in imports_of(ast.parse(file.read_bytes()).body):
            add(imported)
        found[name] = file

    for name in names:
        add(name)
    return found


class Untyped(ast.NodeTransformer):
    """Take away what is never run: imports that are for types."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Drop ``if TYPE_CHECKING``."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)


def run_from(names: list[str], root: Path) -> list[str]:
    """Return the modules of ours that running ``names`` may ever import, their functions' too."""
    found = dict.fromkeys(names)
    wanted = list(found)
    while wanted:
        file = module_file(wanted.pop(), root)
        if file is None:
            continue
        for imported in imports_of(ast.walk(Untyped().visit(ast.parse(file.read_bytes())))):
            if imported not in found and imported not in NOT_PACKED:
                found[imported] = None
                wanted.append(imported)
    return [name for name in found if module_file(name, root)]


class Lean(ast.NodeTransformer):
    """Take the annotations of functions away, a tenth of the bytecode: a launch reads none."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Strip one function, and those in it."""
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return self.generic_visit(node)


def to_be_read(root: Path) -> Iterator[dict[str, Path]]:
    """Yield the modules of a run as they are read: those of a launch by groups, others one by one.

    Some are in more than one group: there they are read with the first.
    """
    for names in PACKED.values():
        yield imported_by(names, root)
    for name in run_from(PACKED["before the fork"], root):
        yield from ({each: file} for each, file in imported_by([name], root).items())


def bytecode(name: str, file: Path, root: Path) -> tuple[str, str, CodeType]:
    """Return a module as a pack has it: name, file, code."""
    where = file.relative_to(root).as_posix()
    lean = ast.fix_missing_locations(Lean().visit(ast.parse(file.read_bytes())))
    return name, where, compile(lean, where, "exec", optimize=2)


def build_pack(root: Path = ROOT) -> Path:
    """Write the bytecode of a run's modules, for this interpreter, into one file; return it.

    Without docstrings: nobody asks a launch for help. The layout is rtlaunch.cli.Pack's: a mark, an
    index (the group of each module, the place of each group), the groups.
    """
    group_of = {"rtlaunch": -1, "rtlaunch.cli": -1}  # they read the pack
    groups: list[bytes] = []
    for modules in to_be_read(root):
        packed = [name for name in modules if name not in group_of]
        if packed:
            group_of |= dict.fromkeys(packed, len(groups))
            groups.append(marshal.dumps([bytecode(name, modules[name], root) for name in packed]))
    del group_of["rtlaunch"], group_of["rtlaunch.cli"]
    pack = root / "build" / f"launch.{sys.implementation.cache_tag}.pack"
    pack.write_bytes(laid_out(group_of, groups))
    return pack


def laid_out(group_of: dict[str, int], groups: list[bytes]) -> bytes:
    """Return the bytes of a pack; the places of groups count from its beginning."""
    body = b"".join(groups)
    mark_bytes = len(importlib.util.MAGIC_NUMBER) + 16 + 4

    def index(shift: int) -> bytes:
        starts = itertools.accumulate(map(len, groups[:-1]), initial=shift)
        return marshal.dumps((group_of, list(zip(starts, map(len, groups), strict=True))))

    size = mark_bytes + len(index(0))  # marshal writes every small int in as many bytes
    whole = index(size) + body
    digest = hashlib.blake2b(whole, digest_size=16).digest()
    return importlib.util.MAGIC_NUMBER + digest + len(index(0)).to_bytes(4, "little") + whole


class NativeBuildHook(BuildHookInterface[Any]):
    """Add the native files to a wheel, and mark the wheel as made for this machine."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before hatchling collects files; ``version`` is standard or editable."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        for guest in build_guests(root):
            build_data["artifacts"].append(f"/{guest.relative_to(root)}")
        build_data["shared_scripts"].update(build_scripts(root))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{machine(compiler())}"
        if version == "editable":
            # an installer compiles what it installs, and an editable install copies nothing
            compileall.compile_dir(root / "rtlaunch", quiet=1)
        else:
            pack = build_pack(root)
            build_data["force_include"][str(pack)] = f"rtlaunch/{pack.name}"


if __name__ == "__main__":
    print(*build_guests(), sep="\n")
    sys.exit(0)
