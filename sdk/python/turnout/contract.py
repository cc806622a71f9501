"""What may differ between the tables of two versions, and what must: the contract that a comparison is judged by.

Whatever it does not name must not differ. What it names must differ somewhere, unless it is optional: a change that was
expected and does not show is as much a surprise as one that shows unexpected.
"""

from __future__ import annotations

import difflib
import enum
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

COLUMNS_MAX = 1_000


class ContractError(ValueError):
    """A contract that makes no sense. The text says why and what to write instead; it ends without a full stop."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A difference that is expected, in at most so large a share of the rows, 0 to 1; None = in any. optional: it may
    also be missing."""

    share_max: float | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        _check_share(self.share_max)


@dataclass(frozen=True, slots=True, order=True)
class ExpectedColumn:
    """A column that is expected to differ, in a share of the rows that both tables have."""

    column: str
    expected: Expected


@dataclass(frozen=True, slots=True, order=True)
class Tolerance:
    """By how much the numbers of a column may differ and count as equal: absolutely, or relative to the larger one."""

    column: str
    absolute: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        for name in ("absolute", "relative"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ContractError(f"the tolerance of {self.column} is {value}; give a number of 0 or more")
        if not self.absolute and not self.relative:
            raise ContractError(f"the tolerance of {self.column} allows nothing; say how much, or leave it out")


class How(enum.Enum):
    """How the values of several rows are brought together."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    COUNT = "count"


NUMERIC: Final = frozenset({"bigint", "integer", "smallint", "numeric", "double precision", "real"})
"""Types of PostgreSQL that can be summed, and compared within a tolerance."""
WITHOUT_ORDER: Final = frozenset({"boolean", "bytea", "uuid", "json", "jsonb"})
"""Types of which not every PostgreSQL knows a smallest value."""


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """A column by its name in the old and in the new table."""

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> Pair:
        """ "name", or "old=new" where the two tables name it differently."""
        old, _, new = text.partition("=")
        if not old.strip() or ("=" in text and not new.strip()):
            raise ContractError(f"{text!r} names no column; write NAME, or OLD=NEW")
        return cls(old.strip(), new.strip() or old.strip())


@dataclass(frozen=True, slots=True)
class Measure:
    """A column that is compared after a projection, and how it is brought together over the rows of a key."""

    column: Pair
    how: How


@dataclass(frozen=True, slots=True)
class Projection:
    """How the rows of two tables with different keys are matched: both are grouped by the columns of `key`."""

    key: tuple[Pair, ...]
    measures: tuple[Measure, ...] = ()

    def __post_init__(self) -> None:
        if not self.key:
            raise ContractError("a projection needs a key: the columns by which rows are matched")
        _check_once([pair.new for pair in self.key], "the key of the projection")
        _check_once([one.column.new for one in self.measures], "the projection")


@dataclass(frozen=True, slots=True)
class Contract:
    """What may differ and what must. Constructing one raises ContractError (a ValueError).

    only_old, only_new: rows that one table alone has; None = there must be none. share_max: of the rows of both tables
    that may differ in any way, 0 to 1; None = any. `Contract()` is that nothing differs.
    """

    columns: tuple[ExpectedColumn, ...] = ()
    only_old: Expected | None = None
    only_new: Expected | None = None
    share_max: float | None = None
    tolerances: tuple[Tolerance, ...] = ()
    projection: Projection | None = None

    def __post_init__(self) -> None:
        _check_share(self.share_max)
        for name in ("columns", "tolerances"):
            given = tuple(sorted(getattr(self, name), key=lambda one: one.column))
            _check_once([one.column for one in given], name)
            object.__setattr__(self, name, given)

    def expected(self, column: str) -> Expected | None:
        """What is expected of a column; None = that it does not differ."""
        return next((one.expected for one in self.columns if one.column == column), None)

    def tolerance(self, column: str) -> Tolerance | None:
        """What counts as equal in a column; None = what is equal."""
        return next((one for one in self.tolerances if one.column == column), None)


def encode(contract: Contract) -> str:
    """As JSON. Equal contracts give equal text."""
    return msgspec.json.encode(contract).decode()


def decode(text: str) -> Contract:
    """What `encode` wrote. ContractError otherwise."""
    try:
        return msgspec.json.decode(text, type=Contract)
    except msgspec.DecodeError as error:
        raise ContractError(f"a stored contract cannot be read: {error}") from None


# --- what people write ----------------------------------------------------------------------------------------------


def share(text: str) -> float:
    """A share as people write it: "20 %", "0.2". ContractError otherwise."""
    number = text.strip()
    percent = number.endswith("%")
    try:
        found = float(number.removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        raise ContractError(f"{text!r} is no share; write it like 20% or 0.2") from None
    _check_share(found)
    return found


class _Difference(msgspec.Struct, forbid_unknown_fields=True):
    share_max: float | str | None = None
    optional: bool = False


class _Tolerance(msgspec.Struct, forbid_unknown_fields=True):
    absolute: float = 0.0
    relative: float | str = 0.0


class _Projection(msgspec.Struct, forbid_unknown_fields=True):
    key: list[str] = []
    sum: list[str] = []
    min: list[str] = []
    max: list[str] = []
    count: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    columns: dict[str, _Difference] = {}
    only_old: _Difference | None = None
    only_new: _Difference | None = None
    share_max: float | str | None = None
    tolerances: dict[str, _Tolerance] = {}
    projection: _Projection | None = None


def names_at(path: Sequence[str]) -> tuple[str, ...] | None:
    """What may stand in a contract at this place, such as ("columns", "on_time"); None = any name."""
    match path:
        case ():
            return _File.__struct_fields__
        case ("only_old",) | ("only_new",) | ("columns", _):
            return _Difference.__struct_fields__
        case ("tolerances", _):
            return _Tolerance.__struct_fields__
        case ("projection",):
            return _Projection.__struct_fields__
        case _:
            return None


def unknown_name(name: str, path: Sequence[str]) -> str:
    """That the name means nothing at this place, and what was meant; without a full stop."""
    known = names_at(path) or ()
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    where = f"`{path[0]}` of a contract" if path else "a contract"
    return f"there is no {name!r} in {where} ({meant})"


def _refuse_unknown(document: Mapping[str, object], path: tuple[str, ...] = ()) -> None:
    known = names_at(path)
    for name, value in document.items():
        if known is not None and name not in known:
            raise ContractError(unknown_name(name, path))
        if isinstance(value, Mapping):
            _refuse_unknown(value, (*path, name))


def parse(text: str) -> Contract:
    """A contract from TOML. ContractError says what is wrong with it.

    share_max = "10%"              # of all rows may differ in any way
    [columns.on_time]              # must differ, in at most a fifth of the rows
    share_max = "20%"
    [columns.on_time_share]
    optional = true                # may differ, and need not
    [only_new]                     # there must be new rows
    [tolerances]
    on_time_share = {absolute = 0.001}
    [projection]                   # where the keys differ
    key = ["carrier"]
    sum = ["flights", "late=delayed"]
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"the contract is no TOML: {error}") from None
    return of_document(document)


