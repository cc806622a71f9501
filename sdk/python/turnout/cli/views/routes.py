"""Routes, their changes, and gates."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, table
from turnout.cli.quantities import ABSENT, moment, percent, plural, span
from turnout.cli.views.phrases import lines, state, weights_text
from turnout.results import Command, Explanation, Gate, Route, RouteChange, View, ViewState

_COMMANDS = {Command.SET_TRAFFIC: "traffic", Command.CUT_OVER: "cutover", Command.ROLL_BACK: "rollback"}


def route_view(route: Route) -> RenderableType:
    """Shares, what a rollback would return to, and where the SQL view is."""
    pairs: list[tuple[str, str | Text]] = [
        ("route", f"{route.job}, epoch {route.epoch}, since {moment(route.update_time)}"),
        ("active", f"v{route.active_version}"),
        ("traffic", weights_text(route.weights)),
        ("rollback", rollback_text(route)),
        ("SQL view", view_text(route.view)),
    ]
    return facts(pairs)


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
    else:
        done = f"{route.job} is rolled back to {weights_text(route.weights)}"
    return f"{done} (epoch {route.epoch}){took}."


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
