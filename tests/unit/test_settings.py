"""Command line, environment, profile and default become one set of options, with origins."""

import tomllib

import pytest

from rtlaunch.core import settings
from rtlaunch.core.findings import Refusal
from rtlaunch.core.options import SETTINGS, Arm, Fitted, LimitDemand
from rtlaunch.core.profile import read_profile, with_parent

PATH = "/etc/rtlaunch/profiles/robot.toml"


def profile(text, parent=None):
    """The profile of a TOML text; ``format`` is put in front."""
    read = read_profile(tomllib.loads("format = 1\n" + text), PATH)
    return with_parent(read, parent) if parent else read


def resolve(raw=(), environ=(), layer=None):
    """The options of these sources."""
    return settings.resolve(dict(raw), dict(environ), layer).options


def refused(call, *arguments):
    """The finding with which ``call`` refuses."""
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value.finding


# --- precedence ------------------------------------------------------------------------------

LAYERS = [
    ("default", {}),
    ("profile", {"layer": profile("memlock = '1M'", profile("memlock = '5M'"))}),
    ("environment", {"environ": {"RTLAUNCH_MEMLOCK": "2M"}}),
    ("cli", {"raw": {"memlock": ("3M",)}}),
]
VALUES = {"default": "max", "profile": 2**20, "environment": 2**21, "cli": 3 * 2**20}


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_the_strongest_source_wins_and_is_the_origin(strongest):
    """CLI > environment > profile > its parent > default."""
    given = {}
    for _, source in LAYERS[: strongest + 1]:
        given |= source
    options, origin = resolve(**given), LAYERS[strongest][0]
    assert (options.memlock, options.origin["memlock"]) == (VALUES[origin], origin)


def test_every_option_has_an_origin():
    """Plan shows where each value comes from."""
    assert set(resolve().origin) == {row.name for row in SETTINGS}
    assert set(resolve().origin.values()) == {"default"}


def test_a_parent_gives_what_its_child_leaves_open():
    """A profile extends its parent key by key."""
    options = resolve(layer=profile("nice = -5", profile("nice = 3\narm = '2s'")))
    assert (options.nice, options.arm) == (-5, Arm("time", after_ns=2 * 10**9))


def test_a_higher_source_replaces_a_list():
    """Lists are not joined across sources."""
    raw, environ = {"allow": ("swap-on",)}, {"RTLAUNCH_ALLOW": "ksm-on rt-throttling"}
    assert resolve(raw, environ).allow == ("swap-on",)
    assert resolve((), environ).allow == ("ksm-on", "rt-throttling")


def test_one_source_may_give_a_list_in_parts():
    """--allow a --allow b,a is both, once each."""
    assert resolve({"allow": ("swap-on", "ksm-on,swap-on")}).allow == ("swap-on", "ksm-on")


def test_none_clears_what_the_same_source_allowed_before():
    """A wrapper script's --allow can be taken back by who calls it."""
    assert resolve({"allow": ("swap-on", "none")}).allow == ()


def test_rewritings_of_the_strongest_source_are_all_that_count():
    """A list is replaced, not added to."""
    given = {"rewrite": ("TERM:INT", "USR1:none")}
    options = resolve(given, {"RTLAUNCH_REWRITE": "HUP:none QUIT:TERM"})
    assert options.rewrite == ((15, 2), (10, 0))
    assert resolve({}, {"RTLAUNCH_REWRITE": "HUP:none QUIT:TERM"}).rewrite == ((1, 0), (3, 15))


@pytest.mark.parametrize(
    ("name", "texts"),
    [("rewrite", ("TERM:INT", "15:QUIT")), ("map-exit", ("143=0", "128+TERM=1"))],
)
def test_two_ends_for_one_beginning_are_refused(name, texts):
    """Which of them was meant nobody can know; the same one twice is one."""
    with pytest.raises(Refusal, match="asked for twice, to different ends"):
        resolve({name: texts})
    field = name.replace("-", "_")
    assert len(getattr(resolve({name: (texts[0],) * 2}), field)) == 1


def test_limits_merge_by_name():
    """Each limit comes from the strongest source that names it."""
    options = resolve(
        {"limit": ("nofile=1",)},
        {"RTLAUNCH_LIMIT": "nofile=2 rtprio=20"},
        profile("[limit]\nnofile = 3\nrtprio = 30\ncpu = '300:unlimited'"),
    )
    assert set(options.limit) == {
        LimitDemand("nofile", 1), LimitDemand("rtprio", 20), LimitDemand("cpu", 300, -1),
    }  # fmt: skip
    assert options.origin["limit"] == "cli"


def test_limit_none_clears_the_limits_of_weaker_sources():
    """What a profile limits can be left alone."""
    options = resolve({"limit": ("none", "cpu=9")}, {}, profile("[limit]\nnofile = 3"))
    assert options.limit == (LimitDemand("cpu", 9),)


