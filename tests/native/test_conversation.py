"""The shim in a real process, against a launcher that says each thing that a launcher can say."""

from __future__ import annotations

import array
import errno
import os
import resource
import signal
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rtlaunch.core import protocol
from rtlaunch.core.protocol import (
    DEATHSIG,
    ENTERED,
    GO,
    LOCK,
    NOTIFIED,
    NOTIFY,
    READY,
    RECORD,
    REFUSE,
    SKIP,
    STRICT,
    Message,
    channel_variable,
)
from tests.native.conftest import EMULATOR
from tests.native.fake_launcher import FakeLauncher, hear, stop_and_continue, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.native.fake_launcher import Target

CURRENT, FUTURE, ONFAULT = 1, 2, 4
BOTH = CURRENT | FUTURE
OWN_EXIT = 7  # what books.c returns from main()
STACK = 512 * 1024
PAGE = 4096

# so that RLIMIT_MEMLOCK applies, to root too; the pid stays
WITHOUT_CAPABILITY = "setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock"


def start_and_lock(
    launcher: FakeLauncher, books: Path, flags: int = BOTH, **fields: int
) -> tuple[Target, socket.socket]:
    """Start books.c and tell it to lock; return it and the end that its record will come from."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=flags, **fields)
    return target, pair


def stack_low_of(pid: int) -> int:
    """Return where the kernel has the stack of ``pid`` begin."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[stack]"):
            return int(line.partition("-")[0], 16)
    raise AssertionError(f"{pid} has no stack")


# ---- what is said, and what follows ----


def test_entered_comes_from_the_target_itself(launcher: FakeLauncher, books: Path) -> None:
    """The first word is ENTERED, with the time, from the pid that was started."""
    before = time.monotonic_ns()
    target = launcher.start(books)
    message, sender, _ = launcher.entered()
    assert (message.kind, sender) == (ENTERED, target.pid)
    assert before < message.time_ns < time.monotonic_ns()


def test_skip_runs_the_program_as_it_is(launcher: FakeLauncher, books: Path) -> None:
    """SKIP: main() runs at once, unlocked, and its exit status is its own."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    tell(pair, SKIP)
    status, said = target.end()
    assert (status, said["locked_kb"]) == (OWN_EXIT, "0")


def test_refuse_ends_with_125_and_no_word(launcher: FakeLauncher, books: Path) -> None:
    """REFUSE: main() never runs, and nothing is written; the launcher speaks."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    tell(pair, REFUSE)
    assert target.end() == (protocol.EXIT_REFUSED, {})


def test_lock_and_go_lock_the_process_before_main(launcher: FakeLauncher, books: Path) -> None:
    """LOCK, GO: main() sees the whole process locked, and the record told what it took."""
    target, pair = start_and_lock(launcher, books)
    record = hear(pair)
    tell(pair, GO)
    status, said = target.end()
    assert (record.kind, record.error) == (RECORD, 0)
    assert 0 < record.lock_ns < time.monotonic_ns() - record.time_ns + record.lock_ns
    assert status == OWN_EXIT
    assert int(said["locked_kb"]) > 0.9 * int(said["size_kb"]) > 1000


def test_main_does_not_begin_before_go(launcher: FakeLauncher, books: Path) -> None:
    """After the record the process stands still until the verdict: it sleeps, and wrote nothing."""
    target, pair = start_and_lock(launcher, books)
    hear(pair)
    stop_and_continue(target.pid)
    assert target.has_said_nothing()
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_refuse_after_the_record_ends_with_125(launcher: FakeLauncher, books: Path) -> None:
    """A launcher that is not convinced by the proof ends the program before main()."""
    target, pair = start_and_lock(launcher, books)
    hear(pair)
    tell(pair, REFUSE)
    assert target.end() == (protocol.EXIT_REFUSED, {})


def test_current_alone_does_not_lock_what_comes_later(launcher: FakeLauncher, books: Path) -> None:
    """The flags are passed on as told: without MCL_FUTURE the heap of main() is unlocked."""
    locked = []
    for flags in (CURRENT, BOTH):
        target, pair = start_and_lock(launcher, books, flags)
        hear(pair)
        tell(pair, GO)
        locked.append(int(target.end()[1]["locked_kb"]))
    assert locked[0] < locked[1]


