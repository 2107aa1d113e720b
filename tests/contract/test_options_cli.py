"""Options from outside: what is refused starts nothing, what is given reaches the target."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.skips import skip

NICE_OF_ITSELF = ["nice"]  # coreutils' nice without arguments prints its own nice value


def call(rtlaunch, *words, **how):
    """Run ``rtlaunch WORDS``, with nothing put in front of them."""
    process = rtlaunch.start(*words, **how)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def environment(**more):
    return {**os.environ, **more}


# --- refusals --------------------------------------------------------------------------------

REFUSED = [
    (["TOUCH"], "put -- before the command:  rtlaunch -- "),
    (["--nice", "-5", "TOUCH"], "put -- before the command:  rtlaunch --nice -5 -- "),
    (["--", "--", "TOUCH"], "-- is there twice"),
    (["--memlok", "8M", "--", "TOUCH"], "did you mean --memlock?"),
    (["--prefault-stack", "12Q", "--", "TOUCH"], "'12Q' is no size"),
    (["--memlock", "-1", "--", "TOUCH"], "'-1' is no size"),
    (["--memlock", "9" * 30, "--", "TOUCH"], "too large a size"),
    (["--ambient-caps", "ipc_lok", "--", "TOUCH"], "did you mean ipc_lock?"),
    (["--pdeathsig", "TREM", "--", "TOUCH"], "did you mean TERM?"),
    (["--limit", "nofiles=3", "--", "TOUCH"], "did you mean nofile?"),
    (["--lock", "curent", "--", "TOUCH"], "did you mean current?"),
    (["--cpu-list", "0-", "--", "TOUCH"], "is no CPU"),
    (["--allow", "usage", "--", "TOUCH"], "usage cannot be allowed"),
    (["--via", "gdb", "--", "TOUCH"], "'gdb' is not one of auto, preload, ptrace"),
    (["--children", "al", "--", "TOUCH"], "did you mean all?"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_a_wrong_line_is_refused_with_125_and_starts_nothing(rtlaunch, tmp_path, words, message):
    """One refusal on stderr, nothing on stdout, and the command did not run."""
    trace = tmp_path / "trace"
    words = [part for word in words for part in (["touch", trace] if word == "TOUCH" else [word])]
    code, out, err = call(rtlaunch, *words)
    assert (code, out) == (125, "")
    assert err.startswith("rtlaunch: refused [usage]: ")
    assert message in err
    assert not trace.exists()


def test_an_environment_value_that_does_not_parse_is_refused(rtlaunch, tmp_path):
    """Under its own code and name."""
    trace = tmp_path / "trace"
    words = ("--", "touch", trace)
    code, _, err = call(rtlaunch, *words, env=environment(RTLAUNCH_MEMLOCK="12Q"))
    assert code == 125
    assert "refused [environment-value]: RTLAUNCH_MEMLOCK: '12Q' is no size" in err
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("format = 1\nmemlok = '8M'\n", "profile-invalid"),
        ("not = [toml", "profile-invalid"),
        (None, "profile-missing"),
    ],
)
def test_a_profile_that_is_none_is_refused(rtlaunch, tmp_path, content, code):
    """Missing, not TOML, with an unknown key: each by its code and path."""
    path, trace = tmp_path / "robot.toml", tmp_path / "trace"
    if content is not None:
        path.write_text(content)
    status, _, err = call(rtlaunch, "--profile", path, "--", "touch", trace)
    assert status == 125
    assert err.startswith(f"rtlaunch: refused [{code}]: ")
    assert str(path) in err
    assert not trace.exists()


def test_root_refuses_a_profile_that_others_can_write(rtlaunch, tmp_path):
    """Its command would run as root."""
    if os.geteuid() != 0:
        skip("not-root")
    path, trace = tmp_path / "robot.toml", tmp_path / "trace"
    path.write_text(f"format = 1\ncommand = ['touch', '{trace}']\n")
    path.chmod(0o666)
    code, _, err = call(rtlaunch, "--profile", path)
    assert code == 125
    assert err.startswith("rtlaunch: refused [profile-writable]: ")
    assert not trace.exists()


# --- what reaches the target -----------------------------------------------------------------


@pytest.fixture
def profile(tmp_path):
    """A profile whose nice value is 3 more than that of the tests."""
    path = tmp_path / "robot.toml"
    command = json.dumps(NICE_OF_ITSELF)
    path.write_text(f"format = 1\nnice = {niceness(3)}\ncommand = {command}\n")
    path.chmod(0o644)
    return path


def niceness(more):
    return os.getpriority(os.PRIO_PROCESS, 0) + more


def test_the_command_line_wins_over_the_environment_and_that_over_the_profile(rtlaunch, profile):
    """As the target's own nice value shows."""
    variables = environment(RTLAUNCH_NICE=str(niceness(2)))
    typed = ("--nice", str(niceness(1)))
    seen = [
        call(rtlaunch, "--profile", profile, *words, "--", *NICE_OF_ITSELF, env=env)[1].strip()
        for words, env in ((typed, variables), ((), variables), ((), environment()))
    ]
    assert seen == [str(niceness(1)), str(niceness(2)), str(niceness(3))]


