"""A seccomp filter that answers one system call, for the rest of a process's life (seccomp(2))."""

from __future__ import annotations

import ctypes
import struct

from tests.kernel.execve import call, set_no_new_privs

EPERM_ANSWER = 0x00050000 | 1  # SECCOMP_RET_ERRNO
DEATH = 0x80000000  # SECCOMP_RET_KILL_PROCESS: SIGSYS
_ALLOW = 0x7FFF0000
_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16  # in struct seccomp_data; the low word of the argument
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def answer(number: int, action: int) -> None:
    """Let the system call ``number`` be answered by ``action`` from now on, in this process."""
    install(
        (_LOAD_WORD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, action),
        (_RETURN, 0, 0, _ALLOW),
    )


def answer_with_bit(number: int, bit: int, action: int) -> None:
    """The same where ``bit`` is set in the call's first argument (its low word), and only there."""
    install(
        (_LOAD_WORD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 3, number),
        (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_SET, 0, 1, bit),
        (_RETURN, 0, 0, action),
        (_RETURN, 0, 0, _ALLOW),
    )


def install(*rows: tuple[int, int, int, int]) -> None:
    """Install the filter of these instructions on this process."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
    program = struct.pack("@HP", len(rows), ctypes.addressof(code))
    set_no_new_privs()
    call("prctl", _PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(program), 0, 0)
