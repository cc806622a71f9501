"""A contract of expected differences on the wire: `turnout.contract.Contract` <-> `replayer.v1.ComparisonContract`."""

from __future__ import annotations

from turnout.contract import (
    Contract,
    ContractError,
    Expected,
    ExpectedColumn,
    How,
    Measure,
    Pair,
    Projection,
    Tolerance,
)
from turnout.replayer.v1 import comparison_pb2

_HOWS = {how: comparison_pb2.ProjectedMeasure.How.Value(how.name) for how in How}


def to_proto(contract: Contract | None) -> comparison_pb2.ComparisonContract | None:
    """The message; None stands for no contract."""
    if contract is None:
        return None
    return comparison_pb2.ComparisonContract(
        columns=[
            comparison_pb2.ExpectedColumn(column=one.column, expected=_expected(one.expected))
            for one in contract.columns
        ],
        only_old=_expected(contract.only_old),
        only_new=_expected(contract.only_new),
        share_max=contract.share_max,
        tolerances=[
            comparison_pb2.ColumnTolerance(column=one.column, absolute=one.absolute, relative=one.relative)
            for one in contract.tolerances
        ],
        projection=_projection(contract.projection),
    )


def from_proto(message: comparison_pb2.ComparisonContract) -> Contract:
    """The contract. ContractError when it makes no sense."""
    return Contract(
        columns=tuple(ExpectedColumn(one.column, _read_expected(one.expected)) for one in message.columns),
        only_old=_read_expected(message.only_old) if message.HasField("only_old") else None,
        only_new=_read_expected(message.only_new) if message.HasField("only_new") else None,
        share_max=message.share_max if message.HasField("share_max") else None,
        tolerances=tuple(Tolerance(one.column, one.absolute, one.relative) for one in message.tolerances),
        projection=_read_projection(message.projection) if message.HasField("projection") else None,
    )


def _expected(expected: Expected | None) -> comparison_pb2.ExpectedDifference | None:
    if expected is None:
        return None
    return comparison_pb2.ExpectedDifference(share_max=expected.share_max, optional=expected.optional)


def _read_expected(message: comparison_pb2.ExpectedDifference) -> Expected:
    return Expected(message.share_max if message.HasField("share_max") else None, message.optional)


def _projection(projection: Projection | None) -> comparison_pb2.Projection | None:
    if projection is None:
        return None
    return comparison_pb2.Projection(
        key=[_pair(pair) for pair in projection.key],
        measures=[
            comparison_pb2.ProjectedMeasure(column=_pair(one.column), how=_HOWS[one.how]) for one in projection.measures
        ],
    )


def _read_projection(message: comparison_pb2.Projection) -> Projection:
    hows = {number: how for how, number in _HOWS.items()}
    for one in message.measures:
        if one.how not in hows:
            raise ContractError(f"the projection does not say how {one.column.old} is brought together")
    return Projection(
        tuple(_read_pair(pair) for pair in message.key),
        tuple(Measure(_read_pair(one.column), hows[one.how]) for one in message.measures),
    )


def _pair(pair: Pair) -> comparison_pb2.ProjectedColumn:
    return comparison_pb2.ProjectedColumn(old=pair.old, new=pair.new)


def _read_pair(message: comparison_pb2.ProjectedColumn) -> Pair:
    return Pair(message.old, message.new or message.old)
