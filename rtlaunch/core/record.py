"""The typed base of every record on the launch path.

Why not dataclasses or typing.NamedTuple: importing either costs more than the
rest of a launch (17 ms and 9 ms against a bare interpreter's 11 ms). A record
is a class body of annotations; this metaclass turns them into ``__slots__``
and type checkers see a frozen dataclass (PEP 681).

It must not grow features: no conversion, no validation, no ordering.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, dataclass_transform
else:

    def dataclass_transform(**_):
        """Stand in for typing's marker, which only type checkers read."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True, eq_default=True)
class RecordType(type):
    """Turn the annotations of a class body into slots, in order, with defaults."""

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> RecordType:
        """Build the class; a default in the body becomes the field's default."""
        own = tuple(body.get("__annotations__", ()))
        defaults = {field: body.pop(field) for field in own if field in body}
        body["__slots__"] = own
        cls = super().__new__(mcs, name, bases, body)
        inherited = getattr(cls, "_fields", ())
        cls._fields = inherited + own
        cls._defaults = {**getattr(cls, "_defaults", {}), **defaults}
        return cls


class Record(metaclass=RecordType):
    """A value with named fields; compared and printed by them, never changed in place.

    A mutable default is shared between instances: give tuples, not lists.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = type(self)._fields
        if named or len(values) != len(fields):
            values = self._complete(values, named)
        for field, value in zip(fields, values):  # noqa: B905 - as many as fields; it costs
            setattr(self, field, value)

    @classmethod
    def _complete(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """Return all values in order, defaults included; TypeError where one lacks or is double."""
        fields = cls._fields
        if len(values) > len(fields):
            raise TypeError(f"{cls.__name__} takes {len(fields)} fields, got {len(values)}")
        given = {**dict(zip(fields, values, strict=False)), **named}
        merged = {**cls._defaults, **given}
        if len(merged) != len(fields) or len(given) != len(values) + len(named):
            raise TypeError(f"{cls.__name__}: fields are {fields}, got {sorted(given)}")
        return tuple(merged[field] for field in fields)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in type(self)._fields)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, field) for field in type(self)._fields))

    def __repr__(self) -> str:
        shown = ", ".join(f"{field}={getattr(self, field)!r}" for field in type(self)._fields)
        return f"{type(self).__name__}({shown})"


if TYPE_CHECKING:
    from typing import TypeVar

    AnyRecord = TypeVar("AnyRecord", bound=Record)


def replace(record: AnyRecord, **changes: Any) -> AnyRecord:
    """Copy ``record`` with ``changes``; TypeError on a field that it lacks."""
    fields = type(record)._fields
    return type(record)(**{**{field: getattr(record, field) for field in fields}, **changes})