def test_no_flags_lock_nothing_and_are_no_error(launcher: FakeLauncher, books: Path) -> None:
    """LOCK without MCL_* (lock none) still touches the stack and awaits the verdict."""
    target, pair = start_and_lock(launcher, books, STRICT, stack_bytes=STACK)
    record = hear(pair)
    tell(pair, GO)
    status, said = target.end()
    assert (record.error, status, said["locked_kb"]) == (0, OWN_EXIT, "0")
    assert record.stack_bytes >= STACK


def test_stop_and_continue_do_not_disturb_the_wait(launcher: FakeLauncher, books: Path) -> None:
    """A SIGSTOP and SIGCONT while it waits change nothing."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    stop_and_continue(target.pid)
    tell(pair, LOCK, flags=BOTH)
    hear(pair)
    stop_and_continue(target.pid)
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_each_image_of_one_process_asks_anew(launcher: FakeLauncher, books: Path) -> None:
    """A program that exec()s in place three times is locked three times, by the same pid."""
    target = launcher.start(books, "3")
    senders = []
    for _ in range(4):
        _, sender, pair = launcher.entered()
        tell(pair, LOCK, flags=BOTH)
        assert hear(pair).error == 0
        tell(pair, GO)
        senders.append(sender)
    status, said = target.end()
    assert (senders, status) == ([target.pid] * 4, OWN_EXIT)
    assert int(said["locked_kb"]) > 0


# ---- the stack ----


def test_stack_is_touched_as_told(launcher: FakeLauncher, books: Path) -> None:
    """The bytes that were told are resident in main(), and the record says how far it went."""
    target, pair = start_and_lock(launcher, books, BOTH, stack_bytes=STACK)
    record = hear(pair)
    tell(pair, GO)
    _, said = target.end()
    assert STACK <= record.stack_bytes < STACK + PAGE
    assert record.stack_low % PAGE == 0
    assert int(said["stack_resident_kb"]) * 1024 >= STACK


def test_nothing_below_stack_low_is_touched(launcher: FakeLauncher, books: Path) -> None:
    """The floor wins over the size: a stack limit of the target is never run into."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    floor = stack_low_of(target.pid) - STACK
    tell(pair, LOCK, flags=BOTH, stack_bytes=1 << 40, stack_low=floor)
    record = hear(pair)
    assert floor <= record.stack_low < floor + PAGE
    assert stack_low_of(target.pid) == record.stack_low
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_floor_above_the_stack_touches_nothing(launcher: FakeLauncher, books: Path) -> None:
    """A floor that leaves no room leaves the stack as it is."""
    target, pair = start_and_lock(launcher, books, BOTH, stack_bytes=STACK, stack_low=1 << 60)
    assert hear(pair).stack_bytes < PAGE
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_small_memlock_limit_is_an_errno_and_no_signal(launcher: FakeLauncher, books: Path) -> None:
    """A stack that does not fit into RLIMIT_MEMLOCK is told; growing a locked one is SIGSEGV."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    tell(pair, SKIP)
    size_kb = int(target.end()[1]["size_kb"])

    limit = f"ulimit -l {size_kb + 256};"
    target = launcher.start(books, before=limit, runner=WITHOUT_CAPABILITY)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH, stack_bytes=4 * STACK)
    record = hear(pair)
    tell(pair, GO)
    assert (record.error, target.end()[0]) == (errno.ENOMEM, OWN_EXIT)


# ---- the stack's limit ----

SMALL_STACK = "ulimit -S -s 256;"
WHOLE = 8 << 20


def stack_limit_of(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_STACK)


def test_the_soft_stack_limit_is_set_as_told(launcher: FakeLauncher, books: Path) -> None:
    """The soft limit is the one that was told, the hard one is as it was."""
    target = launcher.start(books, before=SMALL_STACK)
    _, _, pair = launcher.entered()
    began, hard = stack_limit_of(target.pid)
    tell(pair, LOCK, flags=BOTH, stack_limit=WHOLE)
    record = hear(pair)
    assert (began, record.error, stack_limit_of(target.pid)) == (256 << 10, 0, (WHOLE, hard))
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_the_stack_limit_is_set_before_the_stack_is_touched(
    launcher: FakeLauncher, books: Path
) -> None:
    """What is touched may lie below the limit that the image began with."""
    target = launcher.start(books, before=SMALL_STACK)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH, stack_limit=WHOLE, stack_bytes=2 * STACK)
    record = hear(pair)
    tell(pair, GO)
    assert (record.error, target.end()[0]) == (0, OWN_EXIT)
    assert record.stack_bytes >= 2 * STACK > 256 << 10


def test_no_stack_limit_told_leaves_it(launcher: FakeLauncher, books: Path) -> None:
    """0 is none."""
    target = launcher.start(books, before=SMALL_STACK)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH)
    hear(pair)
    assert stack_limit_of(target.pid)[0] == 256 << 10
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_all_ones_is_unlimited(launcher: FakeLauncher, books: Path) -> None:
    """RLIM64_INFINITY, where the hard limit is that as well."""
    target = launcher.start(books, before=SMALL_STACK)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH, stack_limit=2**64 - 1)
    hear(pair)
    assert stack_limit_of(target.pid)[0] == resource.RLIM_INFINITY
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_where_the_stack_limit_cannot_be_set_the_stack_is_not_touched(
    launcher: FakeLauncher, books: Path
) -> None:
    """Above the hard limit: no page is touched, which could be a SIGSEGV; all else is as told."""
    target = launcher.start(books, before=SMALL_STACK + "ulimit -H -s 4096;")
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH, stack_limit=WHOLE, stack_bytes=2 * STACK)
    record = hear(pair)
    tell(pair, GO)
    status, said = target.end()
    assert (record.error, record.stack_bytes, record.flags) == (0, 0, BOTH)
    assert status == OWN_EXIT
    assert int(said["locked_kb"]) > 0


@pytest.mark.parametrize("flags", [CURRENT, BOTH, BOTH | ONFAULT])
def test_the_record_has_the_flags_that_were_used(
    launcher: FakeLauncher, books: Path, flags: int
) -> None:
    """mlockall's own, and no other bit of LOCK's."""
    target, pair = start_and_lock(launcher, books, flags | STRICT)
    record = hear(pair)
    tell(pair, GO)
    assert (record.error, record.flags, target.end()[0]) == (0, flags, OWN_EXIT)


# ---- a lock that fails ----


@pytest.mark.parametrize(("limit_kb", "expected"), [(64, errno.ENOMEM), (0, errno.EPERM)])
def test_failed_lock_is_told_and_the_launcher_decides(
    launcher: FakeLauncher, books: Path, limit_kb: int, expected: int
) -> None:
    """The record carries mlockall's errno; GO runs the program unlocked, as best effort has it."""
    target = launcher.start(books, before=f"ulimit -l {limit_kb};", runner=WITHOUT_CAPABILITY)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH)
    record = hear(pair)
    tell(pair, GO)
    status, said = target.end()
    assert (record.error, status, said["locked_kb"]) == (expected, OWN_EXIT, "0")


