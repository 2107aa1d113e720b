"""Where the shim lies is no trap: locked by an alias or by ptrace, or refused before the exec.

ld.so says one line and goes on without a shim that it cannot find, open or map. So whatever would
make it do so has to be known before the exec.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import books, launching
from tests.kernel import execve
from tests.kernel.programs import compile_source, need, need_root
from tests.launching import NOBODY
from tests.skips import skip
from tests.standing import PYTHON, standing

GREP = ("grep", "VmLck", "/proc/self/status")
AS_NOBODY = ("--user", f"{NOBODY}:{NOBODY}")
NATIVE = launching.installation() / launching.LIBRARIES / "rtlaunch" / "native"
# What a mount namespace of rtlaunch's own is made of, before it starts.
PRIVATELY = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


def installed(folder: Path, user: str = "root") -> launching.Launcher:
    """Return the launcher of an installation whose path leads through ``folder``."""
    program = launching.installation_at(folder)
    reports = folder.parent / f"reports-{user}"
    reports.mkdir(mode=0o755)
    return launching.Launcher(program, reports, user)


def locked_in(out: str) -> int:
    return int(out.split()[1])


def assert_locked(ran: launching.Ran, via: str) -> None:
    """It ran locked, says the kernel, and it was reached in this way."""
    assert (ran.code, ran.report["lock"]["ok"]) == (0, True), ran.err
    assert locked_in(ran.out) > 0
    assert (ran.report["lock"]["via"], "ld.so" in ran.err) == (via, False)


def assert_refused(ran: launching.Ran) -> None:
    """It was refused by name, and has not run."""
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("rtlaunch: refused [shim-path]: ")
    assert ran.report["verdict"] == "refused"


@pytest.fixture
def state(room: Path) -> Path:
    """A state directory that is not there yet."""
    folder = Path(tempfile.mkdtemp(dir=room))
    folder.chmod(0o755)
    return folder / "state"


# ---- separators


@pytest.mark.parametrize("name", ["with a space", "with:a:colon", "with: both"])
def test_separators_in_the_path_are_no_matter(here, state, name):
    """ld.so splits LD_PRELOAD at both and knows no quoting: a link in the state directory it is."""
    launcher = installed(here / name)
    assert_locked(launcher.run("--", *GREP, env=with_state(state)), "preload")
    (found,) = [link.resolve() for link in state.iterdir()]
    assert found in (shim().resolve(), *(NATIVE.resolve() / tree for tree in ("split", "merged")))


def with_state(state: Path | str) -> dict[str, str]:
    return {**os.environ, "RTLAUNCH_STATE_DIR": str(state)}


def shim() -> Path:
    return Path(NATIVE, f"rtlaunch-shim-{os.uname().machine}.so")


def open_to_all(state: Path) -> dict[str, str]:
    state.mkdir()
    state.chmod(0o777)
    return with_state(state)


def of_a_name_with_spaces(state: Path) -> dict[str, str]:
    return with_state(state / "a state")


def without_any(state: Path) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}


UNFIT = {
    "none": ("limited", without_any),
    "open to all": ("root", open_to_all),
    "with a space": ("root", of_a_name_with_spaces),
}


@pytest.mark.parametrize("case", UNFIT)
def test_without_a_fit_state_directory_it_is_locked_from_outside(here, state, case):
    """No place for a link: by ptrace; refused where only a preload may be used."""
    need_root()
    user, environment = UNFIT[case]
    launcher = installed(here / "with a space", user)
    env = environment(state)
    assert_locked(launcher.run("--", *GREP, env=env), "ptrace")
    assert_refused(launcher.run("--via", "preload", "--", *GREP, env=env))


def test_a_relative_state_directory_is_found_from_elsewhere(here):
    """What runs after a chdir finds the link all the same, and is locked."""
    launcher = installed(here / "with a space")
    line = f"cd / && exec {' '.join(GREP)}"
    ran = launcher.run("--", "sh", "-c", line, env=with_state("state"), cwd=here)
    assert_locked(ran, "preload")


def test_a_strict_umask_hides_no_link(here, state):
    """The state directory is made for everybody to search: another user finds the shim."""
    need_root()
    launcher = installed(here / "with a space")
    ran = launcher.run(
        *AS_NOBODY, "--", *GREP, env=with_state(state), preexec_fn=lambda: os.umask(0o77)
    )
    assert_locked(ran, "preload")


# ---- hidden from whom the program is to be


@pytest.fixture
def hidden(here):
    """An installation in a folder that is its owner's alone, as /root is."""
    need_root()
    launcher = installed(here / "private")
    (here / "private").chmod(0o700)
    return launcher


def test_hidden_from_another_user_it_is_locked_from_outside(hidden):
    """--user nobody, who cannot open the shim: locked by ptrace, all of it, before it runs."""
    with standing(hidden, *AS_NOBODY, "--", *PYTHON) as held:
        assert books.status(held.pid)["Uid"].split()[0] == str(NOBODY)
        assert books.not_held(held.pid) == []
        ran = held.end()
    assert (ran.report["lock"]["via"], ran.report["verdict"]) == ("ptrace", "clean")
    assert "the shim" in ran.report["lock"]["why"]


