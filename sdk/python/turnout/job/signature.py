"""What the annotations of a job's function say: record types, row type, whether it asks for `Meta`."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from turnout.job.errors import CAN_EXPRESS, JobDefinitionError
from turnout.job.rows import Delete, Meta, Record, Row
from turnout.schema import JobKind

_MANY = frozenset(
    {
        list,
        tuple,
        set,
        frozenset,
        collections.abc.Iterable,
        collections.abc.Iterator,
        collections.abc.Generator,
        collections.abc.Sequence,
        collections.abc.Collection,
    }
)
_SHAPES = {
    JobKind.MAP: "(record: MyRecord) -> MyRow | None, or -> Iterable[MyRow], with Delete beside MyRow where it deletes",
    JobKind.AGGREGATE: "(record: MyRecord) -> MyRow | None, or -> Iterable[MyRow]",
    JobKind.FOLD: "(state: MyRow | None, record: MyRecord) -> MyRow | None",
}


@dataclass(frozen=True, slots=True)
class Signature:
    """A job function's types. `record_types` has several members where the parameter is a union."""

    record_types: tuple[type[Record], ...]
    row_type: type[Row]
    takes_meta: bool


def signature_of(function: Callable[..., Any], kind: JobKind) -> Signature:
    """The types of a job's function. JobDefinitionError if they are missing or not of the kind's shape."""
    name = getattr(function, "__name__", repr(function))

    def refuse(reason: str, remedy: str = "") -> JobDefinitionError:
        return JobDefinitionError(
            f"the function {name!r} {reason}", remedy or f"write it as {_SHAPES[kind]}", subject=name
        )

    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise refuse(
            "is async: a job's function is pure and waits for nothing", f"write a plain def; see {CAN_EXPRESS}"
        )
    try:
        hints = get_type_hints(function)
    except Exception as error:
        raise refuse(
            f"has annotations that cannot be read: {error}",
            "define or import each type it names, at the top level of the file",
        ) from error
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    takes_meta = bool(parameters) and hints.get(parameters[-1].name) is Meta
    if takes_meta:
        parameters.pop()
    if len(parameters) != (2 if kind is JobKind.FOLD else 1):
        raise refuse(f"has {len(parameters)} parameters{' besides meta' if takes_meta else ''}")
    for parameter in parameters:
        if parameter.name not in hints:
            raise refuse(f"does not say the type of {parameter.name!r}")
    if "return" not in hints:
        raise refuse("does not say what it returns")
    row_type = _row_type(hints["return"], kind, refuse)
    if kind is JobKind.FOLD and set(_members(hints[parameters[0].name])) != {row_type, types.NoneType}:
        raise refuse(f"does not take {row_type.__name__} | None, the row so far, as its first parameter")
    record_types = _members(hints[parameters[-1].name])
    for record_type in record_types:
        if not (isinstance(record_type, type) and issubclass(record_type, Record)):
            raise refuse(
                f"takes {_text(record_type)}, which is not a Record",
                "derive a class from Record with the fields that the job reads",
            )
    return Signature(record_types, row_type, takes_meta)


def takes_meta(function: Callable[..., Any]) -> bool:
    """Whether a `key=` function asks for `Meta`: it has two parameters."""
    return len(inspect.signature(function).parameters) == 2


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _row_type(hint: Any, kind: JobKind, refuse: Callable[..., JobDefinitionError]) -> type[Row]:
    found: list[Any] = []
    many = _flatten(hint, found)
    if many and kind is JobKind.FOLD:
        raise refuse(
            "returns several rows, but a fold keeps one row per key",
            f"return one row or None; top-N of a key is a list column; see {CAN_EXPRESS}",
        )
    if Delete in found and kind is not JobKind.MAP:
        raise refuse(
            "returns Delete, which only a map does",
            f"in a fold return None to delete the row; in an aggregate subtract, for example a row with "
            f"flights=-1; see {CAN_EXPRESS}",
        )
    rows = [one for one in dict.fromkeys(found) if one not in (types.NoneType, Delete)]
    for one in rows:
        if not (isinstance(one, type) and issubclass(one, Row)) or one is Row:
            raise refuse(
                f"returns {_text(one)}, which is not a row type of the job",
                f"derive a class from Row and write the function as {_SHAPES[kind]}; what a job can express: "
                f"{CAN_EXPRESS}",
            )
    if len(rows) > 1:
        raise refuse(
            f"returns rows of {len(rows)} types ({', '.join(one.__name__ for one in rows)}), but a job has one table",
            f"write one job for each and cut them over together; see {CAN_EXPRESS}",
        )
    if not rows:
        raise refuse("returns no row")
    row_type: type[Row] = rows[0]
    return row_type


def _flatten(hint: Any, found: list[Any]) -> bool:
    """Gathers the row types in a return annotation; whether there is an iterable of them."""
    many = False
    for member in _members(hint):
        if get_origin(member) in _MANY:
            arguments = get_args(member)
            if get_origin(member) is collections.abc.Generator:
                arguments = arguments[:1]
            for argument in arguments:
                if argument is not Ellipsis:
                    _flatten(argument, found)
            many = True
        else:
            found.append(member)
    return many


def _text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