def test_failed_lock_waits_for_its_verdict(launcher: FakeLauncher, books: Path) -> None:
    """After a failed lock REFUSE still ends the program before main()."""
    target = launcher.start(books, before="ulimit -l 0;", runner=WITHOUT_CAPABILITY)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH | STRICT)
    hear(pair)
    tell(pair, REFUSE)
    assert target.end() == (protocol.EXIT_REFUSED, {})


@pytest.mark.parametrize(("verdict", "expected"), [(GO, OWN_EXIT), (REFUSE, 125)])
def test_without_a_pair_the_channel_carries_record_and_verdict(
    launcher: FakeLauncher, books: Path, verdict: int, expected: int
) -> None:
    """No descriptor left for a pair: the errno comes on the channel, and the verdict goes there."""
    target = launcher.start(books, runner="prlimit --nofile=4:")
    data, control, _, _ = launcher.channel.recvmsg(protocol.MESSAGE_BYTES, 1024)
    record = protocol.unpack(data)
    tell(launcher.channel, verdict)
    assert (record.kind, record.error) == (RECORD, errno.EMFILE)
    assert len(control) == 1  # the credentials; no descriptor
    assert target.end()[0] == expected


# ---- a launcher that dies, or speaks nonsense ----


def test_launcher_dead_before_the_image_began(launcher: FakeLauncher, books: Path) -> None:
    """An image that is exec()ed long after the launcher's death is nobody's business: it runs."""
    launcher.channel.close()
    assert launcher.start(books).end()[0] == OWN_EXIT


