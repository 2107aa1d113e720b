"""The report's values: what was not measured is null, what is absolute is a string."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtlaunch.core.findings import Finding
from rtlaunch.core.outcome import RUNNING, Faults, Image, Lock, Outcome
from rtlaunch.core.record import Record
from rtlaunch.core.units import UNLIMITED
from rtlaunch.report.document import document, instant, plain
from rtlaunch.report.verdict import lock_ok, unlocked_code, verdict
from tests import schema
from tests.unit import outcomes

TOP = [
    *("schema", "rtlaunch", "state", "complete", "verdict", "host", "time", "target", "mode"),
    *("options", "limits", "caps", "sched", "threads", "budget", "lock", "thp", "heap"),
    *("hugepages", "watch", "exit", "rusage", "findings"),
]


@pytest.mark.parametrize("name", outcomes.EVERY)
def test_every_report_is_what_the_schema_says(name):
    """Reports of all kinds are valid, and hold no key that the schema does not describe."""
    report = json.loads(json.dumps(document(outcomes.EVERY[name]())))
    assert schema.errors(report, closed=True) == []


def test_top_level_keys_are_the_contracts():
    """The keys, and their order, are the contract's."""
    assert list(document(Outcome())) == TOP


def test_an_unknown_field_is_an_error():
    """A field that the report does not have cannot be filled by mistake."""
    with pytest.raises(AttributeError, match="lokced_bytes"):
        Lock().lokced_bytes = 1


# --- the verdict -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("nothing", None),
        ("started", None),
        ("clean", "clean"),
        ("faulted", "faulted"),
        ("unlocked", "unlocked"),
        ("refused", "refused"),
    ],
)
def test_the_verdict(name, word):
    """Each kind of run has its word, and a run that is not over has none."""
    outcome = outcomes.EVERY[name]()
    assert (verdict(outcome), document(outcome)["verdict"]) == (word, word)


@pytest.mark.parametrize("code", ["launch-failed", "died-before-go"])
def test_what_broke_is_no_refusal(code):
    """A launch that broke on its way is failed: nobody decided that."""
    assert verdict(outcomes.refused(code)) == "failed"


def test_not_counted_is_not_clean():
    """A locked run whose faults nobody counted has no verdict, rather than a good one."""
    outcome = outcomes.clean()
    outcome.watch.after_arm = Faults(major=None, minor=3)
    assert verdict(outcome) is None
    outcome.watch.after_arm = None
    assert verdict(outcome) is None


def test_a_limit_that_was_exceeded_is_a_fault():
    """Exit 123, by minor faults too, is not clean."""
    outcome = outcomes.clean()
    outcome.exit.rtlaunch_code = 123
    assert verdict(outcome) == "faulted"


def test_a_running_target_has_no_verdict():
    """As long as it runs it can still fault."""
    outcome = outcomes.clean()
    outcome.state = RUNNING
    assert verdict(outcome) is None
    assert document(outcome)["complete"] is False


def test_the_exit_code_of_the_target_is_no_verdict():
    """A program that fails on its own account was locked and clean all the same."""
    outcome = outcomes.clean()
    outcome.exit.code = outcome.exit.rtlaunch_code = 3
    assert verdict(outcome) == "clean"


@given(st.lists(st.sampled_from([True, False, None])))
def test_lock_ok_is_the_conjunction_over_images(locked):
    """lock.ok is true only if every image was proven locked; null without any."""
    outcome = outcomes.clean()
    outcome.target.images = tuple(Image(path="/x", locked=each) for each in locked)
    expected = None if not locked else all(each is True for each in locked)
    assert lock_ok(outcome) is expected
    assert document(outcome)["lock"]["ok"] is expected


def test_the_first_image_that_is_not_locked_says_why():
    """lock.why is the cause, not the rule by which it should have worked."""
    outcome = outcomes.unlocked()
    outcome.lock.why = "the program is dynamic"
    assert document(outcome)["lock"]["why"] == "RLIMIT_MEMLOCK is 8 MiB"


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ((), "lock"),
        ((Finding("thp-always", ""),), "lock"),
        ((Finding("environment-unknown", "", waived=True),), "lock"),
        ((Finding("swap-on", ""), Finding("target-static", "", waived=True)), "target-static"),
        ((Finding("exec-unannounced", ""),), "exec-unannounced"),
    ],
)
def test_the_code_that_let_it_run_unlocked(findings, code):
    """The verdict "not locked: CODE" has the finding that was allowed."""
    outcome = outcomes.unlocked()
    outcome.findings = findings
    assert unlocked_code(outcome) == code


