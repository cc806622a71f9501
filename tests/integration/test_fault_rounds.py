"""The fault harness, short: seeded rounds against real processes, and at the end of each the reference tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.faults.command import play
from bench.faults.plan import Kind

SEED, ROUNDS = 271, 2


@pytest.mark.long
async def test_seeded_rounds_of_faults_end_with_the_reference_tables(tmp_path: Path) -> None:
    totals = await play(SEED, range(ROUNDS), tmp_path)
    assert totals.differences == 0
    assert totals.rounds == ROUNDS
    assert totals.records > 60_000
    assert totals.set_aside > 0
    assert totals.counts.keys() >= {Kind.WORKER_KILLED, Kind.DEADLY}
