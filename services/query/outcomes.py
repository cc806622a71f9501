"""Between reports of clients and the switcher's: what a client may say of an exposure, and what is answered."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from turnout.errors import InvalidInput
from turnout.query.v1 import query_pb2
from turnout.reading.outcomes import CALL_MAX, Result
from turnout.switcher.v1 import outcome_pb2

_R = outcome_pb2.RecordOutcomesResponse
_REJECTED: Final = (
    "The exposure_id is none that was given out with an answer, or what is said of it is no error, conversion or "
    "reward from -1,000,000,000 to 1,000,000,000."
)


def reported(outcomes: Sequence[query_pb2.Outcome]) -> list[outcome_pb2.ReportedOutcome]:
    """What a client reports, as the switcher takes it. InvalidInput (TOO_MANY_OUTCOMES)."""
    if len(outcomes) > CALL_MAX:
        raise InvalidInput(
            "TOO_MANY_OUTCOMES", f"{len(outcomes)} outcomes came, and a report holds {CALL_MAX}: split it."
        )
    return [_reported(one) for one in outcomes]


def _reported(one: query_pb2.Outcome) -> outcome_pb2.ReportedOutcome:
    message = outcome_pb2.ReportedOutcome(exposure_id=one.exposure_id)
    match one.WhichOneof("outcome"):
        case "error":
            message.metric = outcome_pb2.METRIC_ERROR
        case "conversion":
            message.metric = outcome_pb2.METRIC_CONVERSION
        case "reward":
            message.metric = outcome_pb2.METRIC_REWARD
            message.reward, message.outcome_id = one.reward.value, one.reward.outcome_id
    return message


def answer(results: Sequence[Result]) -> query_pb2.ReportOutcomesResponse:
    """What is said to the client."""
    counts: Counter[Result] = Counter(results)
    return query_pb2.ReportOutcomesResponse(
        stored=counts[_R.STORED],
        duplicates=counts[_R.DUPLICATE],
        not_counted=counts[_R.NOT_COUNTED],
        rejected=[
            query_pb2.RejectedOutcome(index=index, message=_REJECTED)
            for index, result in enumerate(results)
            if result == _R.INVALID
        ],
    )
