"""What stands against a command is found from values alone, and said with them."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.binfmt import find_handler
from rtlaunch.core.broken import broken_finding, errno_finding, looking_up
from rtlaunch.core.caps import CapSets, Credentials
from rtlaunch.core.elf import Elf
from rtlaunch.core.findings import CODES
from rtlaunch.core.record import replace
from rtlaunch.core.target import (
    EXECUTE,
    READ,
    Broken,
    FileCaps,
    Image,
    Reach,
    Target,
    User,
    candidates,
    is_text,
    judge,
    may,
    parse_file_caps,
)

ALL = (1 << 41) - 1
ROOT = Credentials(0, 0, 0, 0, (0,), CapSets(0, ALL, ALL, ALL, 0), 0, False, True)
USER = Credentials(1000, 1000, 1000, 1000, (1000,), CapSets(0, 0, 0, ALL, 0), 0, False, True)
REACH = Reach("x86_64", frozenset(("x86_64",)), reads_any=False)
PROGRAM_ELF = Elf(
    64, "x86_64", "little", "DYN", b"/lib64/ld-linux-x86-64.so.2", "dynamic", 0, 40960, False
)
PROGRAM = Image("/bin/app", "elf", 0o100755, 0, 0, elf=PROGRAM_ELF, interpreter="/lib/ld.so")
NET_RAW = 1 << 13


def target(*images: Image, broken: Broken | None = None) -> Target:
    return Target("app", images[0].path if images else "app", ("app",), images, broken)


def codes(image: Image, who: Credentials = USER, reach: Reach = REACH) -> list[str]:
    return [finding.code for finding in judge(target(image), who, reach)]


def with_elf(**changes: object) -> Image:
    return replace(PROGRAM, elf=replace(PROGRAM_ELF, **changes))


# --- judging ---------------------------------------------------------------------------------


def test_an_ordinary_program_has_nothing_against_it() -> None:
    """A dynamic program of the host's own machine, readable and without privileges."""
    assert codes(PROGRAM) == []


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (with_elf(linkage="static"), "target-static"),
        (with_elf(linkage="static-pie"), "target-static"),
        (with_elf(machine="i386", cls=32), "target-class"),
        (with_elf(machine="x32", cls=32), "target-class"),
        (with_elf(machine="aarch64"), "target-machine"),
        (replace(PROGRAM, mode=0o104755), "target-setuid"),
        (replace(PROGRAM, mode=0o102755), "target-setuid"),
        (replace(PROGRAM, file_caps=FileCaps(NET_RAW, 0, True)), "target-file-caps"),
        (replace(PROGRAM, readable=False), "target-unreadable"),
        (replace(PROGRAM, kind="unreadable", elf=None, readable=False), "target-unreadable"),
    ],
)
def test_what_a_preload_cannot_reach_has_a_name(image: Image, code: str) -> None:
    """Each of them is one finding, which refuses with 125 and can be allowed."""
    (finding,) = judge(target(image), USER, REACH)
    assert (finding.code, finding.exit_code, finding.waivable) == (code, 125, True)
    assert image.path in finding.what
    assert finding.values["path"] == image.path


def test_several_reasons_are_all_given() -> None:
    """A static set-uid program: both reasons, so that neither comes as a surprise later."""
    image = replace(with_elf(linkage="static"), mode=0o104755)
    assert codes(image) == ["target-static", "target-setuid"]


def test_a_shim_for_the_machine_is_enough() -> None:
    """With an i386 shim installed, a 32-bit program is no matter."""
    reach = replace(REACH, shims=frozenset(("x86_64", "i386")))
    assert codes(with_elf(machine="i386", cls=32), reach=reach) == []


def test_a_host_without_any_shim_is_not_the_targets_fault() -> None:
    """That is shim-missing, which is not judged here."""
    assert codes(PROGRAM, reach=replace(REACH, shims=frozenset())) == []


def test_an_emulated_program_is_refused_once() -> None:
    """The foreign file is named, not the emulator, though that be static as well."""
    guest = replace(with_elf(machine="arm"), kind="handled", handler="qemu-arm")
    found = judge(target(guest, with_elf(linkage="static")), USER, REACH)
    assert [finding.code for finding in found] == ["target-machine"]
    assert "qemu-arm" in found[0].what


