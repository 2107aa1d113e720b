"""The shipped schema: it is one, it describes every key, and its validator can say no."""

from __future__ import annotations

import copy
import json

import pytest

from rtlaunch.core.outcome import Outcome
from rtlaunch.core.where import KINDS
from rtlaunch.report.document import SCHEMA, document
from rtlaunch.report.verdict import VERDICTS
from tests import schema
from tests.unit import outcomes


def test_the_schema_is_shipped_and_names_the_report():
    """The schema is part of the package, and is of the report that is written."""
    shipped = schema.load()
    assert shipped["$id"] == SCHEMA
    assert shipped["properties"]["schema"] == {"const": SCHEMA}


def test_every_word_of_an_enumeration_is_the_codes_own():
    """Verdicts and places in the schema are those that exist."""
    properties = schema.load()["properties"]
    assert properties["verdict"]["enum"] == [*VERDICTS, None]
    assert properties["host"]["properties"]["where"]["enum"] == [*KINDS, None]


def places(value, at=()):
    """Yield the path to every key of the report."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*at, name)
            yield from places(item, (*at, name))


FREE = ("options", "limits")  # objects whose keys are names of things


@pytest.mark.parametrize(
    "path", [path for path in places(document(Outcome())) if path[0] not in FREE]
)
def test_no_key_may_disappear(path):
    """Every key is required: a report without one is invalid."""
    report = json.loads(json.dumps(document(outcomes.clean())))
    parent = report
    for name in path[:-1]:
        parent = parent[name]
    if parent is None:
        parent = report
        path = path[:1]
    del parent[path[-1]]
    assert schema.errors(report)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "fine"),
        (("schema",), "rtlaunch.report/2"),
        (("complete",), None),
        (("lock", "locked_bytes"), -1),
        (("lock", "locked_bytes"), "11"),
        (("lock", "locked_bytes"), True),
        (("lock", "headroom_bytes"), "endless"),
        (("lock", "ok"), 1),
        (("time", "started_monotonic_ns"), 5),
        (("time", "started_at"), "yesterday"),
        (("target", "argv"), "python3"),
        (("exit", "signal"), "TERM"),
        (("limits", "memlock", "before", "soft"), -1),
        (("options", "nice", "from"), "heaven"),
    ],
)
def test_a_wrong_value_is_found(path, value):
    """The validator finds a value of the wrong type, range or wording, wherever it stands."""
    report = json.loads(json.dumps(document(outcomes.clean())))
    assert schema.errors(report) == []
    parent = report
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    assert schema.errors(report)


def test_readers_bear_new_keys():
    """The report only grows: a key that this schema does not know is valid to a reader."""
    report = copy.deepcopy(document(outcomes.clean()))
    report["new"] = 1
    assert schema.errors(report) == []
    assert schema.errors(report, closed=True) == ["$: new is not described"]
