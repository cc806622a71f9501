"""How the program behaves: what it says of mistakes, in a terminal and outside of one, and at Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.cli.conftest import PROGRAM, Program
from tests.acceptance.cli.test_story import serving
from tests.acceptance.orders import JOB, Orders
from tests.support.eventually import eventually
from tests.support.ports import own_port
from tests.support.topics import Topics


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show"], "`turnout apply FILE` registers one"),
        (["show", "-o", "json"], "[]"),
    ],
)
async def test_nothing_there_yet(program: Program, arguments: list[str], said: str) -> None:
    assert said in (await program.run(*arguments)).out


async def test_what_is_not_there_is_named_with_what_is(program: Program, orders: Orders) -> None:
    await orders.produce(10)
    await program.run("apply", orders.code(1), "--no-run")
    typo = JOB.replace("order", "oder")
    for arguments in (
        ["show", typo],
        ["cutover", typo, "v1"],
        ["read", typo, "x"],
        ["run", "watch", typo, "v1"],
        ["estimate", typo, "v1"],
        ["traffic", "show", typo],
        ["retire", typo, "v1"],
        ["rollback", typo],
    ):
        err = (await program.run(*arguments, code=3)).err
        assert f"There is no job '{typo}'; did you mean {JOB}?" in err, arguments
    for arguments in (
        ["show", JOB, "v7"],
        ["run", "pause", JOB, "v7"],
        ["cutover", JOB, "v7"],
        ["traffic", "set", JOB, "v1=90", "v7=10"],
        ["compare", JOB, "v1", "v7"],
    ):
        err = (await program.run(*arguments, code=3)).err
        assert f"There is no version v7 of {JOB}." in err
        assert "Its versions: v1." in err
    for arguments in (["read", JOB, "x"], ["explain", JOB, "--unit", "u"], ["traffic", "show", JOB]):
        assert f"`turnout cutover {JOB} vN`" in (await program.run(*arguments, code=3)).err
    assert "`turnout apply FILE`" in (await program.run("run", "watch", JOB, "v1", code=3)).err
    error = json.loads((await program.run("show", typo, "-o", "json", code=3)).err)["error"]
    assert (error["class"], error["reason"], error["exit_code"]) == ("NOT_FOUND", "JOB_NOT_FOUND", 3)


async def test_a_key_has_the_columns_and_types_of_the_table(program: Program, orders: Orders) -> None:
    await orders.produce(10)
    await program.run("apply", orders.code(1), "--no-run")
    read = ["read", JOB, "--version", "v1"]
    assert "has 1 column (user), and 2 values were given" in (await program.run(*read, "a", "b", code=2)).err
    assert "did you mean user?" in (await program.run(*read, "--key", "usr=a", code=2)).err


async def test_a_terminal_gets_a_picture_and_colours_unless_it_asks_not_to(program: Program, orders: Orders) -> None:
    await orders.produce(500)
    code, drawn = await program.in_terminal("apply", orders.code(1))
    assert code == 0
    assert "\x1b[" in drawn
    assert "partition" in drawn
    assert "Caught up" in drawn
    code, drawn = await program.in_terminal("apply", orders.code(2), "--no-watch")
    assert (code, "Caught up" in drawn) == (0, False)
    code, drawn = await program.in_terminal("show", JOB, environment={"NO_COLOR": "1"})
    assert code == 0
    assert "\x1b[3" not in drawn


async def test_ctrl_c_ends_the_watching_and_not_the_run(program: Program, orders: Orders) -> None:
    await serving(program, orders)
    async with program.started("run", "watch", JOB, "v1", "--follow") as process:
        assert process.stdout is not None
        assert b"TAILING" in await asyncio.wait_for(process.stdout.readline(), 30)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert f"No longer watching; the run of {JOB} v1 goes on." in err.decode()
    assert "Traceback" not in err.decode()
    run = (await program.run("show", JOB, "v1", "-o", "json")).document["run"]
    assert run["state"] == "TAILING"


async def test_a_watched_run_that_is_stopped_ends_the_watching(program: Program, orders: Orders) -> None:
    await serving(program, orders)
    assert "its table stays" in (await program.run("run", "stop", JOB, "v1")).out
    watched = await program.run("run", "watch", JOB, "v1", code=1)
    assert f"`turnout run resume {JOB} v1`" in watched.err


async def test_dev_runs_until_ctrl_c_and_is_found_from_below(postgres: str, kafka: Topics, tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    program = Program(below, {"TURNOUT_POSTGRES": postgres})
    for name in ("TURNOUT_TARGET", "TURNOUT_KAFKA"):
        program.environment.pop(name, None)
    description = tmp_path / ".turnout" / "dev.json"
    started = await asyncio.create_subprocess_exec(
        "turnout",
        "dev",
        "--port",
        str(own_port()),
        "--kafka",
        kafka.bootstrap,
        cwd=tmp_path,
        env=program.environment | {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:

        async def ready() -> bool:
            assert started.returncode is None
            return description.exists()

        await eventually(ready, 60)
        assert "There is no job yet." in (await program.run("show")).out
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does
        out, _ = await asyncio.wait_for(started.communicate(), 60)
        assert started.returncode == 0, out.decode()
        assert not description.exists()
    finally:
        if started.returncode is None:
            os.killpg(started.pid, signal.SIGKILL)
            await started.wait()
    assert f"The stack of {tmp_path}, " in (await program.run("show", code=6)).err
    port = own_port()
    elsewhere = " ".join((await program.run("show", "--target", f"127.0.0.1:{port}", code=6)).err.split())
    assert f"There is no Turnout at 127.0.0.1:{port}; `turnout dev --port {port}` starts one there." in elsewhere
    assert "If another address was meant, name it: --target HOST:PORT" in elsewhere
