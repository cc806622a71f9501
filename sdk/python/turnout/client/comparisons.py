"""Comparisons of the tables of two versions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta

from google.protobuf.message import Message

from turnout import contract_proto
from turnout.client import convert
from turnout.client.calls import Calls, duration_of, job_name, new_request_id, pages, version_name
from turnout.client.connection import QUICK_S
from turnout.contract import Contract
from turnout.replayer.v1 import comparison_pb2
from turnout.results import Comparison

COMPARE_S = 3600.0  # a comparison says how far it is all the time, and can be resumed


class ComparisonCalls(Calls):
    """Methods of the replayer on comparisons."""

    async def compare(
        self,
        job: str,
        old: int,
        new: int,
        *,
        contract: Contract | None = None,
        sample_size: int = 10,
        allow_unaligned: bool = False,
        align_within: timedelta | None = None,
        range_rows: int = 0,
        timeout_s: float | None = None,
    ) -> Comparison:
        """Compare the tables of two versions at one cut of the log, and wait until that is done.

        contract: what may differ and what must; the answer says whether it holds. See `comparing` for the others.
        """
        steps = self.comparing(
            job,
            old,
            new,
            contract=contract,
            sample_size=sample_size,
            allow_unaligned=allow_unaligned,
            align_within=align_within,
            range_rows=range_rows,
            timeout_s=timeout_s,
        )
        return await _last(steps)

    async def comparing(
        self,
        job: str,
        old: int,
        new: int,
        *,
        contract: Contract | None = None,
        sample_size: int = 10,
        allow_unaligned: bool = False,
        align_within: timedelta | None = None,
        range_rows: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Comparison, None]:
        """Compare, and tell after every range how far it is; the last answer is the finished comparison.

        sample_size: most differing rows in the answer. align_within: how long the runs may be held until both stand at
        one cut, None = 2 s. allow_unaligned: compare them as they stand where that cannot be. range_rows: rows of a
        range, 0 = as many as are compared in a few seconds. timeout_s: of all of it, None = an hour; what is done by
        then stays done. FailedPrecondition (CANNOT_ALIGN, KEYS_DIFFER, TABLE_MISSING), Aborted (ALIGNMENT_EXPIRED,
        COMPARISON_UNDER_WAY), InvalidInput (INVALID_CONTRACT, SAME_VERSION).
        """
        request = comparison_pb2.CompareTablesRequest(
            old_version=version_name(job, old),
            new_version=version_name(job, new),
            sample_size=sample_size,
            contract=contract_proto.to_proto(contract),
            allow_unaligned=allow_unaligned,
            align_within=duration_of(align_within),
            range_rows=range_rows,
            request_id=new_request_id(),
        )
        async with aclosing(self._compared("CompareTables", request, timeout_s)) as steps:
            async for found in steps:
                yield found

    async def resuming_comparison(
        self, job: str, comparison: str, *, timeout_s: float | None = None
    ) -> AsyncGenerator[Comparison, None]:
        """Do the ranges of a comparison that are not done yet, as `comparing` does. NotFound (COMPARISON_NOT_FOUND)."""
        request = comparison_pb2.ResumeComparisonRequest(name=_name(job, comparison))
        async with aclosing(self._compared("ResumeComparison", request, timeout_s)) as steps:
            async for found in steps:
                yield found

    async def resume_comparison(self, job: str, comparison: str, *, timeout_s: float | None = None) -> Comparison:
        """Do the ranges of a comparison that are not done yet, and wait for the end."""
        return await _last(self.resuming_comparison(job, comparison, timeout_s=timeout_s))

    async def get_comparison(self, job: str, comparison: str, *, timeout_s: float | None = None) -> Comparison:
        """One comparison with its ranges. NotFound (COMPARISON_NOT_FOUND)."""
        request = comparison_pb2.GetComparisonRequest(name=_name(job, comparison))
        return convert.comparison(
            await self._connections.unary(
                "replayer", "GetComparison", request, comparison_pb2.Comparison, timeout_s=timeout_s, default_s=QUICK_S
            )
        )

    async def list_comparisons(
        self, job: str, *, versions: Sequence[int] = (), page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Comparison]:
        """The comparisons of a job, the newest first, without samples. versions: only those of these versions with one
        another. timeout_s: of each request."""
        names = [version_name(job, number) for number in versions]

        async def fetch(token: str) -> tuple[list[Comparison], str]:
            answer = await self._connections.unary(
                "replayer",
                "ListComparisons",
                comparison_pb2.ListComparisonsRequest(
                    parent=job_name(job), page_size=page_size, page_token=token, versions=names
                ),
                comparison_pb2.ListComparisonsResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [convert.comparison(message) for message in answer.comparisons], answer.next_page_token

        async for found in pages(fetch):
            yield found

    async def _compared(
        self, method: str, request: Message, timeout_s: float | None
    ) -> AsyncGenerator[Comparison, None]:
        stream = self._connections.stream(
            "replayer", method, request, comparison_pb2.Comparison, timeout_s=timeout_s, default_s=COMPARE_S
        )
        async with aclosing(stream) as messages:
            async for message in messages:
                yield convert.comparison(message)


async def _last(steps: AsyncGenerator[Comparison, None]) -> Comparison:
    found: Comparison | None = None
    async with aclosing(steps) as answers:
        async for answer in answers:
            found = answer
    assert found is not None, "the stream of a comparison ends with the finished one"
    return found


def _name(job: str, comparison: str) -> str:
    return f"{job_name(job)}/comparisons/{comparison}"
