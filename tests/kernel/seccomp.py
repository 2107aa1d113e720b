"""A seccomp filter that answers one system call, for the rest of a process's life (seccomp(2))."""

from __future__ import annotations

import ctypes
import struct

from tests.kernel.execve import call, set_no_new_privs

EPERM_ANSWER = 0x00050000 | 1  # SECCOMP_RET_ERRNO
DEATH = 0x80000000  # SECCOMP_RET_KILL_PROCESS: SIGSYS
_ALLOW = 0x7FFF0000
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def answer(number: int, action: int) -> None:
    """Let the system call ``number`` be answered by ``action`` from now on, in this process."""
    rows = (
        (_LOAD_NUMBER, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, action),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
    program = struct.pack("@HP", len(rows), ctypes.addressof(code))
    set_no_new_privs()
    call("prctl", _PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(program), 0, 0)
