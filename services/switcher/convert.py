"""Between the wire and the domain."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from core.domain.text import ID_MAX, TEXT_MAX, text
from services.switcher.presence import Registration
from services.switcher.records import (
    ChangeRecord,
    CommandKind,
    FrontReadLoad,
    GateAnswer,
    Intent,
    Proposal,
    ProposalState,
    ReadLoad,
    RouteRecord,
    View,
)
from services.switcher.shadow_report import ShadowTally
from services.switcher.switch import CutOver, RollBack, etag_of
from services.switcher.way_back import Readiness
from turnout.errors import InvalidInput
from turnout.names import parse_route, route_name
from turnout.reading.route_proto import experiment_message, shadow_message
from turnout.routing import Route
from turnout.shadow import ShadowReport
from turnout.shadow_proto import NUMBERS, counts_message, counts_of
from turnout.switcher.v1 import change_pb2, front_pb2, release_pb2, route_pb2, shadow_pb2

MAY_SERVE_MAX = timedelta(days=30)
"""Longest that a front may claim to serve for once it is silent: it keeps versions from being dropped."""
_REPORTED = (front_pb2.Report.PREPARED, front_pb2.Report.SERVING, front_pb2.Report.DRAINED, front_pb2.Report.NACK)


ChangeRequest = (
    change_pb2.SetTrafficRequest
    | change_pb2.CutOverRouteRequest
    | change_pb2.RollBackRouteRequest
    | change_pb2.CutOverRoutesRequest
    | change_pb2.RollBackRoutesRequest
    | shadow_pb2.SetShadowRequest
    | change_pb2.RequireGatesRequest
)
"""The requests that change routes."""
JOBS_MAX = 100
"""Most jobs that are changed together."""
TALLIES_MAX = 1000
"""Most counts of shadows that are told together."""


def intent_of(command: CommandKind, request: ChangeRequest) -> Intent:
    """Who wants what; InvalidInput for a text that cannot be kept."""
    for field, length_max in (("request_id", ID_MAX), ("claimed_actor", ID_MAX), ("reason", TEXT_MAX)):
        text(getattr(request, field), field, length_max)
    content = command.value.encode() + request.SerializeToString(deterministic=True)
    fingerprint = hashlib.sha256(content).digest()
    return Intent(command, request.claimed_actor, request.reason, request.request_id, fingerprint)


def orders_of(
    request: change_pb2.CutOverRoutesRequest | change_pb2.RollBackRoutesRequest,
) -> list[tuple[str, CutOver | RollBack]]:
    """What is asked of each job; InvalidInput where a job is named twice, or none."""
    orders: list[tuple[str, CutOver | RollBack]]
    if isinstance(request, change_pb2.CutOverRoutesRequest):
        overridden, required = tuple(request.override_gates), tuple(request.require_gates)
        orders = [
            (parse_route(one.name), CutOver(one.version, overridden, one.etag, required)) for one in request.cut_overs
        ]
    else:
        orders = [(parse_route(one.name), RollBack(one.etag)) for one in request.roll_backs]
    jobs = [job for job, _ in orders]
    if not 1 <= len(jobs) <= JOBS_MAX:
        raise InvalidInput("INVALID_JOBS", f"The request names {len(jobs)} jobs; name 1 to {JOBS_MAX}.")
    if twice := sorted({job for job in jobs if jobs.count(job) > 1}):
        raise InvalidInput("INVALID_JOBS", f"The request names {', '.join(twice)} twice; give each job one line.")
    return sorted(orders, key=lambda order: order[0])


def report_of(report: front_pb2.Report) -> tuple[str, str, str]:
    """Proposal, state and reason of a front's report."""
    if report.state not in _REPORTED or not report.proposal:
        raise InvalidInput("INVALID_REPORT", "A report names a proposal and one of the states of a front.")
    reason = text(report.reason[:TEXT_MAX], "reason", TEXT_MAX)
    return text(report.proposal, "proposal", ID_MAX), front_pb2.Report.State.Name(report.state), reason


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a front is, and how long a read by what it has may still run once it is silent."""

    front: str
    address: str
    may_serve_for: timedelta


def hello_of(hello: front_pb2.Hello) -> Hello:
    """A front's hello; InvalidInput where it does not say all."""
    if not hello.front:
        raise InvalidInput("HELLO_MISSING", "A watch begins with a hello that names the front.")
    may_serve_for = hello.may_serve_for.ToTimedelta()
    if not timedelta() < may_serve_for <= MAY_SERVE_MAX:
        raise InvalidInput(
            "INVALID_MAY_SERVE_FOR",
            f"may_serve_for of the hello is {may_serve_for}; it must be above 0 and at most {MAY_SERVE_MAX.days} days. "
            "A front takes it from its --max-stale-active-s.",
        )
    return Hello(text(hello.front, "front", ID_MAX), text(hello.address, "address", ID_MAX), may_serve_for)