def test_a_hidden_alias_is_no_way_in_either(here, state):
    """A state directory that is root's alone hides the link, if not the shim."""
    need_root()
    launcher = installed(here / "with a space")
    state.mkdir(mode=0o700)
    assert_locked(launcher.run(*AS_NOBODY, "--", *GREP, env=with_state(state)), "ptrace")


def test_hidden_from_another_user_a_preload_is_refused(hidden, here):
    """Before the exec, with the path and what is the matter with it."""
    ran = hidden.run(*AS_NOBODY, "--via", "preload", "--", *GREP)
    assert_refused(ran)
    assert f"uid {NOBODY} cannot read the shim {here}/private/" in ran.err
    assert "Permission denied" in ran.err


def test_what_a_static_program_execs_is_not_given_what_it_cannot_open(hidden, room):
    """Its loader would say on stderr that it ignores it."""
    source = "#include <unistd.h>\nint main(int n, char **v) { return execvp(v[1], v + 1); }"
    program = compile_source("cc", "-static", source, room / "exec")
    ran = hidden.run(*AS_NOBODY, "--", program, *GREP)
    assert "ld.so" not in ran.err


# ---- where nothing can be mapped executable


def in_a_namespace(launcher: launching.Launcher, script: str) -> launching.Launcher:
    """Have the launcher run in a mount namespace of its own, after ``script``."""
    need("no-mount", lambda: execve.mount_private(0, Path("/mnt")))
    launcher.prefix = [*PRIVATELY, f'{script}; exec "$@"', "sh", *launcher.prefix]
    return launcher


def noexec(folder: str | Path) -> str:
    """Return a line of shell that makes a folder one of a mount without exec."""
    return f"mount --bind '{folder}' '{folder}'; mount -o remount,bind,noexec '{folder}'"


def test_a_shim_on_a_noexec_mount_is_not_needed(rtlaunch):
    """ld.so could not map it: by ptrace; refused where only a preload may be used."""
    launcher = in_a_namespace(rtlaunch, noexec(NATIVE))
    assert_locked(launcher.run("--", *GREP), "ptrace")
    assert_refused(launcher.run("--via", "preload", "--", *GREP))


def test_an_installation_that_python_cannot_load_is_one_line(rtlaunch):
    """A whole environment on a noexec mount: python-prctl cannot be mapped, and that is said."""
    package = Path(NATIVE).parent
    launcher = in_a_namespace(rtlaunch, noexec(package.parent))
    launcher.prefix += [PYTHON[0], "-I", "-S"]
    launcher.program = package / "__main__.py"
    ran = launcher.run("--", *GREP)
    assert (ran.code, ran.out) == (125, "")
    first, *rest = ran.err.splitlines()
    assert first.startswith("rtlaunch: failed [launch-failed]: this installation cannot be loaded")
    assert "failed to map segment" in first
    assert len(rest) <= 2, ran.err


# ---- where the target leaves for another root, mount namespace or user


def in_its_chain(launcher: launching.Launcher, *words: str | Path) -> launching.Ran:
    """Run a chain of programs, the last of which finds no shim; it must be locked all the same."""
    ran = launcher.run("--", *words)
    assert (ran.code, ran.report["verdict"]) == (0, "clean"), ran.err
    assert [image["locked"] for image in ran.report["target"]["images"]] == [True] * len(
        ran.report["target"]["images"]
    )
    assert locked_in(ran.out) > 0
    return ran


SAYS_LOCKED = """
#include <stdio.h>
#include <string.h>
int main(void)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "VmLck", 5))
            fputs(line, stdout);
    return 0;
}
"""


@pytest.mark.parametrize("flags", ["-static", ""], ids=["static", "dynamic"])
def test_what_runs_in_another_root_is_locked(rtlaunch, here, room, flags):
    """`chroot DIR ./app`: there is no shim below DIR, and no preload finds one."""
    program = compile_source("cc", f"{flags} -O1", SAYS_LOCKED, room / f"says{flags}")
    root = here / "root"
    for name in ("proc", "lib64", "lib/x86_64-linux-gnu"):
        (root / name).mkdir(parents=True)
    shutil.copy(program, root / "app")
    for library in ("/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"):
        if os.uname().machine != "x86_64":
            skip("not-x86")
        shutil.copy(library, root / library[1:])
    launcher = in_a_namespace(rtlaunch, f"mount -t proc proc '{root}/proc'")
    in_its_chain(launcher, "chroot", root, "/app")


def test_what_runs_in_a_mount_namespace_without_the_shim_is_locked(rtlaunch):
    """`unshare --mount sh -c 'mount ... ; exec app'`: a mount hides the installation."""
    need("no-mount", lambda: execve.mount_private(0, Path("/mnt")))
    line = f"mount -t tmpfs none '{NATIVE}' && exec {' '.join(GREP)}"
    in_its_chain(rtlaunch, "unshare", "--mount", "sh", "-c", line)


def test_what_another_user_runs_in_a_chain_is_locked(hidden):
    """`setpriv --reuid app`, from an installation that this user cannot enter."""
    drop = ("--reuid=65534", "--regid=65534", "--clear-groups")
    keep = ("--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock")
    in_its_chain(hidden, "setpriv", *drop, *keep, *GREP)
