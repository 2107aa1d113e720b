"""What was asked, from all sources, as one :class:`~rtlaunch.core.options.Options`.

The command line wins over the environment, that over the profile, that over its parent,
that over the default. All that was given is read, whether it wins or not: an error in a
profile is not hidden by an option that happens to override it. The environment and the
profile come in as values; neither is fetched here. What reads values is imported once
there is one to read: a default is none.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.options import (
    BY_NAME,
    CLI,
    DEFAULT,
    ENVIRONMENT,
    LISTS,
    PROFILE,
    RESERVED_VARIABLES,
    SETTINGS,
    TWIN_PREFIX,
    Options,
    Row,
)
from rtlaunch.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from rtlaunch.core.options import Fitted
    from rtlaunch.core.profile import Profile

    # option's name → its texts, in order; a switch's are "true" and "false"
    Raw = Mapping[str, tuple[str, ...]]

TWINS = {row.twin: row for row in SETTINGS}
PAIRED = ("rewrite", "mapexit")  # the kinds whose items are pairs
CODE_OF = {CLI: "usage", ENVIRONMENT: "environment-value", PROFILE: "profile-invalid"}


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
    origin = {row.name: DEFAULT for row in SETTINGS}
    asked = {name for source in sources for name in source.texts}
    for row in SETTINGS:
        if row.name in asked:
            values[row.field], origin[row.name] = _choose(row, sources)
    return Resolved(Options(**values, origin=origin, fitted=_fitted(profile)), findings)


def profile_asked(raw: Raw, environ: Mapping[str, str]) -> str:
    """Return the profile that command line or environment names, or an empty string.

    Raises Refusal when the name is empty.
    """
    twins, _ = read_environment(environ)
    sources = (Source(ENVIRONMENT, twins), Source(CLI, raw))
    if not any("profile" in source.texts for source in sources):
        return ""
    value, _ = _choose(BY_NAME["profile"], sources)
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


def _fitted(profile: Profile | None) -> Fitted | None:
    """Return what ``rtlaunch fit`` wrote into the profile, or into its parent."""
    if profile is None:
        return None
    from rtlaunch.core.profile import fitted_of

    return fitted_of(profile)


# --- choosing --------------------------------------------------------------------------------


def _profile_sources(profile: Profile | None) -> tuple[Source, ...]:
    """Return the sources of a profile and its parent, the weaker first."""
    if profile is None:
        return ()
    return (*_profile_sources(profile.parent), Source(PROFILE, profile.texts, profile.path))


def _choose(row: Row, sources: Iterable[Source]) -> tuple[Any, str]:
    """Return the value of a ``row`` that was given and its origin; ``sources`` go up to strong."""
    given = [(source.origin, _read(row, source)) for source in sources if row.name in source.texts]
    origin, items = given[-1]
    if row.kind == "rlimit":
        return _merge_by_name(item for _, items in given for item in items), origin
    if row.kind == "hugepages":
        return _concatenate(items), origin
    if row.kind in PAIRED:
        return _once_each(row, items, origin), origin
    if row.repeatable:
        return _merge_lists(items), origin
    return items[-1], origin


def _read(row: Row, source: Source) -> list[Any]:
    """Read every text that ``source`` has for ``row``."""
    from rtlaunch.core import kinds

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


def _concatenate(lists: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Join the lists of one source, equal items too; an empty one (``none``) clears."""
    joined: tuple[Any, ...] = ()
    for items in lists:
        joined = (*joined, *items) if items else ()
    return joined


def _once_each(row: Row, lists: Iterable[tuple[Any, ...]], origin: str) -> tuple[Any, ...]:
    """Join pairs, none of whose first halves may come with two second ones (Refusal)."""
    joined: dict[tuple[Any, ...], None] = dict.fromkeys(_concatenate(lists))
    firsts = [first for first, _ in joined]
    twice = tuple(pair for pair in joined if firsts.count(pair[0]) > 1)
    if twice:
        from rtlaunch.core import spelling

        told = spelling.write(row, twice)
        raise Refusal(
            Finding(
                CODE_OF[origin],
                f"{row.long}: the same is asked for twice, to different ends: {told}",
                values={"source": origin, "option": row.name, "value": told},
            )
        )
    return tuple(joined)


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
    if row.kind in LISTS:
        items = value.replace(",", " ").split()
        return (",".join(items),) if items else ()
    return (value,)


def _unknown_variables(names: tuple[str, ...]) -> Finding:
    """Warn once for all of them: Kubernetes sets seven for a Service called rtlaunch."""
    from rtlaunch.core.units import near

    told = (f"{name} (did you mean {near(name, TWINS)}?)" if near(name, TWINS) else name
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
