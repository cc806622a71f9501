"""`make demo` tells its story to the end and keeps every promise that it makes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_story_is_told_to_its_end(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.demo",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    told = output.decode()
    assert process.returncode == 0, told
    measured = json.loads((tmp_path / ".turnout" / "demo.json").read_text(encoding="utf-8"))
    assert measured["flights"] == 336_776
    assert measured["rows_changed"] == 143
    assert measured["reads_failed"] == 0
    assert measured["reads"] == sum(measured["reads_by_version"].values())
    assert measured["table_v1_dropped"]
    assert measured["tables_match_reference"]
    assert "US Airways falls from place 3 to 6" in told
    assert "Traceback" not in told
    logs = "".join(log.read_text(errors="replace") for log in (tmp_path / ".turnout" / "demo" / "logs").glob("*.log"))
    assert "Traceback" not in logs
