"""Rollouts by the command line alone: one that goes all the way, one that comes back, and what is said of mistakes."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from tests.acceptance.cli.conftest import Program
from tests.acceptance.cli.test_story import serving
from tests.acceptance.orders import JOB, Orders
from tests.support.eventually import eventually
from turnout.client import Client

PLAN = """
guardrails: {units: key, window: 1s}
steps:
  - replay
  - compare
  - traffic: 20 %
    for: 1s
  - approve
  - traffic: 100 %
  - soak: 1s
"""


async def shown(program: Program) -> dict[str, Any]:
    document: dict[str, Any] = (await program.run("rollout", "show", JOB, "-o", "json")).document["rollout"]
    return document


async def comes_to(program: Program, state: str, step: int) -> dict[str, Any]:
    """The newest rollout, once it is there."""

    async def there() -> dict[str, Any]:
        found = await shown(program)
        assert (found["state"], found["step"]) == (state, step), str(found)
        return found

    return await eventually(there, 120)


async def has_readers(program: Program, orders: Orders) -> None:
    """Every row is read, once the candidate has its share: harm could show."""

    async def has_its_share() -> bool:
        return bool((await shown(program))["weight"] == 2_000)

    await eventually(has_its_share, 120)
    async with Client(program.environment["TURNOUT_TARGET"]) as client:
        for user in orders.table(1):
            await client.get(JOB, {"user": user})


def plan_file(program: Program, text: str = PLAN) -> str:
    file = program.directory / "plan.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.long
async def test_all_the_way(program: Program, orders: Orders) -> None:
    await serving(program, orders)
    await program.run("apply", orders.code(2), "--no-run")
    start = ["rollout", "start", JOB, "--plan", plan_file(program), "--expect", "cents", "--may-differ", "largest"]
    would = await program.run(*start, "--dry-run", "--units-per-day", "1000", "--risk", "1")
    assert f"A rollout of {JOB} from v1 to v2 would take" in would.out
    assert "it ends before harm would be found" in would.out
    assert "Expected are 1,000 units a day (`--units-per-day`), 1 % of them erring (`--risk`)." in would.out
    assert "There is no rollout yet." in (await program.run("rollout", "list", JOB)).out

    begun = await program.run(*start, "--reason", "refunds count")
    assert f"`turnout rollout watch {JOB}`" in begun.out
    assert begun.err == ""
    async with program.started("rollout", "watch", JOB) as watching:
        await has_readers(program, orders)
        at = await comes_to(program, "RUNNING", 4)
        assert (at["rollout"], at["control"], at["candidate"], at["weight"]) == ("v2", 1, 2, 2_000)
        assert "a person" in at["waiting_for"]
        seen = (await program.run("rollout", "show", JOB)).out
        assert "next" in seen
        assert "traffic 100 %" in seen
        assert "v1 control" in seen  # the arms
        refused = await program.run("traffic", "set", JOB, "v1=50", "v2=50", code=4)
        assert "owns the route" in refused.err
        past = (await program.run("rollout", "promote", JOB, "--reason", "looks right")).out
        assert "Step 4, approve, is approved; " in past
        assert "goes on" in past
        out, _ = await asyncio.wait_for(watching.communicate(), 120)
    assert watching.returncode == 0
    lines = out.decode().splitlines()
    assert lines[-1].startswith(f"The rollout v2 of {JOB} is through after ")
    assert any("step 3 of 6, traffic 20 %" in line for line in lines)
    assert (await program.run("traffic", "show", JOB, "-o", "json")).document["active_version"] == 2

    told = (await program.run("decisions", "list", JOB, "v2", "--rollout", "-o", "json")).document
    assert [one["reason"] for one in told if one["action"] == "PROMOTE"] == ["looks right"]
    assert told[0]["state"] == "SUCCEEDED"
    replayed = (await program.run("decisions", "replay", JOB, "v2", "--rollout")).out
    assert f"{len(told)} decisions decided again; all came out the same." in replayed
    assert '"' in (await program.run("decisions", "show", JOB, "v2", "1", "--rollout")).out
    assert "SUCCEEDED" in (await program.run("rollout", "list")).out
    # What is over stays as it is.
    kept = (await program.run("rollout", "abort", JOB)).out
    assert f"Nothing to change: v2 of {JOB} is over (SUCCEEDED): " in kept


@pytest.mark.long
async def test_a_table_that_differs_comes_back_and_one_that_nobody_judged_waits(
    program: Program, orders: Orders
) -> None:
    await serving(program, orders)
    await program.run("apply", orders.code(2), "--no-run")
    start = ["rollout", "start", JOB, "--plan", plan_file(program), "--version", "v2"]
    await program.run(*start, "--same")
    watched = await program.run("rollout", "watch", JOB, code=1)
    assert f"The rollout v2 of {JOB} took v2 back" in watched.out
    assert "cents" in watched.out

    begun = await program.run(*start, "-o", "json")
    assert begun.document["rollout"] == "v2-2"
    assert f"`turnout rollout abort {JOB}`" in (await program.run(*start, code=5)).err
    paused = await comes_to(program, "PAUSED", 2)
    assert paused["hold"] == "INCONCLUSIVE"
    assert f"`turnout comparisons {JOB}` shows what differs." in (await program.run("rollout", "show", JOB)).out
    assert "is paused." in (await program.run("rollout", "pause", JOB)).out
    # Said of the step that it was at, whatever the rollout does meanwhile.
    assert "not yet at step 4" in (await program.run("rollout", "promote", JOB, "--step", "4", code=4)).err
    await program.run("rollout", "promote", JOB, "--step", "2")
    await has_readers(program, orders)
    await comes_to(program, "RUNNING", 4)
    assert "is paused." in (await program.run("rollout", "pause", JOB, "--reason", "it is Friday")).out
    assert (await shown(program))["hold"] == "PERSON"
    assert "goes on" in (await program.run("rollout", "resume", JOB)).out
    await program.run("rollout", "abort", JOB, "v2-2", "--reason", "enough")
    watched = await program.run("rollout", "watch", JOB, "v2-2", "-o", "json", code=1)
    last = watched.documents[-1]["rollout"]
    assert (last["state"], last["weight"]) == ("ABORTED", 0)
    assert "enough" in last["sentence"]
    states = [one["state"] for one in (await program.run("rollout", "list", JOB, "-o", "json")).document]
    assert states == ["ABORTED", "ROLLED_BACK"]
    assert "v1 100 %" in (await program.run("traffic", "show", JOB)).out


async def test_what_cannot_be_rolled_out_is_said_with_what_to_do(program: Program, orders: Orders) -> None:
    typo = JOB.replace("order", "oder")
    await orders.produce(10)
    await program.run("apply", orders.code(1), "--no-run")
    assert f"did you mean {JOB}?" in (await program.run("rollout", "start", typo, code=3)).err
    assert f"did you mean {JOB}?" in (await program.run("rollout", "show", typo, code=3)).err
    for verb in ("show", "watch", "pause", "resume", "promote", "abort"):
        assert f"`turnout rollout start {JOB}` begins one." in (await program.run("rollout", verb, JOB, code=3)).err
    # A first version is cut over to.
    assert f"`turnout cutover {JOB}" in (await program.run("rollout", "start", JOB, code=3)).err
    await program.run("apply", orders.code(1), "--watch")
    await program.run("cutover", JOB, "v1")
    assert "v1 is active already" in (await program.run("rollout", "start", JOB, code=2)).err
    assert "There is no version v7" in (await program.run("rollout", "start", JOB, "--version", "v7", code=3)).err
    await program.run("apply", orders.code(2), "--no-run")
    halfway = plan_file(program, "steps: [{traffic: 5 %}]")
    refused = (await program.run("rollout", "start", JOB, "--plan", halfway, code=2)).err
    assert "line 1 (step 1): Step 1, traffic 5 %: it would be over at once." in refused
    assert "The plan must end with everybody on the candidate" in refused
    assert "not the id" in (await program.run("rollout", "show", JOB, "a/b", code=2)).err
    assert "v9" in (await program.run("rollout", "show", JOB, "v9", code=3)).err


async def test_ctrl_c_ends_the_watching_and_not_the_rollout(program: Program, orders: Orders) -> None:
    await serving(program, orders)
    await program.run("apply", orders.code(2), "--no-run")
    lasting = plan_file(program, "steps: [replay, {traffic: 10 %, for: 1d}, {traffic: 100 %}]")
    await program.run("rollout", "start", JOB, "--plan", lasting)
    await comes_to(program, "RUNNING", 2)
    async with program.started("rollout", "watch", JOB) as process:
        assert process.stdout is not None
        assert b"RUNNING" in await asyncio.wait_for(process.stdout.readline(), 60)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert "No longer watching; the rollout goes on." in err.decode()
    assert "Traceback" not in err.decode()
    assert (await shown(program))["state"] == "RUNNING"
    await program.run("rollout", "abort", JOB)
    code, drawn = await program.in_terminal("rollout", "watch", JOB)
    assert code == 1
    assert "was aborted after " in drawn
    assert "\x1b[" in drawn