@pytest.mark.parametrize(
    ("image", "who"),
    [
        (replace(PROGRAM, mode=0o104755), ROOT),
        (replace(PROGRAM, mode=0o104755, uid=1000), USER),
        (replace(PROGRAM, mode=0o104755, nosuid=True), USER),
        (replace(PROGRAM, mode=0o104755), replace(USER, no_new_privs=True)),
        (replace(PROGRAM, mode=0o102745), USER),
        (replace(PROGRAM, file_caps=FileCaps(NET_RAW, 0, True)), ROOT),
        (replace(PROGRAM, file_caps=FileCaps(NET_RAW, 0, True), nosuid=True), USER),
        (replace(PROGRAM, file_caps=FileCaps(0, NET_RAW, False)), USER),
        (
            replace(PROGRAM, file_caps=FileCaps(NET_RAW, 0, False)),
            replace(USER, no_new_privs=True),
        ),
    ],
)
def test_privileges_that_change_nothing_are_no_reason(image: Image, who: Credentials) -> None:
    """Owned by ourselves, nosuid, no_new_privs, or run by root: the loader keeps LD_PRELOAD."""
    assert codes(image, who) == []


def test_capabilities_outside_the_bounding_set_cannot_be_executed() -> None:
    """EPERM is foreseen, for root too, with the capabilities that lack."""
    image = replace(PROGRAM, file_caps=FileCaps(NET_RAW, 0, True))
    who = replace(ROOT, caps=replace(ROOT.caps, bounding=ALL & ~NET_RAW))
    (finding,) = judge(target(image), who, REACH)
    assert (finding.code, finding.values["lacking"]) == ("command-not-executable", "0x2000")


def test_who_may_trace_reads_everything() -> None:
    """CAP_SYS_PTRACE opens the books of an undumpable process."""
    assert codes(replace(PROGRAM, readable=False), reach=replace(REACH, reads_any=True)) == []


# --- what cannot run -------------------------------------------------------------------------


def test_a_broken_chain_is_the_only_finding() -> None:
    """A program that does not run has no linkage to complain of."""
    broken = Broken(errno.ENOENT, "/lib/ld-musl.so", "lookup", "does not exist", through="/bin/app")
    (finding,) = judge(target(with_elf(linkage="static"), broken=broken), USER, REACH)
    assert (finding.code, finding.exit_code) == ("command-bad-interpreter", 126)
    assert finding.what == "/bin/app names the interpreter /lib/ld-musl.so, which does not exist"
    assert finding.values["path"] == "/bin/app"
    assert finding.values["interpreter"] == "/lib/ld-musl.so"


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (errno.ENOENT, "command-not-found", 127),
        (errno.ENOTDIR, "command-not-found", 127),
        (errno.EACCES, "command-not-executable", 126),
        (errno.ELOOP, "command-not-executable", 126),
        (errno.ENAMETOOLONG, "command-not-executable", 126),
        (errno.ESTALE, "command-not-executable", 126),
    ],
)
def test_an_errno_of_the_look_up_has_its_code(error: int, code: str, exit_code: int) -> None:
    """127 for what is not there, 126 for what is and cannot run (the contract's exit codes)."""
    finding = broken_finding("app", looking_up(error, "/x/app"))
    assert (finding.code, finding.exit_code) == (code, exit_code)
    assert finding.what.startswith("/x/app ")
    assert finding.values["errno"] == errno.errorcode[error]


@pytest.mark.parametrize("error", [errno.ENOEXEC, errno.EIO, errno.EINVAL])
def test_a_broken_header_is_a_bad_format(error: int) -> None:
    """Whatever errno its reading ended with."""
    finding = broken_finding("app", Broken(error, "app", "e_phoff", "is a damaged ELF file"))
    assert (finding.code, finding.exit_code) == ("command-bad-format", 126)


def test_an_interpreter_with_a_stray_carriage_return_is_shown_with_it() -> None:
    """A script with Windows line ends names sh and a CR: the message must not hide that."""
    broken = replace(looking_up(errno.ENOENT, "/bin/sh\r"), through="./script")
    finding = broken_finding("./script", broken)
    assert r"'/bin/sh\r'" in finding.what
    assert "CR LF" in finding.what


@given(st.sampled_from(sorted(errno.errorcode)))
def test_every_errno_of_execve_is_a_finding(error: int) -> None:
    """Known or not: a code of the contract, with the errno's name and the file."""
    finding = errno_finding(error, "app", "/bin/app", ("/bin/app",))
    assert finding.code in CODES
    assert errno.errorcode[error] in finding.what
    assert "/bin/app" in finding.what


