"""What a rollout asks of the replayer and the registry: each call with a deadline, and with domain errors."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc

from services.switcher.rollouts.fitting import misfits
from services.switcher.rollouts.plan import Plan, StepKind
from services.switcher.rollouts.preview import Expected
from turnout import contract_proto, definition_proto
from turnout.contract import decode
from turnout.errors import FailedPrecondition, Violation
from turnout.names import VersionId
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.replayer.v1 import comparison_pb2, replayer_pb2_grpc, run_pb2
from turnout.schema import JobDefinition, difference
from turnout.status import domain_errors, from_rpc_error

_CALL_S: Final = 10.0
_COMPARE_S: Final = 3600.0  # of one call: what it has not done by then, the next one does
_SAMPLES: Final = 20


class Neighbours:
    """The replayer and the registry, as rollouts need them."""

    def __init__(self, replayer: grpc.aio.Channel, registry: grpc.aio.Channel) -> None:
        self._replayer: Any = replayer_pb2_grpc.ReplayerStub(replayer)
        self._registry: Any = registry_pb2_grpc.RegistryStub(registry)

    async def refuse_absent(self, job: str, version: int) -> None:
        """NotFound (VERSION_NOT_FOUND), FailedPrecondition (VERSION_RETIRED) where it can be rolled out no more."""
        found = await self._version(job, version)
        if found.state != registry_pb2.Version.REGISTERED:
            state = registry_pb2.Version.State.Name(found.state)
            raise FailedPrecondition(
                "VERSION_RETIRED",
                f"v{version} of {job} is {state}: take its retirement back first (`turnout unretire {job} "
                f"v{version}`), or roll another version out.",
            )

    async def schema_refuses(self, job: str, candidate: int, control: int) -> tuple[str, ...]:
        """What the gate schema will say against the candidate, as far as their definitions tell."""
        known = await self._definitions(job, control, candidate)
        if known is None:
            return ()
        changes = difference(*known)
        against = "; ".join(str(one) for one in changes if one.breaking)
        if not against:
            return ()
        return (
            f"The gate schema will fail, column by column: {against}. No rollout passes over it: apply the file with "
            f"them mended, or cut over by hand (`turnout cutover {job} v{candidate} --override-gates schema`).",
        )

    async def tables_misfit(self, plan: Plan, job: str, candidate: int, control: int) -> Sequence[Violation]:
        """By what of the plan the tables could not be compared, as far as their definitions tell."""
        if not any(step.kind is StepKind.COMPARE for step in plan.steps):
            return ()
        known = await self._definitions(job, control, candidate)
        return () if known is None else misfits(plan, *known)

    async def _definitions(self, job: str, control: int, candidate: int) -> tuple[JobDefinition, JobDefinition] | None:
        """Those of both versions; None where the registry does not tell."""
        before, after = [await self._version(job, version) for version in (control, candidate)]
        if not (before.HasField("definition") and after.HasField("definition")):
            return None
        return definition_proto.from_proto(before.definition), definition_proto.from_proto(after.definition)

    async def _version(self, job: str, version: int) -> registry_pb2.Version:
        request = registry_pb2.GetVersionRequest(name=VersionId(job, version).name)
        with domain_errors("registry"):
            found: registry_pb2.Version = await self._registry.GetVersion(request, timeout=_CALL_S)
        return found

    async def copy_expected(self, job: str, version: int) -> Expected:
        """What the copy of the log would take; nothing is known where the replayer cannot tell."""
        name = VersionId(job, version)
        try:
            request = run_pb2.EstimateRunRequest(version=name.name)
            found = await self._replayer.EstimateRun(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            told = from_rpc_error(error, "replayer")
            return Expected(remarks=(f"How long the copy takes is not known: {told.message}",))
        known = found.HasField("duration") and not found.never_catches_up
        seconds = found.duration.ToTimedelta().total_seconds() if known else None
        return Expected(replay_s=seconds, remarks=tuple(found.remarks))

    async def lacks_run(self, job: str, version: int) -> bool:
        """Whether the version has no run at all; False where the replayer cannot tell."""
        request = run_pb2.GetRunRequest(name=VersionId(job, version).run_name)
        try:
            await self._replayer.GetRun(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.NOT_FOUND
        return False

    async def start_run(self, job: str, version: int, request_id: str) -> None:
        """Start the version's run, unless it has one."""
        request = run_pb2.StartRunRequest(version=VersionId(job, version).name, request_id=request_id)
        with domain_errors("replayer"):
            await self._replayer.StartRun(request, timeout=_CALL_S)

    async def compare(
        self, job: str, old: int, new: int, contract: str, request_id: str
    ) -> AsyncIterator[comparison_pb2.Comparison]:
        """The comparison of two versions, after every range, and at last as it has finished; goes on with the one that
        the request began before. contract: as `turnout.contract` encodes it, "" = none."""
        request = comparison_pb2.CompareTablesRequest(
            old_version=VersionId(job, old).name,
            new_version=VersionId(job, new).name,
            sample_size=_SAMPLES,
            contract=contract_proto.to_proto(decode(contract)) if contract else None,
            request_id=request_id,
        )
        with domain_errors("replayer"):
            async for found in self._replayer.CompareTables(request, timeout=_COMPARE_S):
                yield found

    async def retire(self, job: str, version: int, actor: str, request_id: str) -> str:
        """Begin to retire a version; what that waits for, and may be refused for yet; "" = it is released.

        FailedPrecondition (VERSION_IN_USE, ROLLBACK_WINDOW).
        """
        request = registry_pb2.RetireVersionRequest(
            name=VersionId(job, version).name, claimed_actor=actor, request_id=request_id
        )
        with domain_errors("registry"):
            found: registry_pb2.Version = await self._registry.RetireVersion(request, timeout=_CALL_S)
        if found.retirement.step != registry_pb2.Retirement.RELEASE:
            return ""
        waits_for = found.retirement.waiting_for or "the switcher"
        return f"The retirement of v{version} of {job} waits for its release: {waits_for}"

    async def unretire(self, job: str, version: int, actor: str, request_id: str) -> None:
        """Take a retirement back. FailedPrecondition (VERSION_DROPPED)."""
        request = registry_pb2.UnretireVersionRequest(
            name=VersionId(job, version).name, claimed_actor=actor, request_id=request_id
        )
        with domain_errors("registry"):
            await self._registry.UnretireVersion(request, timeout=_CALL_S)
