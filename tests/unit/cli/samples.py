"""Results as the services would send them, and how they look at 80 columns without a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from rich.console import Console, RenderableType

from turnout.cli.output import Trimmed
from turnout.contract import Contract, Expected, ExpectedColumn
from turnout.experiments import (
    ArmEstimate,
    ArmStanding,
    Bandit,
    CandidateStanding,
    Decision,
    Experiment,
    ExperimentState,
    Guardrail,
    Plan,
    Standing,
    Units,
    Verdict,
)
from turnout.log_range import LogRange, PartitionOffset
from turnout.readiness import RollbackReadiness, RowsDiffering, Staleness
from turnout.results import (
    Adoption,
    AppliedPosition,
    Capacity,
    Cause,
    ColumnDifference,
    Command,
    ComparedRange,
    Comparison,
    Estimate,
    Explanation,
    Gate,
    Interval,
    Job,
    PartitionProgress,
    Read,
    RetentionRisk,
    Retirement,
    RetirementStep,
    Route,
    RouteChange,
    RowDifference,
    Run,
    RunState,
    Throttle,
    ThrottleReason,
    Version,
    VersionState,
    View,
    ViewState,
)
from turnout.schema import Column, ColumnType, DerivedColumn, Index, JobDefinition, JobKind, Merge, TopicSource
from turnout.shadow import Shadow, ShadowCounts, ShadowReport, ShadowVerdict

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOB = "carrier-punctuality"


def rendered(part: RenderableType, width: int = 80, *, terminal: bool = False) -> str:
    """The text that a person gets, without colours unless on a terminal."""
    stream = io.StringIO()
    Console(
        file=stream,
        width=width,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        emoji=False,
        highlight=False,
        markup=False,
    ).print(Trimmed(part))
    return stream.getvalue()


DEFINITION = JobDefinition(
    job=JOB,
    kind=JobKind.AGGREGATE,
    topics=(TopicSource("flights"),),
    columns=(
        Column("carrier", ColumnType.STRING, merge=Merge.KEY),
        Column("month", ColumnType.DATE, merge=Merge.KEY),
        Column("flights", ColumnType.INT64, merge=Merge.SUM),
        Column("worst_delay", ColumnType.INT64, nullable=True, merge=Merge.MAX),
    ),
    key=("carrier", "month"),
    derived=(DerivedColumn("on_time_share", "on_time::float8 / flights"),),
    indexes=(Index(("month",)),),
    python="3.11",
)

PARTITIONS = (
    PartitionProgress("flights", 0, 0, 77_000, 0, 77_160, NOON, 26_150.4, "worker-1"),
    PartitionProgress("flights", 1, 100, 40_100, 100, 80_100, None, 0.0, ""),
)
RUN = Run(
    job=JOB,
    version=2,
    state=RunState.REPLAYING,
    status_message="",
    failure_reason="",
    workers=2,
    live_workers=2,
    rate_limit=None,
    table="carrier_punctuality__v2",
    partitions=PARTITIONS,
    records=117_000,
    records_per_s=26_150.4,
    lag=40_160,
    progress=0.7445,
    eta=timedelta(seconds=75),
    eta_min=timedelta(seconds=68),
    eta_max=timedelta(seconds=84),
    rows_written=116_990,
    bytes_written=14_200_000,
    event_time=NOON,
    records_set_aside=0,
    worker_restarts=0,
    create_time=NOON,
    catch_up_time=None,
)
TAILING = replace(
    RUN,
    state=RunState.TAILING,
    progress=1.0,
    lag=0,
    eta=None,
    eta_min=None,
    eta_max=None,
    partitions=PARTITIONS[:1],
    records=157_160,
    records_per_s=0.0,
    catch_up_time=NOON + timedelta(seconds=6.25),
)
COMPLETED = replace(
    RUN,
    state=RunState.COMPLETED,
    progress=1.0,
    lag=0,
    eta=None,
    live_workers=0,
    partitions=tuple(
        replace(one, next_offset=end, range_end_offset=end, records_per_s=0.0)
        for one, end in zip(PARTITIONS, (40_000, 40_100), strict=True)
    ),
    records=80_000,
    records_per_s=0.0,
    catch_up_time=NOON + timedelta(seconds=4.5),
)
FAILED = replace(
    RUN,
    state=RunState.FAILED,
    eta=None,
    eta_min=None,
    eta_max=None,
    records_per_s=0.0,
    live_workers=0,
    partitions=(),
    records_set_aside=1,
    worker_restarts=2,
    rate_limit=50_000,
    failure_reason="MALFORMED_RECORD",
    status_message="flights/0 offset 12 cannot be decoded: expected int. Mend the job and apply it as a new version.",
)
ESTIMATE = Estimate(
    records=308_641,
    log_bytes=45_200_000,
    sampled_records=2_000,
    table_bytes=90_112,
    partitions=4,
    remarks=("flights keeps its records for ever",),
    duration=timedelta(seconds=72),
    duration_min=timedelta(seconds=58),
    duration_max=timedelta(seconds=97),
    peak_storage_bytes=180_224,
    queue_position=None,
    waits_for="",
    retention_risk=None,
    never_catches_up=False,
)
ESTIMATE_AT_RISK = replace(
    ESTIMATE,
    table_bytes=None,
    peak_storage_bytes=None,
    duration=None,
    queue_position=2,
    waits_for="2 of 2 copies run; 2nd in the queue",
    retention_risk=RetentionRisk(
        "flights", 0, NOON, "flights/0: in 60 s the log's start may pass it: lengthen the retention"
    ),
)
CAPACITY = Capacity(
    copies_max=2,
    rows_per_s_max=None,
    storage_bytes_max=None,
    read_p99_ratio_max=1.3,
    etag="1",
    copies=1,
    queued=0,
    rows_per_s=12_300.4,
    storage_bytes=90_112,
    storage_bytes_expected=0,
)
WIDE = replace(
    RUN,
    lag=sum(1000 * n for n in range(50)),
    partitions=tuple(
        PartitionProgress("flights", n, 0, 1000 * n, 0, 2000 * n, NOON, 10.0, "worker-1", None, n % 2, 900 * n)
        for n in range(50)
    ),
)
AT_RISK = replace(
    RUN,
    status_message="waits for Kafka; partition flights/1: the log's start passes the run's position in about 40 min",
    retention_risk=RetentionRisk(
        "flights", 1, NOON, "partition flights/1: the log's start passes the run's position in about 40 min"
    ),
    throttle=Throttle(
        ThrottleReason.READ_LATENCY, 5000.0, "reads take 31 ms at the 99th percentile, 1.6 times their quiet value"
    ),
    worker_restarts=3,
    stuck_restarts=1,
)

VIEW = View(ViewState.MOVED, 2, "")
ROUTE = Route(JOB, 3, 2, {2: 9_000, 3: 1_000}, "salt", (Interval(0, 2**32, 2, 1),), None, None, NOON, "etag", VIEW)
READINESS = RollbackReadiness(
    job=JOB,
    possible=True,
    problems=("The run of carrier-punctuality v1 is STOPPED, so that its table goes stale: resume it.",),
    warnings=("The experiment e owns the route no more after it, and ends.",),
    version=1,
    weights={1: 9_000, 2: 1_000},
    staleness=Staleness(12_034, timedelta(minutes=3)),
    lag=12_100,
    rows_differing=RowsDiffering(41, 0.0012, NOON, "c-1"),
    protected_until=NOON + timedelta(days=1),
    fresh_until=NOON + timedelta(days=5),
)
DEMANDING = replace(ROUTE, required_gates=("comparison", "shadow"))
SHADOWED = replace(ROUTE, shadow=Shadow(2, 500))
SHADOW = ShadowReport(
    job=JOB,
    version=2,
    active_version=1,
    share=500,
    counts=ShadowCounts(
        compared=1204,
        equal=1166,
        only_candidate_differs=38,
        only_active_differs=3,
        active_differs=3,
        only_active=2,
        columns={"on_time": 36},
        left_out={"BEHIND": 18, "CHANGED": 31},
    ),
    compared_share=1204 / 1253,
    e_value=1.04e6,
    threshold=20.0,
    verdict=ShadowVerdict.DIFFERS,
    sentence="v2 differs more often than v1 from itself: of 1,204 compared reads 38 differed in v2 alone.",
    update_time=NOON,
)

CUT_OVER = RouteChange(
    route=replace(
        ROUTE,
        epoch=4,
        active_version=2,
        weights={2: 10_000},
        rollback_version=1,
        rollback_protected_until=NOON + timedelta(days=1),
        view=View(ViewState.PENDING, 1, "process 4711 holds a lock on it"),
    ),
    command=Command.CUT_OVER,
    claimed_actor="ada@lab",
    reason="the fault is mended",
    gates=(
        Gate("catch-up", 2, False, True, ("flights/0 is 160 records behind.", "flights/1 is 40,000 records behind.")),
        Gate("schema", 2, True, False, ("Every column of v1 is there.",)),
    ),
    commit_time=NOON,
    adoptions=(Adoption("front-1", timedelta(milliseconds=41)), Adoption("front-2", None)),
    fronts_not_counted=("front-3",),
    adoption_time=timedelta(milliseconds=72),
    warnings=("The log is short.",),
    changed=True,
)

VERSIONS = (
    Version(JOB, 2, VersionState.REGISTERED, DEFINITION, "ab" * 32, 2_048, NOON, None),
    Version(
        JOB,
        1,
        VersionState.RETIRED,
        DEFINITION,
        "cd" * 32,
        2_048,
        NOON - timedelta(days=3),
        Retirement(RetirementStep.RETAIN, NOON + timedelta(hours=24), "", "ada@lab", NOON),
    ),
)
BOUNDED = replace(
    VERSIONS[0],
    log_range=LogRange(
        start_time=NOON - timedelta(days=30),
        end_offsets=(PartitionOffset("flights", 0, 40_000), PartitionOffset("flights", 1, 40_100)),
    ),
)
THE_JOB = Job(JOB, "How punctual is each carrier, month by month?", NOON, 2)

POSITIONS = (AppliedPosition("flights", 0, 77_000, NOON), AppliedPosition("flights", 1, 40_100, None))
ROW = {"carrier": "UA", "month": date(2013, 1, 1), "flights": 4_637, "on_time_share": 0.8214123, "note": None}
READ = Read(ROW, 2, 4, POSITIONS, Cause.ROUTED)
CUT = ComparedRange(
    number=0,
    after_key=(),
    last_key=(),
    aligned=True,
    exact=True,
    unaligned_reason="",
    positions_old=POSITIONS,
    positions_new=POSITIONS,
    cut_time=NOON,
    held=timedelta(milliseconds=23),
    took=timedelta(milliseconds=310),
    rows_old=185,
    rows_new=186,
)
CONTRACT = Contract(columns=(ExpectedColumn("on_time", Expected(0.9)), ExpectedColumn("name", Expected(None, True))))
COMPARISON = Comparison(
    job=JOB,
    id="0123456789ab",
    old=1,
    new=2,
    finished=True,
    contract=None,
    passed=None,
    findings=(),
    aligned=True,
    exact=True,
    rows_old=185,
    rows_new=186,
    rows_only_old=0,
    rows_only_new=1,
    rows_changed=143,
    columns=(ColumnDifference("on_time", 143, 312.0, -9_430.0), ColumnDifference("name", 1, None, None)),
    columns_added=("cancelled",),
    columns_removed=(),
    samples=(
        RowDifference(
            {"carrier": "UA", "month": date(2013, 1, 1)},
            {"on_time": 3_900, "name": "x"},
            {"on_time": 3_820, "name": None},
        ),
        RowDifference({"carrier": "ZZ", "month": date(2013, 1, 1)}, None, {"on_time": 1}),
    ),
    ranges=(CUT,),
    ranges_done=1,
    rows_expected=360,
    held_max=timedelta(milliseconds=23),
    create_time=NOON,
    end_time=NOON + timedelta(seconds=1),
)
EXPLANATION = Explanation("user-17", 1_234_567, 2, 1, 3, 0, 429_496_729, 2, "front-1", 0.42)

ARMS = (
    ArmStanding(1, 9_500, None, 19_012, 18_700, ArmEstimate(0.0102, 0.0088, 0.0116), None, None),
    ArmStanding(2, 500, None, 988, 961, ArmEstimate(0.0113, 0.0046, 0.018), None, None),
)
EXPERIMENT = Experiment(
    job=JOB,
    experiment="rounding",
    state=ExperimentState.RUNNING,
    weights={1: 9_500, 2: 500},
    units=Units.CALLER,
    salt="",
    holdout=500,
    holdout_salt="jobs/carrier-punctuality/holdout",
    overrides={"tester": 2},
    plan=Plan(margin=0.1),
    bandit=None,
    create_time=NOON,
    end_time=None,
    end_reason="",
    claimed_actor="ada@lab",
    reason="is rounding any better?",
    standing=Standing(
        epoch=4,
        arms=ARMS,
        candidates=(
            CandidateStanding(
                version=2,
                verdict=Verdict.CONTINUE,
                sentence="Neither harm of v2 nor its absence is shown, it goes on: 11 of 961 units erred on it.",
                harms=(
                    Guardrail("ERROR", 0.61, 80.0, (191, 11)),
                    Guardrail("NOT_FOUND", 1.0, 80.0, (0, 0)),
                    Guardrail("CONVERSION", 2.4, 80.0, (1810, 71)),
                ),
                no_worse=Guardrail("NO_WORSE", 1.31, 20.0, ()),
                present=True,
            ),
        ),
        mismatch=Guardrail("MISMATCH", 0.09, 1000.0, ()),
        verdict=Verdict.CONTINUE,
        sentence="Neither harm of v2 nor its absence is shown, it goes on: 11 of 961 units erred on it.",
        waiting_for="more units",
        observations_lost=0,
    ),
)
ENDED = replace(
    EXPERIMENT,
    state=ExperimentState.ROLLED_BACK,
    end_time=NOON + timedelta(minutes=12),
    end_reason="A guardrail took the last candidate off the route: v2 does harm (ERROR).",
    standing=None,
)
assert EXPERIMENT.standing is not None
UNREAD = replace(
    EXPERIMENT,
    standing=replace(
        EXPERIMENT.standing, arms=tuple(replace(arm, units=0, windows=0, error_rate=None) for arm in ARMS)
    ),
)
ENDED_EARLY = replace(ENDED, standing=EXPERIMENT.standing)
LEFT_OUT = replace(EXPERIMENT, standing=replace(EXPERIMENT.standing, reads_left_out=1_204))
LEARNING = replace(
    EXPERIMENT,
    state=ExperimentState.PAUSED,
    bandit=Bandit(),
    overrides={},
    standing=replace(
        EXPERIMENT.standing,
        arms=tuple(
            replace(arm, wanted=wanted, conversion_rate=ArmEstimate(0.1, 0.09, 0.11))
            for arm, wanted in zip(EXPERIMENT.standing.arms, (500, 9_500), strict=True)
        ),
        verdict=Verdict.FREEZE,
        sentence="The units are not spread as designed, so no comparison means anything until the cause is found.",
        waiting_for="a person: resume or stop the experiment",
        observations_lost=12,
    ),
)
DECISIONS = (
    Decision(
        JOB,
        "rounding",
        2,
        NOON + timedelta(minutes=12),
        5,
        "END",
        Verdict.ABORT,
        "v2 does harm.",
        "guardrails",
        "",
        True,
        "",
    ),
    Decision(JOB, "rounding", 1, NOON, 4, "ASKED", Verdict.CONTINUE, "Somebody asked.", "ada@lab", "a look", True, ""),
)
