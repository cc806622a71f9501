"""Comparisons between the contract's messages and what the replayer works with."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from core.domain.text import sentence
from services.replayer.compare import Plan, Totals
from services.replayer.comparisons import Comparison, Range, Stood
from services.replayer.convert import duration
from turnout import contract_proto
from turnout.contract import Contract, ContractError
from turnout.errors import InvalidInput
from turnout.kind_values import timestamp, value_of
from turnout.kinds import kind_of
from turnout.names import parse_job, parse_version
from turnout.query.v1 import query_pb2 as query
from turnout.replayer.v1 import comparison_pb2

RANGES_SHOWN = 1_000
_ID = re.compile(r"[0-9a-f]{12}")


def parse_comparison(name: str) -> tuple[str, str]:
    """Job and id in `jobs/{job}/comparisons/{comparison}`; InvalidInput otherwise."""
    parent, _, comparison = name.partition("/comparisons/")
    job = parse_job(parent)
    if not _ID.fullmatch(comparison):
        raise InvalidInput(
            "INVALID_NAME",
            f"{comparison!r} is no id of a comparison: an id is 12 digits and letters from a to f; "
            f"`turnout comparisons {job}` lists them.",
            metadata={"name": name},
        )
    return job, comparison


def contract_of(request: comparison_pb2.CompareTablesRequest) -> Contract | None:
    """The contract. InvalidInput (INVALID_CONTRACT)."""
    if not request.HasField("contract"):
        return None
    try:
        return contract_proto.from_proto(request.contract)
    except ContractError as error:
        raise InvalidInput("INVALID_CONTRACT", f"The contract makes no sense: {error}.") from None


def versions_of(request: comparison_pb2.ListComparisonsRequest) -> list[Any] | None:
    """The versions whose comparisons are asked for; None = all."""
    return [parse_version(name) for name in request.versions] or None


def comparison_message(found: Comparison, *, ranges: int = 1, samples: bool = True) -> comparison_pb2.Comparison:
    """A comparison with its newest ranges."""
    totals = found.totals
    finished = found.end_time is not None
    return comparison_pb2.Comparison(
        name=found.name,
        old_version=found.old.name,
        new_version=found.new.name,
        state=comparison_pb2.Comparison.FINISHED if finished else comparison_pb2.Comparison.UNFINISHED,
        contract=contract_proto.to_proto(found.contract),
        verdict=_verdict(found.passed),
        findings=map(sentence, found.findings),
        aligned=found.aligned,
        exact=found.exact,
        rows_old=totals.rows_old,
        rows_new=totals.rows_new,
        rows_only_old=totals.only_old,
        rows_only_new=totals.only_new,
        rows_changed=totals.changed,
        columns=_column_differences(found.plan, totals),
        columns_added=found.plan.added,
        columns_removed=found.plan.removed,
        samples=[comparison_pb2.RowDifference.FromString(one) for one in found.samples] if samples else [],
        ranges=[_range_message(one) for one in found.ranges[-ranges:]],
        ranges_done=len(found.ranges),
        rows_expected=found.rows_expected,
        held_max=duration(max((one.held_s for one in found.ranges), default=0.0)),
        create_time=timestamp(found.create_time),
        end_time=None if found.end_time is None else timestamp(found.end_time),
    )


def _verdict(passed: bool | None) -> comparison_pb2.Comparison.Verdict.ValueType:
    if passed is None:
        return comparison_pb2.Comparison.VERDICT_UNSPECIFIED
    return comparison_pb2.Comparison.PASSED if passed else comparison_pb2.Comparison.FAILED


def _column_differences(plan: Plan, totals: Totals) -> list[comparison_pb2.ColumnDifference]:
    return [
        comparison_pb2.ColumnDifference(
            column=column.name,
            rows=found.rows,
            largest_absolute=found.largest if column.numeric else None,
            total=found.total if column.numeric else None,
        )
        for column, found in zip(plan.columns, totals.columns, strict=True)
        if found.rows or found.largest
    ]


def _range_message(one: Range) -> comparison_pb2.ComparedRange:
    return comparison_pb2.ComparedRange(
        number=one.number,
        after_key=one.after or (),
        last_key=one.last or (),
        aligned=one.aligned,
        exact=one.exact,
        unaligned_reason=one.why,
        positions_old=_applied(one.old),
        positions_new=_applied(one.new),
        cut_time=timestamp(one.cut_time),
        held=duration(one.held_s),
        took=duration(one.took_s),
        rows_old=one.totals.rows_old,
        rows_new=one.totals.rows_new,
    )


def _applied(stood: Iterable[Stood]) -> list[query.AppliedPosition]:
    return [
        query.AppliedPosition(
            topic=one.tp.topic,
            partition=one.tp.partition,
            next_offset=one.next_offset,
            event_time=None if one.event_time is None else timestamp(one.event_time),
        )
        for one in stood
    ]


def row_difference(plan: Plan, row: Mapping[str, Any]) -> comparison_pb2.RowDifference:
    """A row of `Plan.samples`."""
    side = row["side"]
    shown = [(number, column) for number, column in enumerate(plan.columns) if side or row[f"differs_{number}"]]
    return comparison_pb2.RowDifference(
        key=[value_of(kind_of(postgres), row[f"key_{number}"]) for number, postgres in enumerate(plan.key.values())],
        key_columns=plan.key,
        columns=[column.name for _, column in shown],
        old_values=[] if side > 0 else [value_of(kind_of(one.old_type), row[f"old_{n}"]) for n, one in shown],
        new_values=[] if side < 0 else [value_of(kind_of(one.new_type), row[f"new_{n}"]) for n, one in shown],
    )