# --- looking up ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "search", "tried"),
    [
        ("ls", "/a:/b", ("/a/ls", "/b/ls")),
        ("ls", "/a::/b", ("/a/ls", "ls", "/b/ls")),
        ("ls", "", ("ls",)),
        ("ls", None, ("/bin/ls", "/usr/bin/ls")),
        ("./ls", "/a", ("./ls",)),
        ("d/ls", "/a", ("d/ls",)),
        ("", "/a", ("",)),
    ],
)
def test_path_is_taken_apart_as_execvp_does(
    command: str, search: str | None, tried: tuple[str, ...]
) -> None:
    """A slash ends the search before it begins; an empty element is the current directory."""
    assert candidates(command, search) == tried


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "bit", "allowed"),
    [
        (0o100, 5, (), EXECUTE, True),
        (0o077, 5, (), EXECUTE, False),
        (0o010, 9, (6,), EXECUTE, True),
        (0o701, 9, (6,), EXECUTE, False),
        (0o001, 9, (), EXECUTE, True),
        (0o004, 9, (), READ, True),
        (0o001, 0, (), EXECUTE, True),
        (0o666, 0, (), EXECUTE, False),
        (0o000, 0, (), READ, True),
        (0o040000, 0, (), EXECUTE, True),
    ],
)
def test_mode_bits_are_judged_as_the_kernel_judges_them(
    mode: int, uid: int, groups: tuple[int, ...], bit: int, allowed: bool
) -> None:
    """The first class that fits decides: owner, group, others; root but for execution."""
    assert may(User(uid, frozenset(groups)), mode, 5, 6, bit) is allowed


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"echo hello\n", True),
        (b"# caf\xe9\r\n\0", True),
        (b"\n\0\0", True),
        (b"", False),
        (b"MZ\x90\0", False),
        (b"\x1f\x8b\x08", False),
        (b"e\0c\0h\0o\0\n", False),
    ],
)
def test_only_text_is_given_to_the_shell(head: bytes, text: bool) -> None:
    """Neither an empty file nor a binary of whatever kind."""
    assert is_text(head) is text


@pytest.mark.parametrize(
    ("raw", "caps"),
    [
        (
            struct.pack("<5I", 0x02000001, 1 << 14, 0, 1 << 8, 0),
            FileCaps(1 << 14 | 1 << 40, 0, True),
        ),
        (struct.pack("<5I", 0x02000000, 0, 1 << 14, 0, 1), FileCaps(0, 1 << 14 | 1 << 32, False)),
        (struct.pack("<3I", 0x01000001, 1 << 14, 2), FileCaps(1 << 14, 2, True)),
        (struct.pack("<6I", 0x03000001, 1, 1, 1, 1, 1000), None),
        (b"", None),
        (b"\x01", None),
        (struct.pack("<4I", 0x02000001, 1, 1, 1), None),
    ],
)
def test_file_capabilities_are_decoded(raw: bytes, caps: FileCaps | None) -> None:
    """Revisions 1 and 2; another user namespace's (3) and garbage are none."""
    assert parse_file_caps(raw) == caps


# --- binfmt_misc -----------------------------------------------------------------------------

MAGIC_ENTRY = (
    "enabled\ninterpreter /usr/bin/qemu\nflags: OCF\noffset 2\nmagic aabb00\nmask fffc00\n"
)
EXTENSION_ENTRY = "enabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n"


@pytest.mark.parametrize(
    ("path", "head", "name"),
    [
        ("x", b"..\xaa\xbb\x77", "magic"),
        ("x", b"..\xaa\xb8\x77", "magic"),
        ("x", b"..\xab\xbb\x77", None),
        ("x", b"..\xaa", None),
        ("a/x.jar", b"", "extension"),
        ("x.y.jar", b"", "extension"),
        ("jar", b"", None),
        ("x.jar2", b"", None),
    ],
)
def test_a_handler_is_found_by_magic_or_extension(path: str, head: bytes, name: str | None) -> None:
    """Masked bytes at an offset of the first 256, or what follows the last dot."""
    entries = (("off", "disabled\n"), ("magic", MAGIC_ENTRY), ("extension", EXTENSION_ENTRY))
    found = find_handler(entries, path, head)
    assert (found and found.name) == name


def test_a_fixed_handler_is_known_as_one() -> None:
    """Flag F: the interpreter was opened at registration and need not be here."""
    found = find_handler((("magic", MAGIC_ENTRY),), "x", b"..\xaa\xbb\x77")
    assert found is not None
    assert (found.fixed, found.interpreter) == (True, "/usr/bin/qemu")
