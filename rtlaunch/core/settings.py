"""What was asked, from all sources, as one :class:`~rtlaunch.core.options.Options`.

The command line wins over the environment, that over the profile, that over its parent,
that over the default. All that was given is read, whether it wins or not: an error in a
profile is not hidden by an option that happens to override it. The environment and the
profile come in as values; neither is fetched here.
"""

from __future__ import annotations

from rtlaunch.core import kinds
from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.options import (
    CLI,
    DEFAULT,
    ENVIRONMENT,
    PROFILE,
    RESERVED_VARIABLES,
    SETTINGS,
    SWITCH,
    TWIN_PREFIX,
    Options,
    Row,
)
from rtlaunch.core.record import Record
from rtlaunch.core.units import did_you_mean, near, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    # option's name → its texts, in order; a switch's are "true" and "false"
    Raw = Mapping[str, tuple[str, ...]]

PROFILE_FORMAT = 1
PROFILE_ONLY = ("format", "extends", "command")  # keys of a profile that are no options
NOT_IN_PROFILES = ("profile",)
TWINS = {row.twin: row for row in SETTINGS}
BY_KEY = {row.name: row for row in SETTINGS if row.name not in NOT_IN_PROFILES}
CODE_OF = {CLI: "usage", ENVIRONMENT: "environment-value", PROFILE: "profile-invalid"}


class Profile(Record):
    """One profile file, read but not parsed; ``parent`` is what its ``extends`` names."""

    path: str
    texts: Raw
    command: tuple[str, ...] = ()
    extends: str = ""
    parent: Profile | None = None


class Resolved(Record):
    """The options, and the warnings that came up while they were put together."""

    options: Options
    findings: tuple[Finding, ...] = ()


class Source(Record):
    """Texts of one origin; ``path`` is set for a profile."""

    origin: str
    texts: Raw
    path: str = ""

    def call(self, row: Row) -> str:
        """Name ``row``'s option as one writes it in this source."""
        names = {CLI: row.long, ENVIRONMENT: row.twin, PROFILE: f"{self.path}: {row.name}"}
        return names[self.origin]


def resolve(raw: Raw, environ: Mapping[str, str], profile: Profile | None) -> Resolved:
    """Put together what command line, environment and profile ask for.

    Raises Refusal (``usage``, ``environment-value``, ``profile-invalid``) for the first
    value that is none, naming source, option, value and what is allowed.
    """
    twins, findings = read_environment(environ)
    sources = (*_profile_sources(profile), Source(ENVIRONMENT, twins), Source(CLI, raw))
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for row in SETTINGS:
        values[row.field], origin[row.name] = _choose(row, sources)
    return Resolved(Options(**values, origin=origin), findings)


def profile_asked(raw: Raw, environ: Mapping[str, str]) -> str:
    """Return the profile that command line or environment names, or an empty string.

    Raises Refusal when the name is empty.
    """
    twins, _ = read_environment(environ)
    value, _ = _choose(
        next(row for row in SETTINGS if row.name == "profile"),
        (Source(ENVIRONMENT, twins), Source(CLI, raw)),
    )
    return str(value)


def command_asked(typed: Sequence[str], profile: Profile | None) -> tuple[str, ...]:
    """Return the typed command, else the profile's, else its parent's; Refusal if none."""
    step = profile
    while not typed and step:
        typed, step = step.command, step.parent
    if typed:
        return tuple(typed)
    where = f"{profile.path} has no command = [...] either" if profile else "no command was given"
    raise Refusal(
        Finding(
            "usage",
            f"{where}: rtlaunch [OPTIONS] -- COMMAND [ARG...]",
            try_now="rtlaunch --help",
        )
    )


# --- choosing --------------------------------------------------------------------------------


def _profile_sources(profile: Profile | None) -> tuple[Source, ...]:
    """Return the sources of a profile and its parent, the weaker first."""
    if profile is None:
        return ()
    return (*_profile_sources(profile.parent), Source(PROFILE, profile.texts, profile.path))


def _choose(row: Row, sources: Iterable[Source]) -> tuple[Any, str]:
    """Return the value of ``row`` and its origin; ``sources`` go from weak to strong."""
    given = [(source.origin, _read(row, source)) for source in sources if row.name in source.texts]
    if not given:
        return () if row.repeatable else kinds.read(row, row.default), DEFAULT
    origin, items = given[-1]
    if row.kind == "rlimit":
        return _merge_by_name(item for _, items in given for item in items), origin
    if row.repeatable:
        return _merge_lists(items), origin
    return items[-1], origin


def _read(row: Row, source: Source) -> list[Any]:
    """Read every text that ``source`` has for ``row``."""
    items = []
    for text in source.texts[row.name]:
        try:
            items.append(kinds.read(row, text))
        except ValueError as error:
            raise Refusal(
                Finding(
                    CODE_OF[source.origin],
                    f"{source.call(row)}: {error}",
                    values={"source": source.origin, "option": row.name, "value": text},
                )
            ) from None
    return items


def _merge_by_name(demands: Iterable[Any]) -> tuple[Any, ...]:
    """Keep the last demand of each name; a ``none`` (None) clears what came before it."""
    merged: dict[str, Any] = {}
    for demand in demands:
        if demand is None:
            merged.clear()
        else:
            merged[demand.name] = demand
    return tuple(merged.values())