def test_launcher_dead_before_lock(launcher: FakeLauncher, books: Path) -> None:
    """The end of file before LOCK was told lets the program run."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    pair.close()
    assert target.end()[0] == OWN_EXIT


def test_launcher_dead_with_the_pair_unread(launcher: FakeLauncher, books: Path) -> None:
    """A launcher that dies before it took the pair off the channel leaves nobody waiting."""
    target = launcher.start(books)
    launcher.channel.recv(1, 2)  # MSG_PEEK: it was sent
    launcher.channel.close()
    assert target.end()[0] == OWN_EXIT


@pytest.mark.parametrize(("flags", "expected"), [(BOTH | STRICT, 125), (BOTH, OWN_EXIT)])
@pytest.mark.parametrize("read_record", [True, False])
def test_launcher_dead_between_lock_and_go(
    launcher: FakeLauncher, books: Path, flags: int, expected: int, read_record: bool
) -> None:
    """Nobody judged the proof: 125 when strict, else the program runs, locked as it is."""
    target, pair = start_and_lock(launcher, books, flags)
    if read_record:
        hear(pair)
    pair.close()
    assert target.end()[0] == expected


NONSENSE = {
    "empty": b"",
    "short": protocol.pack(protocol.Message(REFUSE))[:-1],
    "long": protocol.pack(protocol.Message(REFUSE)) + b"\0",
    "other protocol": b"\xff\0\0\0" + protocol.pack(protocol.Message(REFUSE))[4:],
    "other kind": protocol.pack(protocol.Message(99)),
}


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_instead_of_lock_is_no_launcher(
    launcher: FakeLauncher, books: Path, words: bytes
) -> None:
    """What is no message of this protocol counts as the end of file: the program runs."""
    target = launcher.start(books)
    _, _, pair = launcher.entered()
    pair.send(words)
    assert target.end()[0] == OWN_EXIT


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_instead_of_go_is_no_go(launcher: FakeLauncher, books: Path, words: bytes) -> None:
    """After LOCK only GO is GO: a strict program ends with 125 on anything else."""
    target, pair = start_and_lock(launcher, books, BOTH | STRICT)
    hear(pair)
    pair.send(words)
    assert target.end()[0] == protocol.EXIT_REFUSED


# ---- READY=1 ----


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A service manager's socket, which learns who sends; and one that is connected to it."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connected,
    ):
        listening.bind(str(tmp_path / "notify"))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listening.settimeout(20)
        connected.connect(str(tmp_path / "notify"))
        yield listening, connected


def notify(pair: socket.socket, *fds: int) -> Message:
    """Tell the shim to say that it is ready on a descriptor; return its answer."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())
    pair.sendmsg([protocol.pack(Message(NOTIFY))], [rights] if fds else [])
    return hear(pair)


def test_ready_is_said_by_the_target_itself(
    launcher: FakeLauncher, books: Path, manager: tuple[socket.socket, socket.socket]
) -> None:
    """After the record, from its own pid by the kernel's word; main() still waits for GO."""
    listening, connected = manager
    target, pair = start_and_lock(launcher, books)
    hear(pair)
    answer = notify(pair, connected.fileno())
    said, control, _, _ = listening.recvmsg(100, 100)
    sender, _, _ = struct.unpack("iII", control[0][2])
    assert (answer.kind, answer.error, said, sender) == (NOTIFIED, 0, READY.encode(), target.pid)
    assert target.has_said_nothing()
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


def test_the_socket_it_was_said_on_is_gone_in_main(
    launcher: FakeLauncher, books: Path, manager: tuple[socket.socket, socket.socket]
) -> None:
    """The program has no descriptor more than before."""
    target, pair = start_and_lock(launcher, books)
    hear(pair)
    before = sorted(os.listdir(f"/proc/{target.pid}/fd"))
    notify(pair, manager[1].fileno())
    assert sorted(os.listdir(f"/proc/{target.pid}/fd")) == before


def test_a_manager_that_is_gone_is_told_and_the_verdict_is_awaited(
    launcher: FakeLauncher, books: Path, manager: tuple[socket.socket, socket.socket]
) -> None:
    """ECONNREFUSED is the launcher's to judge."""
    manager[0].close()
    target, pair = start_and_lock(launcher, books)
    hear(pair)
    assert notify(pair, manager[1].fileno()).error == errno.ECONNREFUSED
    tell(pair, REFUSE)
    assert target.end() == (protocol.EXIT_REFUSED, {})


