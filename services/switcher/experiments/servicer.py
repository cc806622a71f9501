"""The gRPC edge of experiments: check the form, call, convert."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from core.domain.paging import from_token, page_of, page_size
from core.domain.text import ID_MAX, text
from services.switcher.experiments import convert
from services.switcher.experiments.conclude import conclude
from services.switcher.experiments.conducting import Ending, Experiments
from services.switcher.experiments.ledger import Flushed, Ledger
from services.switcher.experiments.record import RulesChangedError, recomputed
from services.switcher.experiments.situations import STALE_AFTER, situation_of
from services.switcher.experiments.store import ExperimentStore
from services.switcher.names import EXPERIMENTS, parse_parent
from services.switcher.records import CommandKind
from turnout.errors import FailedPrecondition, InvalidInput
from turnout.switcher.v1 import decision_pb2, experiment_pb2, outcome_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class ExperimentParts:
    """What the methods call."""

    store: ExperimentStore
    experiments: Experiments
    ledger: Ledger
    keys: Mapping[int, bytes] = field(repr=False)


class ExperimentMethods(rpc.SwitcherServicer):
    """The methods of turnout.switcher.v1.Switcher that are of experiments."""

    @property
    def experiment_parts(self) -> ExperimentParts:
        """What the methods call; Unavailable while the switcher starts."""
        raise NotImplementedError

    async def CreateExperiment(
        self, request: experiment_pb2.CreateExperimentRequest, context: Context
    ) -> experiment_pb2.Experiment:
        job = parse_parent(request.parent)
        name = EXPERIMENTS.name(job, request.experiment_id)
        _, experiment = EXPERIMENTS.parse(name)
        spec = convert.spec_of(job, request.experiment)
        record = await self.experiment_parts.experiments.start(
            job,
            experiment,
            spec,
            convert.intent_of(CommandKind.START_EXPERIMENT, request),
            owner=text(request.owner, "owner", ID_MAX),
            gates=(tuple(request.override_gates), tuple(request.require_gates)),
            validate_only=request.validate_only,
            time_left_s=context.time_remaining() or 0.0,
        )
        if record is None:
            checked = experiment_pb2.Experiment()
            checked.CopyFrom(request.experiment)
            checked.name = name
            return checked
        return convert.experiment_message(record)

    async def GetExperiment(
        self, request: experiment_pb2.GetExperimentRequest, context: Context
    ) -> experiment_pb2.Experiment:
        store = self.experiment_parts.store
        record = await store.read(*EXPERIMENTS.parse(request.name))
        message = convert.experiment_message(record)
        counted = await store.counted(record.number, STALE_AFTER)
        if record.state.over:
            counted = await store.at_its_end(counted)
        if counted.route.state.route is not None and counted.epochs:
            situation = situation_of(counted)
            message.standing.CopyFrom(convert.standing_message(situation, conclude(situation), counted))
        return message

    async def ListExperiments(
        self, request: experiment_pb2.ListExperimentsRequest, context: Context
    ) -> experiment_pb2.ListExperimentsResponse:
        job = parse_parent(request.parent, all_jobs=True)
        size, last = page_size(request.page_size), from_token(request.page_token, request.parent)
        records = await self.experiment_parts.store.list_experiments(job, int(last) if last else None, size + 1)
        records, token = page_of(records, size, request.parent, lambda record: record.number)
        experiments = [convert.experiment_message(record) for record in records]
        return experiment_pb2.ListExperimentsResponse(experiments=experiments, next_page_token=token)

    async def StopExperiment(
        self, request: experiment_pb2.StopExperimentRequest, context: Context
    ) -> experiment_pb2.Experiment:
        job, experiment = EXPERIMENTS.parse(request.name)
        gates = tuple(request.override_gates)
        ending = Ending(request.promote, request.keep_weights, gates, request.override_owner)
        intent = convert.intent_of(CommandKind.STOP_EXPERIMENT, request)
        record = await self.experiment_parts.experiments.stop(
            job, experiment, ending, intent, context.time_remaining() or 0.0
        )
        return convert.experiment_message(record)

    async def ResumeExperiment(
        self, request: experiment_pb2.ResumeExperimentRequest, context: Context
    ) -> experiment_pb2.Experiment:
        return convert.experiment_message(
            await self.experiment_parts.experiments.resume(*EXPERIMENTS.parse(request.name))
        )

    async def RecordOutcomes(
        self, request: outcome_pb2.RecordOutcomesRequest, context: Context
    ) -> outcome_pb2.RecordOutcomesResponse:
        convert.refuse_large(request)
        front = text(request.front, "front", ID_MAX)
        exposures, seen = convert.observations_of(request.observations)
        reported, places = [], []
        results = [outcome_pb2.RecordOutcomesResponse.INVALID] * len(request.outcomes)
        for place, message in enumerate(request.outcomes):
            try:
                reported.append(convert.outcome_of(dict(self.experiment_parts.keys), message))
                places.append(place)
            except InvalidInput:
                continue
        flushed = None
        if request.complete:
            flushed = Flushed(front, request.observations_lost, convert.left_out_of(request))
        stored = await self.experiment_parts.ledger.record(exposures, [*reported, *seen], flushed)
        for place, result in zip(places, stored, strict=False):
            results[place] = convert.result_value(result)
        return outcome_pb2.RecordOutcomesResponse(results=results)

    async def ListDecisions(
        self, request: decision_pb2.ListDecisionsRequest, context: Context
    ) -> decision_pb2.ListDecisionsResponse:
        job, experiment = EXPERIMENTS.parse(request.parent)
        size, last = page_size(request.page_size), from_token(request.page_token, request.parent)
        store = self.experiment_parts.store
        await store.read(job, experiment)
        rows = await store.list_decisions(job, experiment, int(last) if last else None, size + 1)
        rows, token = page_of(rows, size, request.parent, lambda row: row.decision)
        decisions = [convert.decision_message(row, whole=False) for row in rows]
        return decision_pb2.ListDecisionsResponse(decisions=decisions, next_page_token=token)

    async def GetDecision(self, request: decision_pb2.GetDecisionRequest, context: Context) -> decision_pb2.Decision:
        row = await self.experiment_parts.store.decision(*EXPERIMENTS.parse_decision(request.name))
        return convert.decision_message(row, whole=True)

    async def ReplayDecision(
        self, request: decision_pb2.ReplayDecisionRequest, context: Context
    ) -> decision_pb2.ReplayDecisionResponse:
        row = await self.experiment_parts.store.decision(*EXPERIMENTS.parse_decision(request.name))
        return replayed(row.record, recomputed)


def replayed(record: bytes, recomputed: Callable[[bytes], bytes]) -> decision_pb2.ReplayDecisionResponse:
    """Whether the record comes out again. FailedPrecondition (RULES_CHANGED) where other rules made it."""
    try:
        again = recomputed(record)
    except RulesChangedError as error:
        raise FailedPrecondition("RULES_CHANGED", str(error)) from None
    equal = again == record
    return decision_pb2.ReplayDecisionResponse(equal=equal, recomputed="" if equal else again.decode())
