"""Between the messages of the route watch and a front's own values."""

from datetime import timedelta

from turnout.names import parse_route, route_name
from turnout.reading.latency import ReadLoad
from turnout.reading.routing import Committed
from turnout.routing import Arm, Experiment, Interval, Route, Units
from turnout.shadow import Shadow
from turnout.switcher.v1 import front_pb2, route_pb2, shadow_pb2

_UNITS = {route_pb2.UNITS_KEY: Units.KEY, route_pb2.UNITS_CALLER: Units.CALLER}


def route_of(message: route_pb2.Route) -> Route:
    """The route. ValueError when it is not one that a front may serve by."""
    return Route(
        job=parse_route(message.name),
        epoch=message.epoch,
        active_version=message.active_version,
        arms=tuple(Arm(arm.version, arm.weight) for arm in message.arms),
        salt=message.salt,
        intervals=tuple(Interval(one.low, one.high, one.version, one.acquired_epoch) for one in message.intervals),
        owner=message.owner,
        experiment=_experiment_of(message.experiment) if message.HasField("experiment") else None,
        shadow=Shadow(message.shadow.version, message.shadow.share) if message.HasField("shadow") else None,
    )


def _experiment_of(message: route_pb2.RouteExperiment) -> Experiment:
    if message.units not in _UNITS:
        raise ValueError(f"{message.name} counts by something that this release does not know")
    return Experiment(
        name=message.name,
        number=message.number,
        units=_UNITS[message.units],
        holdout=message.holdout,
        holdout_salt=message.holdout_salt,
        overrides=tuple((one.unit, one.version) for one in message.overrides),
        slow_us=message.slow.ToMicroseconds(),
    )


def shadow_message(shadow: Shadow | None) -> shadow_pb2.Shadow | None:
    """The shadow as the route carries it."""
    return None if shadow is None else shadow_pb2.Shadow(version=shadow.version, share=shadow.share)


def experiment_message(experiment: Experiment) -> route_pb2.RouteExperiment:
    """The experiment as the route carries it."""
    message = route_pb2.RouteExperiment(
        name=experiment.name,
        number=experiment.number,
        units=route_pb2.Units.Value(f"UNITS_{experiment.units.value}"),
        holdout=experiment.holdout,
        holdout_salt=experiment.holdout_salt,
        overrides=[route_pb2.UnitOverride(unit=unit, version=version) for unit, version in experiment.overrides],
    )
    if experiment.slow_us:
        message.slow.FromMicroseconds(experiment.slow_us)
    return message


def committed_of(message: front_pb2.RouteCommitted) -> Committed:
    """The committed route. ValueError as for `route_of`."""
    return Committed(message.revision, message.proposal, route_of(message.route), message.route.group)


def step_of(message: front_pb2.RouteCommitted) -> list[Committed]:
    """The committed route and those that were committed in the same step. ValueError as for `route_of`."""
    return [
        Committed(message.revision, message.proposal, route_of(route), route.group)
        for route in (message.route, *message.others)
    ]


def heartbeat_message(sequence: int, load: ReadLoad | None) -> front_pb2.WatchRoutesRequest:
    """A heartbeat, and the reads since the one before."""
    heartbeat = front_pb2.Heartbeat(sequence=sequence)
    if load is not None:
        heartbeat.read_load.reads = load.reads
        heartbeat.read_load.window.FromTimedelta(timedelta(seconds=load.window_s))
        heartbeat.read_load.p50.FromTimedelta(timedelta(seconds=load.p50_s))
        heartbeat.read_load.p99.FromTimedelta(timedelta(seconds=load.p99_s))
    return front_pb2.WatchRoutesRequest(heartbeat=heartbeat)


def committed_message(committed: Committed) -> front_pb2.RouteCommitted:
    """The committed route as the switcher sends it, alone."""
    route = committed.route
    return front_pb2.RouteCommitted(
        revision=committed.revision,
        proposal=committed.proposal,
        route=route_pb2.Route(
            name=route_name(route.job),
            epoch=route.epoch,
            active_version=route.active_version,
            arms=[route_pb2.Arm(version=arm.version, weight=arm.weight) for arm in route.arms],
            salt=route.salt,
            group=committed.group,
            intervals=[
                route_pb2.Interval(low=one.low, high=one.high, version=one.version, acquired_epoch=one.acquired_epoch)
                for one in route.intervals
            ],
            owner=route.owner,
            experiment=None if route.experiment is None else experiment_message(route.experiment),
            shadow=shadow_message(route.shadow),
        ),
    )