def test_no_socket_to_say_it_on_is_an_errno(launcher: FakeLauncher, books: Path) -> None:
    """As where the target has no descriptor left for it."""
    target, pair = start_and_lock(launcher, books)
    hear(pair)
    assert notify(pair).error == errno.EBADF
    tell(pair, GO)
    assert target.end()[0] == OWN_EXIT


@pytest.mark.parametrize(("flags", "expected"), [(BOTH | STRICT, 125), (BOTH, OWN_EXIT)])
def test_launcher_dead_between_ready_and_go(
    launcher: FakeLauncher,
    books: Path,
    manager: tuple[socket.socket, socket.socket],
    flags: int,
    expected: int,
) -> None:
    """As between LOCK and GO."""
    target, pair = start_and_lock(launcher, books, flags)
    hear(pair)
    notify(pair, manager[1].fileno())
    pair.close()
    assert target.end()[0] == expected


# ---- the death signal ----

PRESET = "setpriv --pdeathsig KILL"


@pytest.mark.parametrize(
    ("flags", "asked", "expected"),
    [
        (DEATHSIG, signal.SIGTERM, signal.SIGTERM),
        (DEATHSIG, 0, 0),
        (0, signal.SIGTERM, signal.SIGKILL),
    ],
)
def test_death_signal_is_replaced_at_go_and_only_if_told(
    launcher: FakeLauncher, books: Path, flags: int, asked: int, expected: int
) -> None:
    """The launcher's SIGKILL stays armed until GO; then the final one is set, if LOCK said so."""
    target = launcher.start(books, runner=PRESET)
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH | flags, error=asked)
    hear(pair)
    tell(pair, GO)
    assert target.end()[1]["death_signal"] == str(int(expected))


# ---- who is not meant ----


def test_other_pid_returns_without_a_word(launcher: FakeLauncher, books: Path) -> None:
    """A child of the one that is meant runs unlocked, and nothing reaches the channel."""
    status, said = launcher.start(books, pid=1).end()
    assert (status, said["locked_kb"]) == (OWN_EXIT, "0")
    assert launcher.channel_is_empty()


def test_other_pid_costs_one_system_call(
    launcher: FakeLauncher, books: Path, tmp_path: Path
) -> None:
    """Before main() such a child makes one call of ours, getpid(): no /proc, no file, no socket."""
    calls = []
    for pid in (1, 0):
        log = tmp_path / f"calls-{pid}"
        target = launcher.start(books, pid=pid, runner=f"strace -o {log}")
        if pid == 0:
            _, _, pair = launcher.entered()
            tell(pair, SKIP)
        target.end()
        names = [line.split("(")[0] for line in log.read_text().splitlines()]
        calls.append({name: names.count(name) for name in ("getpid", "socketpair", "sendmsg")})
    assert calls[0] == {"getpid": 1, "socketpair": 0, "sendmsg": 0}
    assert calls[1] == {"getpid": 0, "socketpair": 1, "sendmsg": 1}


def test_pid_zero_means_everyone(launcher: FakeLauncher, books: Path) -> None:
    """Under --children all the variable names no pid, and every image asks."""
    target = launcher.start(books, pid=0)
    _, sender, pair = launcher.entered()
    tell(pair, SKIP)
    assert (sender, target.end()[0]) == (target.pid, OWN_EXIT)


def test_descriptor_used_again_for_a_file_is_left_alone(
    launcher: FakeLauncher, books: Path, tmp_path: Path
) -> None:
    """A shell that opened a file under our number keeps an empty file, and the program runs."""
    file = tmp_path / "theirs"
    before = f"exec 9>{file};"
    variable = launcher.variable(0).replace(f"{launcher.their_fd:x}:", "9:", 1)
    assert launcher.start(books, before=before, variable=variable).end()[0] == OWN_EXIT
    assert file.read_bytes() == b""


def test_descriptor_used_again_for_another_socket_is_left_alone(
    launcher: FakeLauncher, shim: Path, books: Path
) -> None:
    """A socket under our number that is not the launcher's gets no message."""
    with FakeLauncher(shim) as stranger:
        dev, ino = stranger.variable(0).split(":")[1:3]
        variable = channel_variable(launcher.their_fd, int(dev, 16), int(ino, 16), 0)
        assert launcher.start(books, variable=variable).end()[0] == OWN_EXIT
        assert launcher.channel_is_empty()
        assert stranger.channel_is_empty()