# --- the environment -------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["current future", "current,future", " future,  current "])
def test_a_twin_takes_a_list_by_spaces_and_by_commas(value):
    """Both spellings are the same list."""
    assert resolve((), {"RTLAUNCH_LOCK": value}).lock == ("current", "future")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False)])
def test_a_twin_of_a_switch_is_a_boolean(text, value):
    """1, 0, true, false, for names that begin with no- too."""
    assert resolve((), {"RTLAUNCH_NO_NEW_PRIVS": text}).no_new_privs is value


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_an_empty_twin_is_unset(row):
    """As a unit file's Environment=X= has it."""
    resolved = settings.resolve({}, {row.twin: ""}, None)
    assert resolved.options.origin[row.name] == "default"
    assert resolved.findings == ()


def test_a_twin_that_does_not_parse_is_refused_by_its_name():
    """Even when the command line overrides it: what is wrong is not hidden."""
    raw, environ = {"memlock": ("8M",)}, {"RTLAUNCH_MEMLOCK": "12Q"}
    finding = refused(settings.resolve, raw, environ, None)
    assert finding.code == "environment-value"
    assert finding.what.startswith("RTLAUNCH_MEMLOCK: '12Q' is no size: use bytes, or K, M, G, T")
    assert finding.values == {"source": "environment", "option": "memlock", "value": "12Q"}


def test_unknown_twins_are_one_warning_with_the_near_names():
    """Kubernetes sets seven for a Service that is called rtlaunch."""
    environ = {"RTLAUNCH_MEMLOK": "8M", "RTLAUNCH_PORT": "tcp://10.0.0.1:80", "RTLAUNCH": "x"}
    (finding,) = settings.resolve({}, environ, None).findings
    assert (finding.code, finding.severity) == ("environment-unknown", "warning")
    assert "RTLAUNCH_MEMLOK (did you mean RTLAUNCH_MEMLOCK?), RTLAUNCH_PORT" in finding.what
    assert finding.values == {"variables": ["RTLAUNCH_MEMLOK", "RTLAUNCH_PORT"]}


def test_the_state_directorys_variable_is_no_unknown_one():
    """It is reserved for the leases of a later version."""
    assert settings.resolve({}, {"RTLAUNCH_STATE_DIR": "/run/x"}, None).findings == ()


def test_the_target_sees_none_of_our_variables_and_all_others():
    """A RTLAUNCH_PORT of Kubernetes is the target's, not ours."""
    ours = dict.fromkeys([row.twin for row in SETTINGS] + ["RTLAUNCH_STATE_DIR"], "1")
    others = {"PATH": "/bin", "RTLAUNCH_PORT": "80", "PYTHONPATH": "x", "RTLAUNCH": ""}
    assert settings.without_twins(ours | others) == others


# --- values that are wrong -------------------------------------------------------------------


def test_a_wrong_value_on_the_command_line_is_usage():
    """Named as it is typed."""
    finding = refused(settings.resolve, {"nice": ("x",)}, {}, None)
    assert finding.code == "usage"
    assert finding.what == "--nice: 'x' is no nice value: use a whole number from -20 to 19"


def test_a_wrong_value_in_a_profile_names_file_and_key():
    """Even when it is overridden."""
    finding = refused(settings.resolve, {"nice": ("1",)}, {}, profile("nice = 99"))
    assert finding.code == "profile-invalid"
    assert finding.what.startswith(f"{PATH}: nice: '99' is no nice value")


# --- which profile, which command ------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "environ", "name"),
    [
        ({}, {}, ""),
        ({}, {"RTLAUNCH_PROFILE": "a"}, "a"),
        ({"profile": ("b",)}, {"RTLAUNCH_PROFILE": "a"}, "b"),
        ({"profile": ("none",)}, {"RTLAUNCH_PROFILE": "a"}, ""),
    ],
)
def test_the_profile_comes_from_command_line_or_environment(raw, environ, name):
    """The command line wins, and none is none."""
    assert settings.profile_asked(raw, environ) == name


def test_a_typed_command_wins_over_the_profiles():
    """A profile's command is for when no -- follows."""
    layer = profile("command = ['./robot']")
    assert settings.command_asked(("./app", "-x"), layer) == ("./app", "-x")
    assert settings.command_asked((), layer) == ("./robot",)
    assert settings.command_asked((), profile("", layer)) == ("./robot",)


@pytest.mark.parametrize("layer", [None, profile("")])
def test_no_command_anywhere_is_usage(layer):
    """The message shows the shape of a line."""
    finding = refused(settings.command_asked, (), layer)
    assert finding.code == "usage"
    assert "rtlaunch [OPTIONS] -- COMMAND [ARG...]" in finding.what


# --- the keys of a profile -------------------------------------------------------------------


