"""An experiment by the command line alone, and how it is watched."""

from __future__ import annotations

import asyncio
import signal

from tests.acceptance.cli.conftest import Program
from tests.acceptance.cli.test_story import serving
from tests.acceptance.orders import JOB, Orders


async def test_it_is_watched_until_somebody_stops_it(program: Program, orders: Orders) -> None:
    await serving(program, orders)
    await program.run("apply", orders.code(2), "--watch")
    begun = await program.run("experiment", "create", JOB, "totals", "v1=90", "v2=10", "--units", "key")
    assert "has started" in begun.out
    async with program.started("experiment", "watch", JOB, "totals") as process:
        assert process.stdout is not None
        assert b"v2 10 %" in await asyncio.wait_for(process.stdout.readline(), 60)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert f"the experiment goes on. `turnout experiment stop {JOB} totals` ends it." in err.decode()

    async with program.started("experiment", "watch", JOB, "totals", "-o", "json") as process:
        assert process.stdout is not None
        assert b'"RUNNING"' in await asyncio.wait_for(process.stdout.readline(), 60)
        stopped = await program.run("experiment", "stop", JOB, "totals")
        assert "v1 is the active version now, with all the units (epoch 3)." in stopped.out
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert b'"STOPPED"' in out.splitlines()[-1]
    code, drawn = await program.in_terminal("experiment", "watch", JOB, "totals")
    assert code == 0
    assert f"totals on {JOB} is over" in drawn
    again = await program.run("experiment", "stop", JOB, "totals")
    assert f"Nothing to change: totals on {JOB} is over (STOPPED): " in again.out
