"""The table of options and the record agree, with each other and with the contract."""

import pytest

from rtlaunch.core import kinds, spelling
from rtlaunch.core.options import ACTION, BY_NAME, SETTINGS, SWITCH, TABLE, Options

# The contract's options.
NOW = (
    "lock prefault-stack memlock core limit ambient-caps user no-new-privs sched cpu-list nice "
    "timer-slack hugepages heap heap-pages arenas thread-stack thp via children watch arm "
    "on-major on-minor max-major max-minor mode signal-to rewrite map-exit pdeathsig notify allow "
    "best-effort report log-format quiet verbose profile help version"
)


def test_the_records_fields_are_the_rows():
    """A row without a field, or a field without a row, is an option half made."""
    assert Options._fields == (*(row.field for row in SETTINGS), "origin", "fitted")


def test_the_table_has_the_contracts_options_and_no_other():
    """No more and no less."""
    assert {row.name for row in TABLE} == set(NOW.split())


def test_no_option_is_called_as_kubernetes_calls_its_variables():
    """RTLAUNCH_PORT and RTLAUNCH_SERVICE_HOST are set for a Service of that name."""
    assert not {"port", "host", "service-host", "service-port"} & set(BY_NAME)


def test_short_options_are_those_of_the_contract():
    """-h -V -q -v, and no other."""
    assert {row.short: row.name for row in TABLE if row.short} == {
        "h": "help", "V": "version", "q": "quiet", "v": "verbose",
    }  # fmt: skip


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_a_default_is_a_text_that_can_be_given(row):
    """What help shows as the default, typed, gives what a launch without it gets."""
    read = kinds.read(row, row.default)
    value = () if row.repeatable else read
    assert getattr(Options(), row.field) == value
    assert spelling.write(row, value) == row.default


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_row_says_what_its_value_looks_like(row):
    """Whatever takes a value has a metavar, whatever takes none has not; all have help."""
    assert bool(row.metavar) == row.takes_value == (row.kind not in (SWITCH, ACTION))
    assert row.help
    assert row.help == row.help.strip(" .")


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("lock", "current,future"),
        ("prefault-stack", "512K"),
        ("memlock", "max"),
        ("core", "max"),
        ("via", "auto"),
        ("children", "none"),
        ("watch", "auto"),
        ("arm", "locked"),
        ("on-major", "log"),
        ("on-minor", "none"),
        ("mode", "auto"),
        ("pdeathsig", "TERM"),
    ],
)
def test_the_defaults_are_the_contracts(name, default):
    """As its table of options has them."""
    assert BY_NAME[name].default == default
