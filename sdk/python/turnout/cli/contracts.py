"""A contract of expected differences from a file and options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from turnout.cli.exits import CommandError, usage
from turnout.contract import Contract, ContractError, Expected, ExpectedColumn, Tolerance, parse, share

_ONLY_OLD, _ONLY_NEW = "only-old", "only-new"  # a column's name has no hyphen
T = TypeVar("T")


def contract_of(
    file: Path | None,
    expect: Sequence[str],
    may_differ: Sequence[str],
    tolerances: Sequence[str],
    share_max: str | None,
    *,
    same: bool = False,
) -> Contract | None:
    """The contract; options add to what the file says. None = nothing was given."""
    if file is None and not (expect or may_differ or tolerances or same) and share_max is None:
        return None
    if same and (file is not None or expect or may_differ):
        raise usage("--same says that nothing may differ: leave out --contract, --expect and --may-differ.")
    contract = Contract() if file is None else _read(lambda: parse(file.read_text(encoding="utf-8")), str(file))
    for texts, optional, option in ((expect, False, "--expect"), (may_differ, True, "--may-differ")):
        for text in texts:
            contract = _read(lambda: _with(contract, text, optional), f"{option} {text}")  # noqa: B023  # called at once
    for text in tolerances:
        one = _read(lambda: _tolerance(text), f"--tolerance {text}")  # noqa: B023  # called at once
        kept = tuple(known for known in contract.tolerances if known.column != one.column)
        contract = replace(contract, tolerances=(*kept, one))
    if share_max is not None:
        contract = _read(lambda: replace(contract, share_max=share(share_max)), f"--share-max {share_max}")
    return contract


def _with(contract: Contract, text: str, optional: bool) -> Contract:
    name, separator, most = text.partition("=")
    expected = Expected(share(most) if separator else None, optional)
    if name == _ONLY_OLD:
        return replace(contract, only_old=expected)
    if name == _ONLY_NEW:
        return replace(contract, only_new=expected)
    kept = tuple(one for one in contract.columns if one.column != name)
    return replace(contract, columns=(*kept, ExpectedColumn(name, expected)))


def _tolerance(text: str) -> Tolerance:
    name, separator, by = text.partition("=")
    if not separator or not name:
        raise ContractError("write COLUMN=BY, such as share=0.001 or share=1%")
    if by.strip().endswith("%"):
        return Tolerance(name, relative=share(by))
    try:
        return Tolerance(name, absolute=float(by))
    except ValueError as error:
        if isinstance(error, ContractError):
            raise
        raise ContractError(f"{by!r} is no number; write it like 0.001, or 1%") from None


def _read(made: Callable[[], T], where: str) -> T:
    try:
        return made()
    except (ContractError, OSError, UnicodeDecodeError) as error:
        refused: CommandError = usage(f"{where}: {error}.")
        raise refused from None