def test_a_profile_takes_strings_numbers_booleans_and_arrays():
    """Values as on the command line, or as TOML has them."""
    options = resolve(
        layer=profile(
            "lock = ['current', 'onfault']\nprefault-stack = 65536\nquiet = true\n"
            "cpu-list = [0, '2-3']\nallow = ['swap-on']\nambient-caps = []\nbest-effort = '0'"
        )
    )
    assert options.lock == ("current", "onfault")
    assert options.prefault_stack == 65536
    assert (options.quiet, options.best_effort) == (True, False)
    assert options.cpu_list == (0, 2, 3)
    assert (options.allow, options.ambient_caps) == (("swap-on",), ())


FIT = "[fit]\nlocked_bytes = 48234496\nresident_bytes = 62914560\nthreads = 12\n"

WRONG = [
    ("memlok = '8M'", "unknown key 'memlok'; did you mean memlock?"),
    ("prefault_stack = '1M'", "unknown key 'prefault_stack'; did you mean prefault-stack?"),
    ("--nice = 1", "unknown key '--nice'; did you mean nice?"),
    ("comand = ['x']", "unknown key 'comand'; did you mean command?"),
    ("profile = 'x'", 'unknown key \'profile\'; a profile takes another as its parent by extends'),
    ("help = true", "unknown key 'help'"),
    ("limit = 'nofile=3'", "limit: use a table: [limit] and lines such as nofile = 4096"),
    ("[limit]\nnofile = [3]", "limit: '[3]' is neither a string nor a whole number"),
    ("memlock = true", "memlock: 'True' is neither a string nor a whole number"),
    ("memlock = 1.5", "memlock: '1.5' is neither a string nor a whole number"),
    ("memlock = ['8M']", "memlock: takes one value, not an array"),
    ("report = \"a\\u0000b\"", "holds a NUL"),
    ("command = './app'", "command: use an array of strings"),
    ("command = []", "command: use an array of strings"),
    ("command = ['']", "command: use an array of strings"),
    ("command = [1]", "command: use an array of strings"),
    ("command = [\"a\\u0000\"]", "command: use an array of strings"),
    ("extends = ''", "extends: use the name of one profile"),
    ("extends = ['a']", "extends: use the name of one profile"),
    ("extends = './a'", "extends: use the name of one profile"),
    ("fit = 3", "fit: use a table: [fit] and lines for locked_bytes, resident_bytes, threads"),
    (FIT + "locked = 1", "unknown key 'locked' in [fit]; did you mean locked_bytes?"),
    ("[fit]\nlocked_bytes = 1\nthreads = 1", "[fit] has no resident_bytes"),
    ("[fit]\nlocked_bytes = '8M'\nresident_bytes = 1\nthreads = 1", "'8M' is no whole number"),
    ("[fit]\nlocked_bytes = -1\nresident_bytes = 1\nthreads = 1", "no whole number from 0 on"),
    ("[fit]\nlocked_bytes = 1\nresident_bytes = 1.5\nthreads = 1", "no whole number from 1 on"),
    ("[fit]\nlocked_bytes = 1\nresident_bytes = 1\nthreads = true", "no whole number from 1 on"),
    ("[fit]\nlocked_bytes = 1\nresident_bytes = 1\nthreads = 0", "no whole number from 1 on"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_key_is_refused_with_file_and_reason(text, message):
    """Nothing in a profile is ignored."""
    finding = refused(profile, text)
    assert finding.code == "profile-invalid"
    assert finding.what.startswith(f"{PATH}: ")
    assert message in finding.what


def test_a_profile_carries_what_was_measured():
    """The table [fit] is no option: it comes with the options, exact."""
    options = resolve(layer=profile("nice = 3\n" + FIT))
    assert options.fitted == Fitted(48234496, 62914560, 12)
    assert options.origin["nice"] == "profile"


def test_what_was_measured_is_inherited_whole():
    """A child without the table has its parent's; one with it keeps its own, key by key."""
    own = "[fit]\nlocked_bytes = 1\nresident_bytes = 2\nthreads = 3\n"
    parent = profile(FIT)
    assert resolve(layer=profile("nice = 3", parent)).fitted == parent.fitted
    assert resolve(layer=profile(own, parent)).fitted == Fitted(1, 2, 3)
    assert resolve(layer=profile("nice = 3", profile(""))).fitted is None
    assert resolve().fitted is None


@pytest.mark.parametrize(
    "table", [{}, {"format": 2}, {"format": True}, {"format": 1.0}, {"format": "1"}]
)
def test_a_profile_says_its_format(table):
    """So that a later one is refused, not half understood."""
    finding = refused(read_profile, table, PATH)
    assert finding.code == "profile-invalid"
    assert "format = 1" in finding.what


def test_a_parent_has_no_parent():
    """One level is what a reader can keep in mind."""
    parent = profile("extends = 'base'")
    finding = refused(profile, "extends = 'robot'", parent)
    assert finding.code == "profile-invalid"
    assert "has extends itself, 'base': one parent is all" in finding.what
