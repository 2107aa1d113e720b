"""What a profile file says, from the table that TOML makes of it: texts, as the command line has.

What the texts mean is :mod:`rtlaunch.core.settings`' business, which file it is
:mod:`rtlaunch.linux.profiles`'. Imported only where there is a profile.
"""

from __future__ import annotations

from rtlaunch.core.findings import Finding, Refusal
from rtlaunch.core.options import LISTS, PROFILE, SETTINGS, SWITCH, Fitted, Row
from rtlaunch.core.record import Record, replace
from rtlaunch.core.units import did_you_mean, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtlaunch.core.settings import Raw

PROFILE_FORMAT = 1
PROFILE_ONLY = ("format", "extends", "command", "fit")  # keys of a profile that are no options
FIT_LEAST = {"locked_bytes": 0, "resident_bytes": 1, "threads": 1}  # the table [fit], all of it
FIT_MOST = 2**62
NOT_IN_PROFILES = ("profile",)
BY_KEY = {row.name: row for row in SETTINGS if row.name not in NOT_IN_PROFILES}


class Profile(Record):
    """One profile file, read but not parsed; ``parent`` is what its ``extends`` names.

    ``fitted`` is its table ``[fit]``, None where it has none.
    """

    path: str
    texts: Raw
    command: tuple[str, ...] = ()
    extends: str = ""
    parent: Profile | None = None
    fitted: Fitted | None = None


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
    return Profile(
        path,
        texts,
        _profile_command(table, path),
        _profile_extends(table, path),
        fitted=_profile_fitted(table, path),
    )


def with_parent(profile: Profile, parent: Profile) -> Profile:
    """Put ``parent`` under ``profile``; Refusal when ``parent`` has one too: depth is one."""
    if parent.extends:
        message = (
            f"extends: {parent.path} has extends itself, {shown(parent.extends)}: one parent is all"
        )
        raise _invalid(profile.path, "extends", message)
    return replace(profile, parent=parent)


def fitted_of(profile: Profile | None) -> Fitted | None:
    """Return what was measured: the profile's own table, else its parent's."""
    while profile and profile.fitted is None:
        profile = profile.parent
    return profile.fitted if profile else None


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


def _profile_fitted(table: Mapping[str, object], path: str) -> Fitted | None:
    """Return the table ``[fit]``; Refusal for a key that is missing, unknown or no number."""
    if "fit" not in table:
        return None
    given = table["fit"]
    if not isinstance(given, dict):
        keys = ", ".join(FIT_LEAST)
        raise _invalid(path, "fit", f"fit: use a table: [fit] and lines for {keys}")
    for key in given:
        if key not in FIT_LEAST:
            hint = did_you_mean(key.lower(), FIT_LEAST)
            raise _invalid(path, f"fit.{key}", f"unknown key {shown(key)} in [fit]{hint}")
    return Fitted(*(_fit_number(given, key, path) for key in FIT_LEAST))


def _fit_number(given: Mapping[str, object], key: str, path: str) -> int:
    if key not in given:
        raise _invalid(path, f"fit.{key}", f"[fit] has no {key}: rtlaunch fit writes all of it")
    value = given[key]
    if type(value) is not int or not FIT_LEAST[key] <= value <= FIT_MOST:  # True is an int too
        message = f"[fit] {key}: {shown(str(value))} is no whole number from {FIT_LEAST[key]} on"
        raise _invalid(path, f"fit.{key}", message)
    return value


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
    if row.kind in LISTS:
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
