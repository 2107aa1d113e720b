"""protocol.h and core/protocol.py are one contract: compiler and Python must say the same."""

from __future__ import annotations

import re
import subprocess

import pytest

from rtlaunch.core import protocol
from tests.native.conftest import ROOT

HEADER = ROOT / "rtlaunch" / "native" / "protocol.h"
TEXT = HEADER.read_text(encoding="utf-8")
DEFINED = re.findall(r"^#define (RTL_\w+) ", TEXT, re.MULTILINE)
KINDS = re.findall(r"^    (RTL_\w+) = ", TEXT, re.MULTILINE)
TEXTS = re.findall(r'^#define (RTL_\w+) "', TEXT, re.MULTILINE)
FIELDS = re.findall(r"^    u?int\d+_t (\w+);", TEXT, re.MULTILINE)

# a value for each field that no other field, and no other width, could be mistaken for
VALUES = {
    "protocol": protocol.PROTOCOL,
    "kind": protocol.RECORD,
    "flags": 0x89ABCDEF,
    "error": -5,
    "time_ns": 0x1111111122222222,
    "stack_low": 0x7FFF333344445555,
    "stack_bytes": 0xF666666677777777,
    "lock_ns": 0x8888888899999999,
    "stack_limit": 0xAAAAAAAABBBBBBBB,
}


@pytest.fixture(scope="module")
def told_by_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each constant's value, and the bytes of one message, as the compiler has them."""
    folder = tmp_path_factory.mktemp("protocol")
    numbers = [name for name in DEFINED + KINDS if name not in TEXTS]
    lines = [f'printf("{name} %ld\\n", (long){name});' for name in numbers]
    texts = [f'printf("{name} %s\\n", {name});' for name in TEXTS]
    fields = ", ".join(f".{name} = {VALUES[name]:#x}" for name in FIELDS if name != "error")
    source = f"""
        #include <stdio.h>
        #include "{HEADER}"
        int main(void)
        {{
            struct rtl_message message = {{{fields}, .error = {VALUES["error"]}}};
            {" ".join(lines)}
            {" ".join(texts)}
            printf("bytes ");
            for (unsigned i = 0; i < sizeof message; i++)
                printf("%02x", ((unsigned char *)&message)[i]);
            printf("\\n");
            return 0;
        }}"""
    (folder / "tell.c").write_text(source, encoding="utf-8")
    program = folder / "tell"
    subprocess.run(["cc", "-o", str(program), str(folder / "tell.c")], check=True)
    done = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", DEFINED + KINDS)
def test_constant_is_the_same_on_both_sides(name: str, told_by_c: dict[str, str]) -> None:
    """Each constant of the header has a twin of the same value in Python."""
    assert told_by_c[name] == str(getattr(protocol, name.removeprefix("RTL_")))


def test_python_has_no_constant_of_its_own() -> None:
    """What Python defines is in the header too, so that neither side can assume alone."""
    own = {name for name in vars(protocol) if name.isupper() and not name.startswith("_")}
    twins = {name.removeprefix("RTL_") for name in DEFINED + KINDS}
    assert own - twins == {"TYPE_CHECKING", "KIND_NAMES", "MESSAGE_BYTES"} & own


def test_message_has_the_same_bytes_on_both_sides(told_by_c: dict[str, str]) -> None:
    """Order, width and sign of each field are the same: one message, byte for byte."""
    fields = {name: VALUES[name] for name in FIELDS if name != "protocol"}
    assert protocol.pack(protocol.Message(**fields)).hex() == told_by_c["bytes"]


def test_each_kind_has_a_name() -> None:
    """What unpack accepts as a kind is what the header lists."""
    assert {f"RTL_{name.upper()}" for name in protocol.KIND_NAMES.values()} == set(KINDS)


def test_unpack_gives_what_was_packed() -> None:
    """A message that went through bytes is the message."""
    fields = {name: VALUES[name] for name in FIELDS if name != "protocol"}
    message = protocol.Message(**fields)
    assert protocol.unpack(protocol.pack(message)) == message


@pytest.mark.parametrize(
    ("datagram", "named"),
    [
        (b"", "this one has 0"),
        (protocol.pack(protocol.Message(protocol.GO))[:-1], "this one has 55"),
        (protocol.pack(protocol.Message(protocol.GO)) + b"\0", "this one has 57"),
        (b"\2\0\0\0" + protocol.pack(protocol.Message(protocol.GO))[4:], "protocol 2"),
        (protocol.pack(protocol.Message(99)), "kind 99"),
    ],
)
def test_what_is_no_message_is_refused_by_name(datagram: bytes, named: str) -> None:
    """Bytes that are no message of this protocol are a ValueError with the wrong number."""
    with pytest.raises(ValueError, match=named):
        protocol.unpack(datagram)


def test_channel_variable_is_four_hexadecimal_numbers() -> None:
    """The shim reads lower-case hexadecimal, FD:DEV:INO:PID."""
    assert protocol.channel_variable(600, 9, 0xABCDEF, 4711) == "258:9:abcdef:1267"