def route_record_message(record: RouteRecord) -> route_pb2.Route:
    """A committed route with its circumstances."""
    back = record.state.open_way_back
    assert record.state.route is not None, "only committed routes are answered"
    return _route_message(
        record.state.route,
        rollback_version=back.active_version if back else 0,
        protected_until=record.state.protected_until if back else None,
        update_time=record.update_time,
        view=record.view,
        group=record.group,
    )


def change_message(record: ChangeRecord) -> change_pb2.RouteChange:
    """A change of a route, as the audit or the caller gets it."""
    message = change_pb2.RouteChange(
        route=_route_message(
            record.route,
            rollback_version=record.rollback_version,
            protected_until=record.protected_until,
            update_time=record.commit_time,
            view=record.view,
            group=record.group,
        ),
        command=change_pb2.RouteChange.Command.Value(record.command.value),
        claimed_actor=record.claimed_actor,
        reason=record.reason,
        gates=[_gate_message(gate) for gate in record.gates],
        commit_time=_timestamp(record.commit_time),
        fronts_not_counted=record.fronts_not_counted,
        warnings=record.warnings,
        changed=record.changed,
        group=record.group,
    )
    times = [adoption.after for adoption in record.adoptions if adoption.after is not None]
    for adoption in record.adoptions:
        message.adoptions.add(front=adoption.front, adoption_time=_duration(adoption.after))
    if times and len(times) == len(record.adoptions):
        message.adoption_time.FromTimedelta(max(times))
    return message


def encode_changes(records: Sequence[ChangeRecord]) -> bytes:
    """Changes as they are stored for a repeated request."""
    return change_pb2.CutOverRoutesResponse(route_changes=map(change_message, records)).SerializeToString()


def decode_changes(stored: bytes) -> list[change_pb2.RouteChange]:
    """The answers that `encode_changes` stored."""
    return list(change_pb2.CutOverRoutesResponse.FromString(stored).route_changes)


def readiness_message(job: str, ready: Readiness) -> change_pb2.RollbackReadiness:
    """How ready a rollback is."""
    target, stale, differing = ready.target, ready.staleness, ready.rows_differing
    return change_pb2.RollbackReadiness(
        name=route_name(job),
        possible=ready.possible,
        problems=ready.problems,
        warnings=ready.warnings,
        version=target.active_version if target else 0,
        arms=[route_pb2.Arm(version=arm.version, weight=arm.weight) for arm in target.arms] if target else [],
        staleness=change_pb2.Staleness(offsets=stale.offsets, event_time=_duration(stale.event_time))
        if stale
        else None,
        lag=ready.lag,
        rows_differing=change_pb2.RowsDiffering(
            keys=differing.keys,
            share=differing.share,
            compare_time=_timestamp(differing.compare_time),
            comparison=differing.comparison,
        )
        if differing
        else None,
        protected_until=_timestamp(ready.protected_until),
        fresh_until=_timestamp(ready.fresh_until),
    )


def shadow_tallies_of(request: shadow_pb2.RecordShadowCountsRequest) -> list[ShadowTally]:
    """What a front has compared; InvalidInput where it says too much, or a count below 0."""
    if len(request.tallies) > TALLIES_MAX:
        raise InvalidInput(
            "INVALID_TALLIES", f"The request holds {len(request.tallies)} counts, more than {TALLIES_MAX}."
        )
    tallies = []
    for one in request.tallies:
        counts = counts_of(one.counts)
        every = [*(getattr(counts, name) for name in NUMBERS), *counts.columns.values(), *counts.left_out.values()]
        if min(every) < 0:
            raise InvalidInput("INVALID_TALLIES", f"A count of the shadow of {one.name} is below 0.")
        tally = ShadowTally(parse_route(one.name), one.epoch, one.version, one.active_version, one.sequence, counts)
        tallies.append(tally)
    return tallies


def shadow_report_message(report: ShadowReport) -> shadow_pb2.ShadowReport:
    """What is said of a shadow."""
    return shadow_pb2.ShadowReport(
        name=route_name(report.job),
        shadow=None if report.share is None else shadow_pb2.Shadow(version=report.version, share=report.share),
        version=report.version,
        active_version=report.active_version,
        counts=counts_message(report.counts),
        compared_share=report.compared_share,
        e_value=report.e_value,
        threshold=report.threshold,
        verdict=shadow_pb2.ShadowReport.Verdict.Value(report.verdict.value),
        sentence=report.sentence,
        update_time=_timestamp(report.update_time),
    )


def release_message(
    version: str, time: datetime | None, undrained: list[str], view_pending: bool
) -> release_pb2.Release:
    """How far a release is."""
    return release_pb2.Release(
        version=version,
        release_time=_timestamp(time),
        drained=not undrained,
        undrained_fronts=undrained,
        view_pending=view_pending,
    )


