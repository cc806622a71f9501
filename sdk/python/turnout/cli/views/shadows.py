"""What a shadow shows."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts
from turnout.cli.quantities import moment, percent, plural, share
from turnout.shadow import ShadowReport, ShadowVerdict

_ONCE_A_KEY = (
    "A key is sampled once by each front in an epoch of the route; its further reads are counted nowhere here."
)


def shadow_view(report: ShadowReport) -> RenderableType:
    """The counts, and the verdict in a sentence."""
    counts = report.counts
    differ = "differs" if counts.active_differs == 1 else "differ"
    sampled = "stopped" if report.share is None else f"{percent(report.share)} of the reads"
    pairs: list[tuple[str, str | Text]] = [
        ("shadow", f"v{report.version} beside v{report.active_version} of {report.job}, {sampled}"),
        ("compared", f"{plural(counts.compared, 'read')}{_compared_share(report)}"),
        ("equal", f"{counts.equal:,}"),
        ("differ", f"{counts.compared - counts.equal:,}{_by_column(report)}"),
        ("noise", f"{plural(counts.active_differs, 'read')} of v{report.active_version} {differ} from a second one"),
    ]
    if counts.left_out:
        reasons = sorted(counts.left_out.items(), key=lambda one: (-one[1], one[0]))
        pairs.append(("left out", ", ".join(f"{reason} {reads:,}" for reason, reads in reasons)))
    if report.update_time is not None:
        pairs.append(("as of", moment(report.update_time)))
    style = "yellow" if report.verdict is ShadowVerdict.DIFFERS else ""
    return Group(facts(pairs), Text(report.sentence, style=style), Text(_ONCE_A_KEY))


def _compared_share(report: ShadowReport) -> str:
    return "" if report.compared_share is None else f", {share(report.compared_share)} of those sampled"


def _by_column(report: ShadowReport) -> str:
    counts = report.counts
    parts = [f"{name} {rows:,}" for name, rows in sorted(counts.columns.items(), key=lambda one: (-one[1], one[0]))]
    if counts.only_active:
        parts.append(f"no row in v{report.version} {counts.only_active:,}")
    if counts.only_candidate:
        parts.append(f"no row in v{report.active_version} {counts.only_candidate:,}")
    return f": {', '.join(parts)}" if parts else ""