def test_closed_descriptor_is_no_channel(launcher: FakeLauncher, books: Path) -> None:
    """A program that closed all descriptors it did not know runs, and says nothing."""
    variable = launcher.variable(0).replace(f"{launcher.their_fd:x}:", "3ff:", 1)
    assert launcher.start(books, variable=variable).end()[0] == OWN_EXIT
    assert launcher.channel_is_empty()


def spoiled(text: str) -> dict[str, str]:
    fd, dev, ino, pid = text.split(":")
    return {
        "empty": "",
        "three numbers": f"{fd}:{dev}:{ino}",
        "five numbers": f"{text}:0",
        "a number missing": f"{fd}::{ino}:{pid}",
        "upper case": f"{fd}:{dev}:{ino}:ABC",
        "a sign": f"{fd}:{dev}:{ino}:-0",
        "a prefix": f"0x{text}",
        "a space": f"{text} ",
        "too long": f"{fd}:{dev}:{ino}:{'0' * 17}",
        "descriptor past int": f"1{int(fd, 16):08x}:{dev}:{ino}:{pid}",
    }


@pytest.mark.parametrize("how", spoiled("1:2:3:0"))
def test_variable_that_does_not_parse_is_no_channel(
    launcher: FakeLauncher, books: Path, how: str
) -> None:
    """A variable that is not four numbers is not guessed at: no message, and the program runs."""
    variable = spoiled(launcher.variable(0))[how]
    assert launcher.start(books, variable=variable).end()[0] == OWN_EXIT
    assert launcher.channel_is_empty()


# ---- a guest leaves no trace ----


def test_nothing_is_left_in_the_process(launcher: FakeLauncher, books: Path) -> None:
    """Main() finds one thread and the descriptors it was given: no end of a pair is left."""
    target, pair = start_and_lock(launcher, books, BOTH, stack_bytes=STACK)
    hear(pair)
    tell(pair, GO)
    _, said = target.end()
    assert said["threads"] == "1"
    assert said["descriptors"].split() == ["0", "1", "2", str(launcher.their_fd)]


def test_closed_standard_streams_stay_closed(launcher: FakeLauncher, books: Path) -> None:
    """The pair takes the numbers 0 and 2 for a moment, and they are free again in main()."""
    target = launcher.start(books, before="exec 0<&- 2>&-;")
    _, _, pair = launcher.entered()
    tell(pair, LOCK, flags=BOTH)
    hear(pair)
    tell(pair, GO)
    assert target.end()[1]["descriptors"].split() == ["1", str(launcher.their_fd)]


# ---- other libcs and machines ----


def test_shim_works_under_musl(launcher: FakeLauncher, musl_books: Path) -> None:
    """The same file locks a musl program, whose constructors get no arguments."""
    target, pair = start_and_lock(launcher, musl_books, BOTH, stack_bytes=STACK)
    record = hear(pair)
    tell(pair, GO)
    status, said = target.end()
    assert (record.error, status) == (0, OWN_EXIT)
    assert record.stack_bytes >= STACK
    assert int(said["locked_kb"]) > 0.9 * int(said["size_kb"])


def test_musl_child_is_left_alone(launcher: FakeLauncher, musl_books: Path) -> None:
    """Under musl too another pid means no message and no lock."""
    status, said = launcher.start(musl_books, pid=1).end()
    assert (status, said["locked_kb"]) == (OWN_EXIT, "0")
    assert launcher.channel_is_empty()


@pytest.mark.parametrize("machine", ["aarch64"], indirect=True)
@pytest.mark.parametrize(("verdict", "expected"), [(GO, OWN_EXIT), (REFUSE, 125)])
def test_shim_works_on_aarch64(
    any_shim: Path, aarch64_books: Path, own_machine: str, verdict: int, expected: int
) -> None:
    """The whole conversation on the other machine: entered, lock, record, verdict."""
    runner = "" if own_machine == "aarch64" else EMULATOR
    with FakeLauncher(any_shim) as launcher:
        target = launcher.start(aarch64_books, runner=runner)
        _, sender, pair = launcher.entered()
        tell(pair, LOCK, flags=CURRENT, stack_bytes=STACK)
        record = hear(pair)
        tell(pair, verdict)
        assert (sender, record.error) == (target.pid, 0)
        assert record.stack_bytes >= STACK
        assert target.end()[0] == expected
