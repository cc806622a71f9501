"""The cutover benchmark, short: a few cutovers, some of them while a front or a switcher is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cutover.command import Plan, measure
from bench.faults.product import Addresses
from tests.support.topics import Topics


@pytest.mark.long
async def test_no_read_fails_or_is_wrong_through_cutovers_and_kills(
    postgres: str, kafka: Topics, tmp_path: Path
) -> None:
    plan = Plan(changes=6, kill_every=3, full_s=1.0, quiet_s=0.5)
    result = await measure(Addresses(postgres, kafka.bootstrap), tmp_path, plan)
    assert (result["reads_failed"], result["reads_wrong"]) == (0, 0)
    assert result["cutovers"] >= 12
    assert result["reads"] > 0
    assert result["kills"]
    assert result["changes_checked_with_kills"]
