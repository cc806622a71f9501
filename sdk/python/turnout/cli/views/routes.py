"""Routes, their changes, and gates."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, table
from turnout.cli.quantities import ABSENT, moment, percent, plural, span
from turnout.cli.views.phrases import lines, named, state, weights_text
from turnout.readiness import RollbackReadiness
from turnout.results import Command, Explanation, Gate, Route, RouteChange, View, ViewState

_COMMANDS = {
    Command.SET_TRAFFIC: "traffic",
    Command.CUT_OVER: "cutover",
    Command.ROLL_BACK: "rollback",
    Command.START_EXPERIMENT: "experiment",
    Command.STOP_EXPERIMENT: "stop",
    Command.ABORT: "abort",
    Command.STEP: "step",
    Command.SET_SHADOW: "shadow",
    Command.ROLL_OUT: "rollout",
    Command.WITHDRAW: "withdraw",
    Command.REQUIRE_GATES: "gates",
}


def route_view(route: Route, readiness: RollbackReadiness | None = None) -> RenderableType:
    """Shares, what a rollback would return to and how stale that is, and where the SQL view is."""
    pairs: list[tuple[str, str | Text]] = [
        ("route", f"{route.job}, epoch {route.epoch}, since {moment(route.update_time)}"),
        ("active", f"v{route.active_version}"),
        ("traffic", weights_text(route.weights)),
        ("rollback", rollback_text(route) + _staleness_text(readiness)),
        ("SQL view", view_text(route.view)),
    ]
    if route.owner is not None:
        pairs.append(("owner", f"{named(route.owner)}, which moves the weights"))
    if route.required_gates:
        pairs.append(("gates", f"{', '.join(route.required_gates)} demanded of every change"))
    if route.shadow is not None:
        pairs.append(("shadow", f"v{route.shadow.version}, compared for {percent(route.shadow.share)} of the reads"))
    if readiness is None or route.rollback_version is None:
        return facts(pairs)
    return Group(facts(pairs), *_told(readiness))


def readiness_view(readiness: RollbackReadiness) -> RenderableType:
    """Whether a rollback would be accepted, and what readers would return to."""
    job, version = readiness.job, readiness.version
    if not readiness.possible or version is None:
        return Text(f"{job} cannot be rolled back: {readiness.problems[0] if readiness.problems else ABSENT}")
    pairs: list[tuple[str, str | Text]] = [
        ("rollback", f"{job} can be rolled back now, to {weights_text(readiness.weights)}"),
        ("stale", _staleness_text(readiness).removeprefix("; ") or "not known"),
        ("lag", f"{readiness.lag:,} offsets to the end of the log"),
        ("protected", f"until {moment(readiness.protected_until)}" if readiness.protected_until else "no"),
    ]
    if readiness.fresh_until is not None:
        pairs.append(
            ("fresh", f"its run can go on until {moment(readiness.fresh_until)}, then the log has lost records")
        )
    return Group(facts(pairs), *_told(readiness))


def _staleness_text(readiness: RollbackReadiness | None) -> str:
    """`; 12 offsets and 3.0 s behind; 4 keys differ (0.2 %), compared 2026-.. by ..`, as far as it is known."""
    if readiness is None or readiness.version is None:
        return ""
    parts = []
    if readiness.staleness is not None:
        stale = readiness.staleness
        late = f" and {span(stale.event_time)} of event time" if stale.event_time else ""
        parts.append(f"{stale.offsets:,} offsets{late} behind" if stale.offsets else "as fresh as the active version")
    if readiness.rows_differing is not None:
        differing = readiness.rows_differing
        share = percent(round(differing.share * 10_000))
        by = f" by comparison {differing.comparison}" if differing.comparison else ""
        parts.append(f"{plural(differing.keys, 'key')} differ ({share}), compared {moment(differing.compare_time)}{by}")
    return "".join(f"; {part}" for part in parts)


def _told(readiness: RollbackReadiness) -> list[RenderableType]:
    told = (*readiness.problems, *readiness.warnings)
    return [Text(f"Rollback: {one}", style="yellow") for one in told]


def rollback_text(route: Route) -> str:
    """What a rollback would return to."""
    if route.rollback_version is None:
        return "nothing to return to"
    text = f"would return to v{route.rollback_version}"
    if route.rollback_protected_until is not None:
        text += f", protected until {moment(route.rollback_protected_until)}"
    return text


def view_text(view: View | None) -> Text:
    """Where the SQL view is."""
    if view is None or (view.version is None and view.state is ViewState.MOVED):
        return Text(ABSENT)
    shown = f"shows v{view.version}" if view.version is not None else "not there yet"
    if view.state is ViewState.MOVED:
        return Text(shown)
    return Text.assemble(f"{shown}, ", state(view.state), f": {view.waiting_for}" if view.waiting_for else "")


def change_view(change: RouteChange) -> RenderableType:
    """What a command did to a route, and how the fronts took it."""
    parts: list[RenderableType] = [Text(_what_happened(change), style="bold")]
    failed = [gate for gate in change.gates if not gate.passed]
    if failed:
        parts.append(gates_view(failed))
    if len(change.adoptions) > 1 or any(one.adoption_time is None for one in change.adoptions):
        parts.append(
            table(
                ("front", "adopted after"),
                [
                    (one.front, span(one.adoption_time) if one.adoption_time is not None else "not in time")
                    for one in change.adoptions
                ],
                right=(1,),
            )
        )
    if change.fronts_not_counted:
        parts.append(
            Text(
                f"Not counted, because their lease had expired; they may still serve the epoch before: "
                f"{', '.join(change.fronts_not_counted)}.",
                style="yellow",
            )
        )
    parts += [Text(f"Warning: {warning}", style="yellow") for warning in change.warnings]
    if change.changed and change.route.view is not None and change.route.view.state is ViewState.PENDING:
        parts.append(Text.assemble("The SQL view ", view_text(change.route.view)))
    return Group(*parts)


def _what_happened(change: RouteChange) -> str:
    route = change.route
    if not change.changed:
        return f"Nothing to change: {route.job} reads {weights_text(route.weights)} (epoch {route.epoch})."
    fronts = plural(sum(one.adoption_time is not None for one in change.adoptions), "front")
    took = f"; {fronts} adopted it in {span(change.adoption_time)}" if change.adoption_time is not None else ""
    if change.command is Command.SET_TRAFFIC:
        done = f"{route.job} now reads {weights_text(route.weights)}"
    elif change.command is Command.CUT_OVER:
        done = f"{route.job} is cut over to v{route.active_version}"
    elif change.command is Command.SET_SHADOW:
        shadow = route.shadow
        told = "nothing" if shadow is None else f"v{shadow.version} for {percent(shadow.share)} of its reads"
        done = f"{route.job} is compared with {told}"
    elif change.command is Command.REQUIRE_GATES:
        told = f"the gates {', '.join(route.required_gates)}" if route.required_gates else "no gates beyond the usual"
        done = f"Changes of {route.job} are asked {told}"
    else:
        done = f"{route.job} is rolled back to {weights_text(route.weights)}"
    together = ", in one step with other jobs" if change.group else ""
    return f"{done} (epoch {route.epoch}){together}{took}."


def gates_view(gates: Sequence[Gate]) -> RenderableType:
    """Each gate with its answer and evidence."""
    rows: list[tuple[str | Text, ...]] = []
    for gate in gates:
        answer = (
            Text("passed", style="green")
            if gate.passed
            else Text("overridden", style="yellow")
            if gate.overridden
            else Text("failed", style="red")
        )
        rows.append((gate.gate, f"v{gate.version}", answer, "\n".join(gate.evidence)))
    return table(("gate", "version", "answer", "evidence"), rows)


def changes_view(changes: Sequence[RouteChange]) -> RenderableType:
    """The audit of a route, newest first. The actor is what the caller claimed."""
    if not changes:
        return Text("The route has not changed yet.")
    rows = []
    for change in changes:
        overridden = [gate.gate for gate in change.gates if gate.overridden]
        note = change.reason + (f" [gates overridden: {', '.join(overridden)}]" if overridden else "")
        rows.append(
            (
                str(change.route.epoch),
                moment(change.commit_time).removesuffix(" UTC"),
                _COMMANDS[change.command],
                weights_text(change.route.weights),
                change.claimed_actor or ABSENT,
                note.strip() or ABSENT,
            )
        )
    return table(("epoch", "time (UTC)", "command", "traffic", "claimed by", "reason"), rows, right=(0,))


def explanation_view(found: Explanation) -> RenderableType:
    """Which version a unit reads, and why."""
    size = percent(round((found.interval_high - found.interval_low) / 2**32 * 10_000))
    return Group(
        *lines([f"The unit {found.unit!r} reads v{found.version}."]),
        facts(
            [
                ("hash", f"{found.unit_hash:,} of 4,294,967,296"),
                (
                    "interval",
                    f"{found.interval_low:,} to {found.interval_high:,} ({size} of all units), "
                    f"v{found.version}'s since epoch {found.acquired_epoch}",
                ),
                ("route", f"epoch {found.epoch}, active v{found.active_version}"),
                ("answered by", f"{found.front}, whose route was confirmed {found.route_age_s:.1f} s ago"),
            ]
        ),
    )


def share_of(route: Route, version: int) -> str:
    """A version's part in a route, for a list of versions."""
    weight = route.weights.get(version, 0)
    parts = [percent(weight)] if weight else []
    if route.active_version == version:
        parts.append("active")
    if route.rollback_version == version:
        parts.append("rollback")
    return ", ".join(parts) or ABSENT
