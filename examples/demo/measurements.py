"""What the demo measured: the table at its end and `.turnout/demo.json`."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

ADOPTION_MS = 200  # of a cutover, where the machine has nothing else to do


@dataclass
class Measurements:
    """Filled in by the story, step by step. Times are as named; None = the story did not come that far."""

    flights: int | None = None
    replay_records_per_s: int | None = None
    catch_up_s: float | None = None
    cutover_adoption_ms: float | None = None
    reads: int | None = None
    reads_failed: int | None = None
    read_slowest_ms: float | None = None
    reads_by_version: dict[str, int] = field(default_factory=dict)
    rows_changed: int | None = None
    table_v1_dropped: bool | None = None
    tables_match_reference: bool | None = None

    def write(self, path: Path) -> None:
        """Write as JSON, replacing what an earlier run left."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def adopted_in(self, adoption_ms: float) -> None:
        """Keep the slowest adoption of all cutovers."""
        self.cutover_adoption_ms = round(max(adoption_ms, self.cutover_adoption_ms or 0.0), 1)

    def table(self) -> dict[str, str]:
        """The figures with their units, for people."""
        return {
            "flights in the log": f"{self.flights:,}",
            "replay of version 2, without limit": f"{self.replay_records_per_s:,} records/s",
            "version 2 caught up after": f"{self.catch_up_s:.1f} s, its time under the rate limit included",
            "slowest adoption of a cutover": f"{self.cutover_adoption_ms} ms",
            "reads while all this happened": f"{self.reads:,} ("
            + ", ".join(f"v{version}: {count:,}" for version, count in self.reads_by_version.items())
            + ")",
            "reads that failed": f"{self.reads_failed}; the slowest took {self.read_slowest_ms} ms",
            "rows that version 2 changes": f"{self.rows_changed} of 185",
            "table of version 1 dropped": _yes(self.table_v1_dropped),
            "both tables equal the reference": _yes(self.tables_match_reference),
        }

    def unmet(self) -> list[str]:
        """What the story promises and this run did not keep."""
        promises = {
            "not all flights are in the log": self.flights == 336_776,
            "reads failed": self.reads_failed == 0,
            "no cutover was adopted by every front": self.cutover_adoption_ms is not None,
            "the comparison did not find 143 changed rows": self.rows_changed == 143,
            "the table of version 1 was not dropped": bool(self.table_v1_dropped),
            "a table differs from the reference": bool(self.tables_match_reference),
        }
        return [text for text, kept in promises.items() if not kept]

    def slow(self) -> str:
        """What took longer than it does where the machine has nothing else to do; empty = nothing did."""
        took_ms = self.cutover_adoption_ms or 0.0
        if took_ms <= ADOPTION_MS:
            return ""
        return f"a cutover was adopted after {took_ms} ms, and at the latest after {ADOPTION_MS} there"


def _yes(value: bool | None) -> str:
    return "yes" if value else "no"
