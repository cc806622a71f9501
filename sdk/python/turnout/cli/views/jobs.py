"""Jobs and versions, with what is known of them elsewhere: the answer of `turnout show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, heading, table
from turnout.cli.quantities import ABSENT, count, day, moment, plural, share, size
from turnout.cli.views.definitions import definition_view
from turnout.cli.views.phrases import state, weights_text
from turnout.cli.views.routes import route_view, share_of
from turnout.cli.views.runs import run_view
from turnout.readiness import RollbackReadiness
from turnout.results import Job, RetirementStep, Route, Run, RunState, Version, VersionState

_STEPS = {
    RetirementStep.RELEASE: "the switcher is asked to let nobody name it",
    RetirementStep.STOP_RUN: "its run is being stopped",
    RetirementStep.RETAIN: "its table is retained",
    RetirementStep.DROP: "its table is to be dropped once every reader has drained",
    RetirementStep.DONE: "done",
    RetirementStep.REINSTATE: "the retirement was taken back; it is being reinstated",
}


def jobs_view(jobs: Sequence[Job], routes: Mapping[str, Route]) -> RenderableType:
    """All jobs, one a line."""
    if not jobs:
        return Text("There is no job yet. `turnout apply FILE` registers one.")
    rows = []
    for job in jobs:
        route = routes.get(job.job)
        newest = f"v{job.newest_version}" if job.newest_version is not None else ABSENT
        traffic = weights_text(route.weights) if route is not None else "not routed yet"
        rows.append((job.job, newest, traffic, _first_line(job.description)))
    return table(("job", "newest", "traffic", "description"), rows)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def job_view(
    job: Job,
    versions: Sequence[Version],
    runs: Mapping[int, Run],
    route: Route | None,
    readiness: RollbackReadiness | None = None,
) -> RenderableType:
    """One job: its versions with their runs and shares, retirements, and its route."""
    parts: list[RenderableType] = [heading(job.job)]
    if job.description:
        parts.append(Text(job.description.strip()))
    parts.append(Text())
    if versions:
        parts.append(_versions(versions, runs, route))
    else:
        parts.append(Text("It has no version yet."))
    parts += [Text(f"v{one.number} reads the log {one.log_range}.") for one in versions if one.log_range is not None]
    retiring = [line for version in versions for line in retirement_lines(version)]
    if retiring:
        parts += [Text(), *(Text(line) for line in retiring)]
    aside = [
        f"v{run.version}: {plural(run.records_set_aside, 'malformed record')} set aside into the dead-letter table"
        for run in runs.values()
        if run.records_set_aside
    ]
    if aside:
        parts += [Text(), *(Text(line, style="yellow") for line in aside)]
    failing = [f"v{run.version}: {run.status_message}" for run in runs.values() if run.status_message]
    if failing:
        parts += [Text(), *(Text(line, style="red") for line in failing)]
    parts += [
        Text(),
        route_view(route, readiness)
        if route is not None
        else Text(f"No route yet: `turnout cutover {job.job} vN` makes a version serve readers."),
    ]
    return Group(*parts)


def _versions(versions: Sequence[Version], runs: Mapping[int, Run], route: Route | None) -> RenderableType:
    rows: list[tuple[str | Text, ...]] = []
    for version in versions:
        run = runs.get(version.number)
        # Of a table that is gone there is nothing done, and nothing behind.
        measured = run if version.state is not VersionState.DROPPED else None
        rows.append(
            (
                f"v{version.number}",
                state(version.state),
                state(run.state) if run is not None else "no run",
                share(measured.progress) if measured is not None and measured.state is not RunState.QUEUED else ABSENT,
                count(measured.lag) if measured is not None else ABSENT,
                share_of(route, version.number) if route is not None else ABSENT,
                day(version.create_time),
            )
        )
    return table(("version", "state", "run", "done", "lag", "traffic", "created"), rows, right=(3, 4))


def retirement_lines(version: Version) -> list[str]:
    """How far a retirement is and what it waits for; nothing while there is none."""
    if version.retirement is None:
        return []
    step = version.retirement.step
    text = f"v{version.number} {version.state}: {_STEPS[step]}"
    drop_time = version.retirement.drop_time
    if step is RetirementStep.RETAIN and drop_time is not None:
        text += f" until {moment(drop_time)} (`turnout unretire` takes it back)"
    elif version.retirement.waiting_for:
        text += f"; waiting: {version.retirement.waiting_for}"
    return [text]


def version_view(version: Version, run: Run | None) -> RenderableType:
    """One version: what its code declares, its run, its retirement."""
    parts: list[RenderableType] = [
        heading(f"{version.job} v{version.number}"),
        facts(
            [
                ("state", state(version.state)),
                ("created", moment(version.create_time)),
                ("range", "all of the log" if version.log_range is None else str(version.log_range)),
                ("artefact", f"{size(version.artifact_bytes)}, SHA-256 {version.artifact_digest}"),
            ]
        ),
        *(Text(line) for line in retirement_lines(version)),
        definition_view(version.definition),
        Text(),
        run_view(run) if run is not None else Text("It has no run."),
    ]
    return Group(*parts)