def test_a_profiles_command_runs_when_none_is_typed(rtlaunch, profile):
    """So that a unit needs the profile's name alone."""
    code, out, _ = call(rtlaunch, env=environment(RTLAUNCH_PROFILE=str(profile)))
    assert (code, out.strip()) == (0, str(niceness(3)))


def test_the_target_sees_none_of_our_variables_and_all_others(rtlaunch):
    """An unknown one is warned of, and stays."""
    variables = environment(RTLAUNCH_CORE="inherit", RTLAUNCH_PORT="tcp://10.0.0.1:80")
    code, out, err = call(rtlaunch, "--", "env", env=variables)
    assert code == 0
    seen = [line for line in out.splitlines() if line.startswith("RTLAUNCH_")]
    assert seen == ["RTLAUNCH_PORT=tcp://10.0.0.1:80"]
    assert "[environment-unknown]" in err
    assert "RTLAUNCH_PORT" in err


def test_plan_shows_where_each_value_comes_from(rtlaunch, profile):
    """Command line, environment, profile and default, in one document."""
    words = ("plan", "--json", "--profile", profile, "--core", "inherit", "--", "true")
    code, out, _ = call(rtlaunch, *words, env=environment(RTLAUNCH_TIMER_SLACK="50us"))
    assert code == 0
    options = json.loads(out)["options"]
    assert {name: options[name]["from"] for name in ("core", "timer-slack", "nice", "lock")} == {
        "core": "cli", "timer-slack": "environment", "nice": "profile", "lock": "default",
    }  # fmt: skip
    assert options["timer-slack"]["value"] == "50us"


# --- help and completion ---------------------------------------------------------------------


def test_help_names_every_section_and_subcommand(rtlaunch):
    """And exits 0, with nothing on stderr."""
    code, out, err = call(rtlaunch, "--help")
    assert (code, err) == (0, "")
    for word in ("Locking", "Scheduling", "Watching", "--prefault-stack", "plan", "explain"):
        assert word in out


@pytest.mark.parametrize("verb", ["plan", "check"])
def test_a_subcommands_help_has_the_options_of_a_run(rtlaunch, verb):
    """They are the same options, behind the subcommand."""
    code, out, _ = call(rtlaunch, verb, "-h")
    assert code == 0
    assert "--prefault-stack" in out
    assert "--json" in out


@pytest.mark.parametrize("stdout", ["closed", "full"])
def test_help_that_cannot_be_written_leaves_no_traceback(rtlaunch, stdout):
    """Whatever is wrong with stdout."""
    redirect = {"closed": ">&-", "full": ">/dev/full"}[stdout]
    line = ["sh", "-c", f'"$@" {redirect}', "sh", *rtlaunch.words("--help")]
    run = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert run.stderr == ""
    assert run.returncode in (0, 125)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("--mem", "--memlock"), ("--via pr", "preload"), ("--allow swap", "swap-on")],
)
def test_the_shell_completes_options_and_their_values(rtlaunch, typed, offered):
    """From the same table."""
    variables = environment(
        _RTLAUNCH_COMPLETE="complete_bash",
        COMP_WORDS=f"rtlaunch {typed}",
        COMP_CWORD=str(len(typed.split())),
    )
    code, out, _ = call(rtlaunch, env=variables)
    assert (code, out.split()) == (0, [offered])