def _merge_lists(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Join the lists of one source, each item once; an empty one (``none``) clears."""
    merged: dict[str, None] = {}
    for items in lists:
        if not items:
            merged.clear()
        merged.update(dict.fromkeys(items))
    return tuple(merged)


# --- the environment -------------------------------------------------------------------------


def read_environment(environ: Mapping[str, str]) -> tuple[Raw, tuple[Finding, ...]]:
    """Return the texts of the twins in ``environ``, and a warning for unknown RTLAUNCH_ names."""
    ours = [name for name in environ if name.startswith(TWIN_PREFIX) and environ[name]]
    texts = {TWINS[name].name: _twin_texts(TWINS[name], environ[name]) for name in ours
             if name in TWINS}  # fmt: skip
    unknown = tuple(
        name for name in sorted(ours) if name not in TWINS and name not in RESERVED_VARIABLES
    )
    given = {name: items for name, items in texts.items() if items}
    return given, (_unknown_variables(unknown),) if unknown else ()


def _twin_texts(row: Row, value: str) -> tuple[str, ...]:
    """Split a twin's value at spaces if the option takes several; commas do in lists too."""
    if row.repeatable:
        return tuple(value.split())
    if row.kind in kinds.LISTS:
        items = value.replace(",", " ").split()
        return (",".join(items),) if items else ()
    return (value,)


def _unknown_variables(names: tuple[str, ...]) -> Finding:
    """Warn once for all of them: Kubernetes sets seven for a Service called rtlaunch."""
    known = [row.twin for row in SETTINGS]
    told = (f"{name} (did you mean {near(name, known)}?)" if near(name, known) else name
            for name in names)  # fmt: skip
    return Finding(
        "environment-unknown",
        f"no option belongs to {', '.join(told)}",
        why="it was ignored, and stays in the target's environment; Kubernetes sets such "
        "variables for a Service that is called rtlaunch",
        values={"variables": list(names)},
    )


def without_twins(environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` without what configures rtlaunch.

    Only names that are ours go: a RTLAUNCH_PORT that Kubernetes set belongs to the
    target, which sees what it would see without us.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in TWINS and name not in RESERVED_VARIABLES
    }


# --- profiles --------------------------------------------------------------------------------


def read_profile(table: Mapping[str, object], path: str) -> Profile:
    """Turn the table of a TOML file into a Profile; Refusal ``profile-invalid`` names the key."""
    _check_format(table, path)
    texts: dict[str, tuple[str, ...]] = {}
    for key, value in table.items():
        if key in PROFILE_ONLY:
            continue
        if key not in BY_KEY:
            raise _invalid(path, key, f"unknown key {shown(key)}{_key_hint(key)}")
        try:
            texts[key] = _profile_texts(BY_KEY[key], value)
        except ValueError as error:
            raise _invalid(path, key, f"{key}: {error}") from None
    return Profile(path, texts, _profile_command(table, path), _profile_extends(table, path))


def with_parent(profile: Profile, parent: Profile) -> Profile:
    """Put ``parent`` under ``profile``; Refusal when ``parent`` has one too: depth is one."""
    if parent.extends:
        message = (
            f"extends: {parent.path} has extends itself, {shown(parent.extends)}: one parent is all"
        )
        raise _invalid(profile.path, "extends", message)
    return Profile(profile.path, profile.texts, profile.command, profile.extends, parent)


def _invalid(path: str, key: str, message: str) -> Refusal:
    values = {"source": PROFILE, "path": path, "option": key}
    return Refusal(Finding("profile-invalid", f"{path}: {message}", values=values))


def _key_hint(key: str) -> str:
    if key in NOT_IN_PROFILES:
        return '; a profile takes another as its parent by extends = "NAME"'
    return did_you_mean(key.lstrip("-").lower(), (*BY_KEY, *PROFILE_ONLY))


def _check_format(table: Mapping[str, object], path: str) -> None:
    given = table.get("format")
    if given is None:
        raise _invalid(path, "format", f"no format: put format = {PROFILE_FORMAT} at the top")
    if type(given) is not int or given != PROFILE_FORMAT:  # True and 1.0 equal 1 too
        message = f"format is {given!r}: this version reads format = {PROFILE_FORMAT}"
        raise _invalid(path, "format", message)


def _profile_command(table: Mapping[str, object], path: str) -> tuple[str, ...]:
    if "command" not in table:
        return ()
    given = table["command"]
    words = given if isinstance(given, list) else []
    if all(isinstance(word, str) and "\0" not in word for word in words) and any(words[:1]):
        return tuple(words)
    raise _invalid(path, "command", 'command: use an array of strings, as in ["./app", "-x"]')


def _profile_extends(table: Mapping[str, object], path: str) -> str:
    if "extends" not in table:
        return ""
    given = table["extends"]
    if isinstance(given, str) and given and "/" not in given and "\0" not in given:
        return given
    raise _invalid(path, "extends", 'extends: use the name of one profile, as in extends = "NAME"')


def _profile_texts(row: Row, value: object) -> tuple[str, ...]:
    """Return a key's value as texts of the command line; ValueError on another shape."""
    if row.kind == "rlimit":
        if not isinstance(value, dict):
            raise ValueError("use a table: [limit] and lines such as nofile = 4096")
        return tuple(f"{name}={_scalar_text(item)}" for name, item in value.items())
    if row.kind == SWITCH and isinstance(value, bool):
        return ("true" if value else "false",)
    if not isinstance(value, list):
        return (_scalar_text(value),)
    items = tuple(_scalar_text(item) for item in value)
    if row.repeatable:
        return items or ("none",)
    if row.kind in kinds.LISTS:
        return (",".join(items) or "none",)
    raise ValueError("takes one value, not an array")


def _scalar_text(value: object) -> str:
    """Return a string or whole number as text; ValueError for what no option takes."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(f"{shown(value)} holds a NUL, which no kernel interface takes")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{shown(str(value))} is neither a string nor a whole number")
