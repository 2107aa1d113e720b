"""Real files and their labels: what we say of each, and what the kernel does."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rtlaunch.core.target import Reach, judge
from rtlaunch.engine.classify import classify
from tests.kernel.differential import refusal
from tests.kernel.execve import NOBODY, become_user, in_child, offer
from tests.kernel.programs import HOST, PROGRAM, credentials, need_root, script, write
from tests.skips import skip

if TYPE_CHECKING:
    from rtlaunch.core.target import Target

LABELS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("labels.toml").read_text()
)
SOURCES = {
    "hosted": PROGRAM,
    "bare": "void _start(void) { for (;;) { } }\n",
    "library": "int one(void) { return 1; }\n",
    "go": 'package main\n\nfunc main() { println("hello") }\n',
    "cgo": 'package main\n\nimport "C"\n\nfunc main() { println("hello") }\n',
}
ABSENT = {"musl-gcc": "no-musl", "aarch64-linux-gnu-gcc": "no-cross-compiler", "go": "no-go"}
SECURE = {"target-setuid", "target-file-caps"}
REACH = Reach("x86_64", frozenset(("x86_64", "i386")), reads_any=False)
NET_RAW, EFFECTIVE = 1 << 13, 1


@pytest.fixture(scope="module", autouse=True)
def _here() -> None:
    need_root()
    if HOST != "x86_64":
        skip("not-x86")


def made(name: str, room: Path) -> Path:
    """Return the file of a label; each is made once for all that are made of it."""
    label, file = LABELS[name], room / name
    if file.exists():
        return file
    if "path" in label:
        return found(label["path"])
    if "text" in label:
        return write(file, label["text"], label.get("mode", 0o755))
    return derived(label, file, room) if "of" in label else built(label, file)


def found(path: str) -> Path:
    if not os.path.exists(path):
        skip("no-such-program")
    return Path(path)


def derived(label: dict[str, Any], file: Path, room: Path) -> Path:
    original = made(label["of"], room)
    if label.get("as") == "interpreter":
        folder = room / f"{file.name}.d"
        folder.mkdir(exist_ok=True)
        return script(folder, original)
    write(file, cut(original.read_bytes(), label), label.get("mode", 0o755))
    if "caps" in label:
        flags = EFFECTIVE if label["caps"] == "effective" else 0
        packed = struct.pack("<5I", 0x02000000 | flags, NET_RAW, 0, 0, 0)
        os.setxattr(file, "security.capability", packed)
    return file


def cut(image: bytes, label: dict[str, Any]) -> bytes:
    """Return as much of a file as its label leaves."""
    if "until" in label:
        text = label["until"].encode()
        return image[: image.index(text) + len(text)]
    return image[: label.get("bytes")]


def built(label: dict[str, Any], file: Path) -> Path:
    compiler, *flags = label["build"].split()
    if not shutil.which(compiler):
        skip(ABSENT[compiler])
    source = SOURCES[label.get("source", "hosted")]
    if compiler == "go":
        build_go(flags, source, file)
    else:
        command = [compiler, "-x", "c", "-", *flags, "-o", str(file)]
        tried = subprocess.run(command, input=source.encode(), check=False, capture_output=True)
        if tried.returncode and {"-m32", "-mx32"} & set(flags):
            skip("no-32-bit")
        assert tried.returncode == 0, tried.stderr
    file.chmod(0o755)
    return file


def build_go(flags: list[str], source: str, file: Path) -> None:
    variable, *options = flags
    text = file.with_name(f"{file.name}.go")
    text.write_text(source)
    environ = os.environ | dict([variable.split("=")])
    subprocess.run(["go", "build", *options, "-o", str(file), str(text)], env=environ, check=True)


def nobody() -> None:
    become_user(NOBODY)


def said(file: Path) -> tuple[Target, list[str]]:
    """Return what we say of a file, and the codes that it meets, as an unprivileged user."""

    def look() -> tuple[Target, list[str]]:
        nobody()
        target = classify((str(file),), None)
        return target, [finding.code for finding in judge(target, credentials(), REACH)]

    target, codes = in_child(look)
    return target, codes


def described(target: Target) -> str:
    """Describe a target in the words of the labels."""
    words = [image.kind for image in target.images]
    elf = target.images[-1].elf if target.images else None
    return " ".join([*words, elf.machine, elf.linkage] if elf else words)


@pytest.mark.parametrize("name", LABELS)
def test_a_file_is_what_its_label_says(name: str, room: Path) -> None:
    """By its headers and rights alone; and execve agrees in errno, program and AT_SECURE."""
    label, file = LABELS[name], made(name, room)
    target, codes = said(file)
    expected = getattr(errno, label.get("errno", ""), 0)
    if "is" in label:
        assert (described(target), codes) == (label["is"], label.get("codes", []))
    assert refusal(target) == expected

    verdict = offer([str(file)], str(file), nobody)
    if verdict.errno:
        assert errno.errorcode[verdict.errno] == label.get("errno", label.get("left"))
    else:
        assert (expected, verdict.killed != 0) == (0, label.get("killed", False))
    if verdict.program:
        assert verdict.program == os.path.realpath(target.images[-1].path)
        assert verdict.secure == bool(SECURE & set(codes))


def test_the_table_is_worth_its_name() -> None:
    """More than 40 real programs and scripts, of every linkage that there is."""
    real = [label for label in LABELS.values() if "is" in label]
    linkages = {label["is"].split()[-1] for label in real}
    assert len(real) > 40
    assert linkages == {"dynamic", "static", "static-pie", "loader", "unreadable"}
