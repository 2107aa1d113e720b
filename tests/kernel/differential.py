"""Our classifier against execve, over files made at random: `make differential`, COUNT=N.

Each batch of files is judged by :func:`rtlaunch.engine.classify.classify` and offered to the kernel
by exec_many.c. They differ where we refuse what it accepts, accept what it refuses, name another
errno, or see another program, class or loader. A file is made again from the seed and its number.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from errno import ENOEXEC, errorcode
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rtlaunch.core.target import TEXT
from rtlaunch.engine.classify import classify
from tests import host
from tests.kernel.execve import offer, open_directory
from tests.kernel.generated import Furniture, furnish, generate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtlaunch.core.target import Target

BATCH = 2000
VERDICT = struct.Struct("=iIQQQ")
MILLION = 1_000_000
SHOWN = 20


class Accepted(NamedTuple):
    """The program that execve ended in."""

    file: tuple[int, int]
    word_bytes: int
    has_loader: bool


class Difference(NamedTuple):
    """A file that is judged otherwise by us than by the kernel."""

    number: int
    ours: str
    kernels: str

    def __str__(self) -> str:
        return f"file {self.number}: rtlaunch says {self.ours}, the kernel {self.kernels}"


class Judged(NamedTuple):
    """Where both differ, and how often the kernel said what."""

    differing: list[Difference]
    kinds: Counter[str]


class Room(NamedTuple):
    """Where files are made and tried."""

    folder: Path
    furniture: Furniture
    tool: Path
    x32: bool


def open_room(folder: Path) -> Room:
    """Furnish an empty folder and compile exec_many into it."""
    tool = host.compile_c(Path(__file__).with_name("exec_many.c"), folder / "exec_many", "-static")
    furniture = furnish(folder)
    return Room(folder, furniture, tool, _runs_x32(folder))


def _runs_x32(folder: Path) -> bool:
    """Ask the kernel whether it runs x32 programs: few do, and no file says so."""
    header = b"\x7fELF\1\1\1" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 62, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    file = folder / "x32"
    file.write_bytes(header + struct.pack("<8I", 1, 0, 0x400000, 0x400000, 84, 84, 5, 4096))
    file.chmod(0o755)
    return offer([str(file)], str(file)).errno != ENOEXEC


def differences(room: Room, seed: int, first: int, count: int) -> Judged:
    """Make ``count`` files and have both judge them."""
    for index in range(count):
        made = generate(seed, first + index, room.furniture)
        path = room.folder / str(index)
        path.write_bytes(made.content)
        os.chmod(path, made.mode)
    return judge(room, first, count)


def judge(room: Room, first: int, count: int) -> Judged:
    """Return where both differ on the files 0, 1, ... of the room, numbered from ``first``."""
    told = subprocess.run(
        [room.tool, str(count)], cwd=room.folder, stdout=subprocess.PIPE, check=True
    ).stdout
    found, kinds = [], Counter[str]()
    before = Path.cwd()
    os.chdir(room.folder)
    try:
        for index, raw in enumerate(VERDICT.iter_unpack(told)):
            kinds[named(raw[0])] += 1
            found += compare(first + index, classify((f"./{index}",), None), raw, room)
    finally:
        os.chdir(before)
    return Judged(found, kinds)


def compare(
    number: int, target: Target, raw: tuple[int, int, int, int, int], room: Room
) -> Iterator[Difference]:
    """Compare what we say of one file with what the kernel did."""
    said, did = refusal(target), raw[0]
    if did == ENOEXEC and unsupported(target, room):
        return
    if said != max(did, 0):
        yield Difference(number, f"{named(said)} ({why(target)})", named(did))
    elif did == 0:
        ours, theirs = program(target), Accepted((raw[3], raw[4]), raw[1], raw[2] != 0)
        # a loader may be mapped at address 0, which root is allowed
        if ours != theirs and (ours != theirs._replace(has_loader=True)):
            yield Difference(number, str(ours), str(theirs))


def refusal(target: Target) -> int:
    """Return the errno that we expect of execve, 0 for none; a text is for execvp(3) alone."""
    if target.images and target.images[0].kind == TEXT:
        return ENOEXEC
    return target.broken.errno if target.broken else 0


def unsupported(target: Target, room: Room) -> bool:
    """Tell whether x32 is what the chain comes to, which this kernel is not built for.

    No file says what a kernel is built for: that is left to execve.
    """
    broken = target.broken
    paths = [image.path for image in target.images[-1:]]
    paths += [broken.through or broken.path] if broken else []
    return not room.x32 and any(is_x32(path) for path in paths)


def is_x32(path: str) -> bool:
    """Tell x32's layout in x86_64's name, as the kernel does: by the size of a program header."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).ljust(64, b"\0")
    except OSError:
        return False
    return head[:5] == b"\x7fELF\1" and head[18:20] == b"\x3e\0" and head[42:44] == b"\x20\0"


def program(target: Target) -> Accepted:
    image = target.images[-1]
    assert image.elf is not None
    found = os.stat(image.path)
    return Accepted((found.st_dev, found.st_ino), image.elf.cls // 8, image.elf.interp is not None)


def why(target: Target) -> str:
    return f"{target.broken.path} {target.broken.what}" if target.broken else "it would run"


def named(number: int) -> str:
    if number > 0:
        return errorcode[number]
    return f"signal {-number}" if number else "accepted"


# --- the long form -------------------------------------------------------------------------------


def judge_range(seed: int, first: int, count: int) -> Judged:
    """Judge a range of files in a room of its own, batch by batch."""
    whole = Judged([], Counter())
    with open_directory() as folder:
        room = open_room(folder)
        for start in range(first, first + count, BATCH):
            part = differences(room, seed, start, min(BATCH, first + count - start))
            whole.differing.extend(part.differing)
            whole.kinds.update(part.kinds)
    return whole


def main(count: int, seed: int) -> int:
    """Judge ``count`` files on all CPUs; print what differs, and what the kernel said."""
    print(f"{count} files of seed {seed}", flush=True)
    began, cpus = time.monotonic(), len(os.sched_getaffinity(0))
    share = -(-count // cpus)
    parts = [(seed, first, min(share, count - first)) for first in range(0, count, share)]
    with ProcessPoolExecutor(cpus) as pool:
        results = list(pool.map(judge_range, *zip(*parts, strict=True)))
    found = [one for result in results for one in result.differing]
    kinds = sum((result.kinds for result in results), Counter[str]())
    print(*found[:SHOWN], sep="\n")
    print(*(f"{number:9,} {name}" for name, number in kinds.most_common()), sep="\n")
    print(f"{len(found)} differences in {count:,} files, {time.monotonic() - began:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(
        main(*words) if len(words) > 1 else main(*(words or [MILLION]), random.getrandbits(32))
    )
