"""How fresh a front is, through OpenTelemetry's own SDK."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.unit.reading.test_front import Clock
from tests.unit.reading.test_routing import commit, whole
from turnout.reading.freshness import Limits
from turnout.reading.front import Front
from turnout.reading.metrics import FrontMetrics
from turnout.reading.routing import RoutingTable


def collected(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, object], float]]]:
    data = reader.get_metrics_data()
    return {
        metric.name: [(dict(point.attributes or {}), getattr(point, "value", 0.0)) for point in metric.data.data_points]
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_staleness_is_told_with_what_it_allows() -> None:
    clock, reader = Clock(), InMemoryMetricReader()
    front = Front("f", clock, Limits(active_s=60, experiment_s=15))
    metrics = FrontMetrics(front)
    metrics.start(MeterProvider([reader]).get_meter("test"))
    assert collected(reader) == {
        "turnout.front.freshness": [({"state": "unknown"}, 1)],
        "turnout.front.revision": [({}, 0)],
    }
    front.table = RoutingTable().with_commit(commit(whole(), revision=7))
    front.vouched(clock.s)
    for age_s, state in ((0, "fresh"), (15, "fresh"), (16, "active_only"), (60, "active_only"), (61, "stale")):
        clock.s = 1000.0 + age_s
        assert collected(reader) == {
            "turnout.front.route_age": [({}, age_s)],
            "turnout.front.freshness": [({"state": state}, 1)],
            "turnout.front.revision": [({}, 7)],
        }
    metrics.stop()
    assert collected(reader) == {}
