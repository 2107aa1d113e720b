"""A validator for what report/schema.json uses of JSON Schema 2020-12, and not a word more.

Why not a library: the schema is part of the contract, and eighty lines that can
be read check it. A keyword that is not known here is an error, never skipped.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description"}

TYPES: dict[str, Any] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def load() -> dict[str, Any]:
    """Return the schema that the package ships."""
    return json.loads(resources.files("rtlaunch.report").joinpath("schema.json").read_text())


def errors(value: Any, closed: bool = False) -> list[str]:
    """Return what is wrong with a report, each with its place; empty if nothing is.

    ``closed`` also reports keys that the schema does not describe: a reader must
    bear them, a writer must not write them.
    """
    schema = load()
    return list(_Validator(schema, closed).check(value, schema, "$"))


class _Validator:
    def __init__(self, root: dict[str, Any], closed: bool) -> None:
        self.root = root
        self.closed = closed

    def check(self, value: Any, schema: dict[str, Any], at: str):
        for keyword, rule in schema.items():
            if keyword not in ANNOTATIONS:
                yield from getattr(self, "on_" + keyword.lstrip("$"))(value, rule, schema, at)

    def on_ref(self, value, rule, schema, at):
        target = self.root
        for part in rule.removeprefix("#/").split("/"):
            target = target[part]
        yield from self.check(value, target, at)

    def on_type(self, value, rule, schema, at):
        names = [rule] if isinstance(rule, str) else rule
        if not any(TYPES[name](value) for name in names):
            yield f"{at}: {value!r} is no {' or '.join(names)}"

    def on_enum(self, value, rule, schema, at):
        if not any(value == item and type(value) is type(item) for item in rule):
            yield f"{at}: {value!r} is not one of {rule}"

    def on_const(self, value, rule, schema, at):
        if value != rule:
            yield f"{at}: {value!r} is not {rule!r}"

    def on_pattern(self, value, rule, schema, at):
        if isinstance(value, str) and not re.search(rule, value):
            yield f"{at}: {value!r} does not match {rule}"

    def on_minimum(self, value, rule, schema, at):
        if TYPES["integer"](value) and value < rule:
            yield f"{at}: {value} is below {rule}"

    def on_anyOf(self, value, rule, schema, at):  # noqa: N802  (the keyword's own spelling)
        if all(list(self.check(value, option, at)) for option in rule):
            yield f"{at}: {value!r} fits none of {rule}"

    def on_required(self, value, rule, schema, at):
        if isinstance(value, dict):
            yield from (f"{at}: {name} lacks" for name in rule if name not in value)

    def on_properties(self, value, rule, schema, at):
        if not isinstance(value, dict):
            return
        for name, item in value.items():
            if name in rule:
                yield from self.check(item, rule[name], f"{at}.{name}")
            elif self.closed and "additionalProperties" not in schema:
                yield f"{at}: {name} is not described"

    def on_additionalProperties(self, value, rule, schema, at):  # noqa: N802  (as above)
        if isinstance(value, dict):
            for name in set(value) - set(schema.get("properties", {})):
                yield from self.check(value[name], rule, f"{at}.{name}")

    def on_items(self, value, rule, schema, at):
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.check(item, rule, f"{at}[{index}]")
