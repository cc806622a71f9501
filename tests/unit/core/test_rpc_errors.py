"""An error is the same on both sides of the wire, with all that it carries."""

import grpc
import pytest

from core.rpc.errors import to_status
from turnout.errors import FailedPrecondition, InvalidInput, NotFound, TurnoutError, Violation
from turnout.status import from_rpc_error

FIELDS = (
    Violation("INVALID_PLAN", "rollout.plan.steps[1]", "Step 2 has no time."),
    Violation("INVALID_PLAN", "rollout.plan.guardrails.margin", "It is below 0."),
)


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("INVALID_PLAN", "The plan cannot be.", violations=FIELDS),
        InvalidInput("INVALID_NAME", "It is no name."),
        FailedPrecondition("GATES_FAILED", "A gate fails.", violations=(Violation("schema", "j v2", "a is missing"),)),
        NotFound("JOB_NOT_FOUND", "There is no such job.", metadata={"job": "j"}),
    ],
)
def test_an_error_arrives_as_it_was_raised(error: TurnoutError) -> None:
    status = to_status(error)
    metadata = grpc.aio.Metadata(*((key, value) for key, value in status.trailing_metadata))
    call = grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), metadata, details=status.details)
    arrived = from_rpc_error(call, "switcher")
    assert type(arrived) is type(error)
    assert (arrived.reason, arrived.message, arrived.violations) == (error.reason, error.message, error.violations)
    assert arrived.metadata == error.metadata