# --- values ----------------------------------------------------------------------------------


def test_nothing_measured_is_null_and_never_zero():
    """A report of nothing holds no number at all."""

    def numbers(value):
        if isinstance(value, dict):
            return [found for item in value.values() for found in numbers(item)]
        if isinstance(value, list):
            return [found for item in value for found in numbers(item)]
        return [value] if isinstance(value, int) and not isinstance(value, bool) else []

    assert numbers(document(Outcome())) == []


def test_no_limit_is_unlimited():
    """No limit is a word, wherever it stands."""
    shown = document(outcomes.clean())
    assert shown["limits"]["memlock"]["after"] == {"soft": "unlimited", "hard": "unlimited"}
    assert shown["lock"]["headroom_bytes"] == "unlimited"
    assert document(outcomes.refused())["findings"][1]["values"]["hard"] == "unlimited"


def test_a_limit_of_zero_is_zero():
    """Zero is a limit."""
    outcome = outcomes.clean()
    outcome.limits["memlock"].after = (0, 0)
    outcome.lock.headroom_bytes = 0
    shown = document(outcome)
    assert shown["limits"]["memlock"]["after"] == {"soft": 0, "hard": 0}
    assert shown["lock"]["headroom_bytes"] == 0


def test_instants_are_relative_to_the_start():
    """Every instant is ns since started_at; the absolute start is a string."""
    shown = document(outcomes.clean())
    assert shown["time"]["started_monotonic_ns"] == str(outcomes.START)
    assert (shown["time"]["forked_ns"], shown["time"]["ended_ns"]) == (1000, 9000)
    assert shown["time"]["armed_ns"] is None
    assert shown["target"]["images"][0]["at_ns"] == 2000
    assert document(outcomes.faulted())["watch"]["faults"][0]["at_ns"] == 5000


def test_addresses_are_hexadecimal_strings():
    """An address does not fit the 53 bits of JSON's readers."""
    assert document(outcomes.faulted())["watch"]["faults"][0]["ip"] == "0xffffffff81000000"
    assert document(outcomes.faulted())["watch"]["sites"][0]["address"] == "0x7f00deadb000"
    assert document(outcomes.unlocked())["lock"]["unlocked_mappings"] == [
        {
            "address": "0x7f0000000000",
            "bytes": 8192,
            "name": "[heap]",
            "resident_bytes": 4096,
            "why": "not resident",
        }
    ]


def test_numbers_that_the_kernel_has_words_for():
    """errno, signals and capabilities go by name."""
    outcome = outcomes.unlocked()
    outcome.exit.signal = 35
    shown = document(outcome)
    assert shown["lock"]["errno"] == "ENOMEM"
    assert shown["exit"]["signal"] == "SIGRTMIN+1"
    assert shown["caps"]["launcher"]["permitted"] == ["ipc_lock"]
    assert shown["caps"]["target"] is None


def test_options_have_value_and_origin():
    """Each option is as typed, with where it came from."""
    assert document(outcomes.clean())["options"]["nice"] == {"value": "-5", "from": "cli"}


@pytest.mark.parametrize(
    ("unix_ns", "written"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_790_000_000_123_456_789, "2026-09-21T14:13:20.123456Z"),
    ],
)
def test_instants_of_the_calendar(unix_ns, written):
    """started_at is ISO 8601, UTC, to the microsecond."""
    assert instant(unix_ns) == written


def test_records_of_others_become_objects():
    """A fault that is a record is written by its fields."""

    class Site(Record):
        mapping: str
        ip: int
        tids: tuple[int, ...] = (1, 2)

    assert plain(Site("x", 16)) == {"mapping": "x", "ip": "0x10", "tids": [1, 2]}


@given(st.binary(max_size=20), st.integers(min_value=-(1 << 70), max_value=1 << 70))
def test_any_value_survives_json(raw, number):
    """Bytes that are no UTF-8, and huge numbers, give a report that every reader takes."""
    name = raw.decode("utf-8", "surrogateescape")
    outcome = outcomes.clean()
    outcome.target.argv = (name,)
    outcome.target.images = (Image(path=name, locked=True),)
    values = {"path": name, "raw": raw, "number": number, "set": {number}, "none": None}
    outcome.findings = (Finding("usage", name, name, values),)
    json.dumps(document(outcome), ensure_ascii=False).encode("utf-8")


def test_unlimited_is_resources_infinity():
    """The engine's sign for no limit is RLIM_INFINITY as Python has it."""
    import resource

    assert resource.RLIM_INFINITY == UNLIMITED
