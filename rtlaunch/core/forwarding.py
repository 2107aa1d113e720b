"""Which signals that reach rtlaunch belong to the target, and which it has already.

Pure. The rule: what the terminal sent went to the whole foreground process
group, so to the target too, and is not sent again; everything else was meant
for the program that rtlaunch stands for.
"""

from __future__ import annotations

from _struct import Struct

from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGCHLD, SIGCONT = 1, 2, 3, 13, 17, 18
SIGTSTP, SIGTTIN, SIGTTOU, SIGXCPU, SIGXFSZ, SIGWINCH = 20, 21, 22, 24, 25, 28

SI_KERNEL = 0x80  # sigaction(2)
SI_QUEUE = -1

# What a terminal sends to its foreground group (drivers/tty/n_tty.c, tty_io.c, tty_jobctrl.c),
# and what the kernel sends for the limits of one process (kernel/time/posix-cpu-timers.c).
FROM_TERMINAL = frozenset((SIGHUP, SIGINT, SIGQUIT, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH))
OWN_LIMITS = frozenset((SIGXCPU, SIGXFSZ))

# A hangup reaches the session leader alone, who is to pass it on (__tty_hangup).
TO_SESSION_LEADER = frozenset((SIGHUP, SIGCONT))

# Who number a process among its equals: the nearest launcher first, as mpirun within a Slurm job
# leaves that job's own number to all of its ranks.
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
SLURM_DAEMON = "slurmstepd"
MPI_DAEMONS = (
    "mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", "hydra_pmi_proxy"
)  # fmt: skip

# Where Slurm holds a step in a cgroup of its own (proctrack/cgroup): v2's hierarchy, v1's freezer.
STEP_CONTROLLERS = ("", "freezer")

# struct signalfd_siginfo, include/uapi/linux/signalfd.h: signo, errno, code, pid, uid, fd, tid,
# band, overrun, trapno, status, int, ptr.
SIGINFO = Struct("=IiiIIiIIIIiiQ")
SIGINFO_BYTES = 128


class Signal(Record):
    """One signal as signalfd(2) tells it; ``value`` is the 64-bit sigval of a queued one."""

    number: int
    code: int
    sender_pid: int
    value: int


def parse_signals(data: bytes) -> tuple[Signal, ...]:
    """Parse what one read of a signalfd returned."""
    found = []
    for start in range(0, len(data), SIGINFO_BYTES):
        fields = SIGINFO.unpack_from(data, start)
        found.append(Signal(fields[0], fields[2], fields[3], fields[12]))
    return tuple(found)


def signals_all(
    sender: str, environ: Mapping[str, str], same_group: bool, same_cgroup: bool
) -> bool:
    """Tell whether who sent a signal to us, by its comm, sent it to the target as well.

    MPI's daemons signal process groups. slurmstepd signals all processes of a step that srun made,
    but its own children alone where it holds the step in a cgroup (proctrack_cgroup.c,
    proctrack_p_signal), and of a batch script, which has no step id, perhaps the first one alone
    (scancel --batch).
    """
    if sender == SLURM_DAEMON:
        return same_cgroup and bool(environ.get("SLURM_STEP_ID"))
    return same_group and sender.partition(".")[0] in MPI_DAEMONS  # Debian: mpirun.openmpi


def step_cgroups(text: str) -> tuple[str, ...]:
    """Return the lines of a /proc/PID/cgroup that would differ for a daemon and the step it holds.

    As lines and not as paths: in a cgroup namespace both are relative, and differ as well.
    """
    lines = text.splitlines()
    return tuple(
        line for line in lines if set(line.split(":")[1].split(",")) & set(STEP_CONTROLLERS)
    )


def is_for_target(signal: Signal, own_pid: int, leads_session: bool) -> bool:
    """Tell whether to pass ``signal`` on; SIGCHLD is ours and never is."""
    if signal.number == SIGCHLD or (signal.number == SIGPIPE and signal.sender_pid == own_pid):
        return False
    if signal.code != SI_KERNEL:
        return True
    if signal.number in TO_SESSION_LEADER and leads_session:
        return True
    return signal.number not in FROM_TERMINAL | OWN_LIMITS