def snapshot_message(
    registration: Registration, lease: timedelta, keys: Mapping[int, bytes]
) -> front_pb2.WatchRoutesResponse:
    """The first message of a watch. keys: of exposures, by number; the last one signs."""
    routes = [
        front_pb2.RouteCommitted(
            revision=record.revision,
            proposal=record.proposal,
            route=route_record_message(record),
            traceparent=record.traceparent,
        )
        for record in registration.routes
    ]
    snapshot = front_pb2.Snapshot(
        revision=registration.revision,
        routes=routes,
        lease_time=_duration(lease),
        exposure_keys=[front_pb2.ExposureKey(number=number, key=key) for number, key in keys.items()],
    )
    return front_pb2.WatchRoutesResponse(snapshot=snapshot)


def watch_message(proposal: Proposal) -> front_pb2.WatchRoutesResponse:
    """What fronts are told of a proposal in its present state."""
    if proposal.state is ProposalState.CANCELLED:
        return front_pb2.WatchRoutesResponse(proposal_cancelled=front_pb2.ProposalCancelled(proposal=proposal.proposal))
    first, *others = proposal.routes
    if proposal.state is ProposalState.OPEN:
        proposed = front_pb2.Proposal(
            proposal=proposal.proposal,
            route=_route_message(first.route),
            traceparent=proposal.traceparent,
            way_back_versions=first.way_back_versions,
            others=[
                front_pb2.ProposedRoute(route=_route_message(one.route), way_back_versions=one.way_back_versions)
                for one in others
            ],
        )
        return front_pb2.WatchRoutesResponse(proposal=proposed)
    return front_pb2.WatchRoutesResponse(
        route_committed=front_pb2.RouteCommitted(
            revision=proposal.revision,
            proposal=proposal.proposal,
            route=_route_message(first.route, group=proposal.group),
            traceparent=proposal.traceparent,
            others=[_route_message(one.route, group=proposal.group) for one in others],
        )
    )


def acknowledgement(sequence: int) -> front_pb2.WatchRoutesResponse:
    """The answer to a heartbeat."""
    return front_pb2.WatchRoutesResponse(heartbeat_acknowledged=front_pb2.HeartbeatAcknowledged(sequence=sequence))


def read_load_of(message: front_pb2.Heartbeat) -> ReadLoad | None:
    """What a heartbeat says of the reads; None when there were none. InvalidInput for less than no time."""
    if not message.HasField("read_load"):
        return None
    said = message.read_load
    load = ReadLoad(said.reads, said.window.ToTimedelta(), said.p50.ToTimedelta(), said.p99.ToTimedelta())
    if load.reads < 0 or min(load.window, load.p50, load.p99) < timedelta():
        raise InvalidInput("INVALID_READ_LOAD", "The read load of a heartbeat has a number or a time below 0.")
    return load if load.reads else None


def read_load_message(fronts: Sequence[FrontReadLoad]) -> front_pb2.GetReadLoadResponse:
    """What the fronts last said."""
    return front_pb2.GetReadLoadResponse(
        fronts=[
            front_pb2.FrontReadLoad(
                front=one.front,
                read_load=None
                if one.load is None
                else front_pb2.ReadLoad(
                    reads=one.load.reads,
                    window=_duration(one.load.window),
                    p50=_duration(one.load.p50),
                    p99=_duration(one.load.p99),
                ),
                age=_duration(one.age),
            )
            for one in fronts
        ]
    )


def _route_message(
    route: Route,
    *,
    rollback_version: int = 0,
    protected_until: datetime | None = None,
    update_time: datetime | None = None,
    view: View | None = None,
    group: int = 0,
) -> route_pb2.Route:
    return route_pb2.Route(
        name=route_name(route.job),
        epoch=route.epoch,
        active_version=route.active_version,
        arms=[route_pb2.Arm(version=arm.version, weight=arm.weight) for arm in route.arms],
        salt=route.salt,
        intervals=[
            route_pb2.Interval(low=i.low, high=i.high, version=i.version, acquired_epoch=i.acquired_epoch)
            for i in route.intervals
        ],
        rollback_version=rollback_version,
        rollback_protected_until=_timestamp(protected_until),
        update_time=_timestamp(update_time),
        etag=etag_of(route.epoch),
        view=_view_message(view),
        group=group,
        owner=route.owner,
        experiment=None if route.experiment is None else experiment_message(route.experiment),
        shadow=shadow_message(route.shadow),
        required_gates=route.required_gates,
    )


def _view_message(view: View | None) -> route_pb2.View | None:
    if view is None:
        return None
    state = route_pb2.View.PENDING if view.pending else route_pb2.View.MOVED
    return route_pb2.View(state=state, version=view.version, waiting_for=view.waiting_for)


def _gate_message(gate: GateAnswer) -> change_pb2.Gate:
    return change_pb2.Gate(
        gate=gate.gate,
        version=gate.version,
        passed=gate.passed,
        overridden=gate.overridden,
        evidence=gate.evidence,
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _duration(time: timedelta | None) -> Duration | None:
    if time is None:
        return None
    duration = Duration()
    duration.FromTimedelta(time)
    return duration