def of_document(document: object) -> Contract:
    """A contract from what a file says, whichever way it is written. ContractError as for `parse`."""
    if isinstance(document, Mapping):
        _refuse_unknown(document)
    try:
        given = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise ContractError(f"the contract holds what it cannot: {error}") from None
    return Contract(
        columns=tuple(ExpectedColumn(name, _expected(one)) for name, one in given.columns.items()),
        only_old=None if given.only_old is None else _expected(given.only_old),
        only_new=None if given.only_new is None else _expected(given.only_new),
        share_max=_share_of(given.share_max),
        tolerances=tuple(
            Tolerance(name, one.absolute, _share_of(one.relative) or 0.0) for name, one in given.tolerances.items()
        ),
        projection=None if given.projection is None else _projection(given.projection),
    )


def _projection(given: _Projection) -> Projection:
    measures = [Measure(Pair.parse(name), how) for how in How for name in getattr(given, how.value)]
    return Projection(tuple(Pair.parse(name) for name in given.key), tuple(measures))


def _expected(given: _Difference) -> Expected:
    return Expected(_share_of(given.share_max), given.optional)


def _share_of(given: float | str | None) -> float | None:
    return share(given) if isinstance(given, str) else given


def _check_share(value: Any) -> None:
    if value is not None and not 0 <= value <= 1:
        raise ContractError(f"a share is {value}; give 0 to 1, or a percentage like 20%")


def _check_once(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise ContractError(f"{where}: a column has no name")
        if name in seen:
            raise ContractError(f"{where}: {name} is named twice; name each column once")
        seen.add(name)
    if len(seen) > COLUMNS_MAX:
        raise ContractError(f"{where}: {len(seen):,} columns are named; {COLUMNS_MAX:,} are allowed")
