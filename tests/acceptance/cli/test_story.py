"""The life cycle of a job by the command line alone: from a CSV file to a dropped table."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.cli.conftest import Program
from tests.acceptance.orders import JOB, Orders
from tests.support.eventually import eventually
from tests.support.processes import SERVICES, ServiceProcesses
from tests.support.topics import Topics

CSV_JOB = '''\
"""How many flights did each carrier have?"""
from turnout import Key, Record, Row, Sum, aggregate


class Flight(Record):
    carrier: str
    delay: int | None


class Carrier(Row):
    carrier: Key[str]
    flights: Sum[int] = 1
    late: Sum[int] = 0


@aggregate("carriers", topic="{topic}")
def carriers(flight: Flight) -> Carrier:
    return Carrier(carrier=flight.carrier, late=(flight.delay or 0) > 15)
'''


@pytest.fixture
async def topic(kafka: Topics) -> AsyncIterator[str]:
    """A name for the program to create; deleted afterwards."""
    name = f"test-{secrets.token_hex(6)}"
    yield name
    await kafka.delete(name)


async def serving(program: Program, orders: Orders) -> None:
    """Version 1 of the orders serves."""
    await orders.produce(3_000)
    await program.run("apply", orders.code(1), "--watch")
    await program.run("cutover", JOB, "v1")


async def test_from_a_csv_file_to_a_row(program: Program, topic: str) -> None:
    bad = program.directory / "bad.jsonl"
    bad.write_text('{"n": 1}\n' * 20 + "not JSON\n")
    malformed = await program.run("produce", topic, bad, code=1)
    assert "line 21: not a JSON object" in malformed.err
    assert "nothing has been produced" in malformed.err

    data = program.directory / "flights.csv"
    data.write_text("carrier,delay,tail\n" + "UA,20,N1\nUA,,\nAA,-3,N2\n" * 100)
    made = (await program.run("produce", topic, data, "--key", "tail", "--partitions", "3", "-o", "json")).document
    assert (made["records"], made["created"], made["partitions"]) == (300, True, 3)
    assert sum(made["records_by_partition"].values()) == 300
    again = await program.run("produce", topic, data, "--key", "tail")
    assert again.out.startswith(f"Produced 300 records to {topic} at {program.environment['TURNOUT_KAFKA']} in ")
    rest = await program.run("produce", topic, data, "--from-line", "302")
    assert rest.out.startswith(f"Produced 0 records to {topic}")
    refused = await program.run("produce", topic, data, "--partitions", "5", code=4)
    assert "has 3 partitions, not 5" in refused.err
    assert "did you mean tail?" in (await program.run("produce", topic, data, "--key", "tial", code=2)).err

    job = program.directory / "carriers.py"
    job.write_text(CSV_JOB.format(topic=topic))
    checked = (await program.run("check", job, "--sample", "2", "-o", "json")).document
    assert 0 < len(checked["sample"]) <= 6
    assert all(one["failure"] is None and len(one["rows"]) == 1 for one in checked["sample"])
    lines = (await program.run("apply", job, "--watch")).out.splitlines()
    assert lines[:2] == ["carriers: created the job", "carriers: created v1"]
    assert any("at most 600 in 3 partitions" in line for line in lines)
    assert lines[-1].startswith("Caught up")
    read = (await program.run("read", "carriers", "UA", "--version", "1", "-o", "json")).document
    assert read["row"] == {"carrier": "UA", "flights": 400, "late": 200}
    assert (read["version"], read["cause"]) == (1, "PINNED")


async def test_a_failing_sample_names_the_record(program: Program, orders: Orders) -> None:
    await orders.produce(100)
    await orders.produce_value(b'{"user": 7}')
    found = (await program.run("check", orders.code(1), "--sample", "1000", "-o", "json", code=1)).document
    (failed,) = [one for one in found["sample"] if one["failure"]]
    assert (failed["topic"], len(found["sample"])) == (orders.topic, 101)
    text = (await program.run("check", orders.code(1), "--sample", "1000", code=1)).out
    assert f"{orders.topic}/{failed['partition']} offset {failed['offset']}: {failed['failure']}" in text
    missing = program.directory / "missing.py"
    missing.write_text(orders.code(1).read_text().replace(orders.topic, orders.topic + "x"))
    assert f"did you mean {orders.topic}?" in (await program.run("check", missing, "--sample", "1", code=4)).err


async def test_two_versions_side_by_side(program: Program, orders: Orders) -> None:
    await serving(program, orders)
    assert (await program.run("apply", orders.code(1))).out.startswith(f"{JOB}: unchanged: v1\n")

    # What catching up means here is what it means at a cutover, also beside a version that serves.
    assert (await program.run("run", "watch", JOB, "v1")).out.endswith("It is the active version.\n")

    mismatch = await program.run("apply", orders.code(2), "--version", "3", "-o", "json", code=7)
    assert mismatch.out == ""
    assert '"reason":"VERSION_MISMATCH"' in mismatch.err
    applied = (await program.run("apply", orders.code(2), "--version", "v2", "--no-run", "-o", "json")).document
    assert (applied["created"], applied["run"], applied["active_version"]) == (True, None, 1)
    assert [one["change"] for one in applied["column_differences"]] == ["added"]
    assert "has no run" in (await program.run("cutover", JOB, "v2", code=3)).err
    assert "at most 3,000 in 4 partitions" in (await program.run("estimate", JOB, "v2")).out

    # Held back, so that the gate refuses; then let go.
    await program.run("apply", orders.code(2), "--workers", "2", "--rate", "20", "--no-watch")
    refused = await program.run("cutover", JOB, "2", code=4)
    assert "  - catch-up" in refused.err
    assert "--override-gates catch-up" in refused.err
    assert "is paused" in (await program.run("run", "pause", JOB, "v2")).out
    assert (await program.run("run", "resume", JOB, "v2", "-o", "json")).document["rate_limit"] == 20
    assert "without a limit" in (await program.run("run", "rate", JOB, "v2", "0")).out
    watched = (await program.run("run", "watch", JOB, "v2", "-o", "json")).documents
    assert watched[-1]["state"] == "TAILING"
    lines = (await program.run("run", "watch", JOB, "v2")).out.splitlines()
    assert lines[0].startswith(f"{JOB} v2 TAILING  100.0 %")
    assert "  3,000 records" in lines[0]

    compared = (await program.run("compare", JOB, "v1", "v2", "--sample", "2", "--exit-code", code=1)).out
    assert "Columns only in v2: refunds." in compared
    assert "Exact: " in compared
    assert "cannot differ from itself" in (await program.run("compare", JOB, "v1", "v1", code=2)).err
    assert "sum to 101 %" in (await program.run("traffic", "set", JOB, "v1=90", "v2=11", code=2)).err


async def test_a_replay_waits_for_its_turn(program: Program, orders: Orders) -> None:
    await orders.produce(3_000)
    assert "1 of at most 1" not in (await program.run("capacity", "show")).out
    changed = (await program.run("capacity", "set", "--copies", "1", "--storage", "1TB", "-o", "json")).document
    assert (changed["copies_max"], changed["storage_bytes_max"], changed["read_p99_ratio_max"]) == (1, 10**12, 1.3)
    await program.run("apply", orders.code(1), "--rate", "5", "--no-watch")  # for longer than all that follows

    async def copies() -> bool:  # the queue waits for what Kafka says of the log, and lets the first one begin then
        return "copies   1 of at most 1" in (await program.run("capacity", "show")).out

    await eventually(copies)
    queued = (await program.run("apply", orders.code(2), "--priority", "3", "--no-watch")).out
    assert re.search(r"queue +1 of 1 copy runs; 1st in the queue", queued), queued
    assert queued.splitlines()[-1].startswith("The replay is queued: 1 of 1 copy runs; 1st in the queue. `turnout run")
    assert "copies   1 of at most 1, 1 queued" in (await program.run("capacity", "show")).out
    moved = (await program.run("run", "priority", JOB, "v2", "-7")).out
    assert moved.splitlines()[2] == f"{JOB} v2  QUEUED  priority -7"

    async with program.started("run", "watch", JOB, "v2") as process:
        assert process.stdout is not None
        first = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert first == f"{JOB} v2 QUEUED  1 of 1 copy runs; 1st in the queue\n"
        await program.run("run", "rate", JOB, "v1", "0")
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out.decode().splitlines()[-1].startswith("Caught up")
    assert "past its copy" in (await program.run("run", "priority", JOB, "v2", "1", code=4)).err


async def test_a_part_of_the_log(program: Program, orders: Orders) -> None:
    await orders.produce(1_000)
    ends = await orders.topics.end_offsets(orders.topic)
    until = ",".join(f"{orders.topic}/{n}={end}" for n, end in sorted(ends.items()))
    short = ",".join(f"{orders.topic}/{n}={end - 1}" for n, end in sorted(ends.items()))
    asked = ("apply", orders.code(1), "--from", "earliest", "--until", until)
    out = (await program.run(*asked, "--watch")).out
    assert out.startswith(
        f"{JOB}: created the job\n{JOB}: created v1, from the earliest record until {orders.topic}/0="
    )
    assert "only its range of the log is read" in out
    assert re.search(rf"{JOB} v1 COMPLETED  100.0 % .*  1,000 records", out), out
    assert "its range is read, and its table stays as it is. `turnout cutover" in out
    again = (await program.run(*asked, "--watch")).out
    assert again.startswith(f"{JOB}: unchanged: v1, from the earliest record until")
    assert "Its run is COMPLETED. It has read its whole range" in again
    shown = (await program.run("show", JOB, "v1", "-o", "json")).document["version"]["log_range"]
    assert [one["offset"] for one in shown["end_offsets"]] == [ends[n] for n in sorted(ends)]
    assert f"until {orders.topic}/0={ends[0]}" in (await program.run("show", JOB, "v1")).out
    assert "it has read the whole range" in (await program.run("run", "resume", JOB, "v1", code=4)).err

    other = (await program.run("apply", orders.code(1), "--until", short, "--watch")).out
    assert other.startswith(f"{JOB}: created v2, ")
    await program.run("cutover", JOB, "v1")
    never = (await program.run("run", "watch", JOB, "v2")).out
    assert f"`turnout cutover {JOB} v2` would be refused by catch-up: " in never
    assert "and that of version 1 goes further; it is 4 offsets behind now" in never
    assert f"{JOB}: created v3\n" in (await program.run("apply", orders.code(1), "--watch")).out

    gone = await program.run("apply", orders.code(1), "--from", f"{orders.topic}/0={ends[0] + 1}", code=4)
    assert "Error: The log does not hold" in gone.err
    assert f"the log begins at 0 and ends at {ends[0]:,}" in gone.err
    assert "Nothing was stored." in gone.err
    assert "Apply the file with another --from or --until." in gone.err
    audited = await program.run("audit", orders.code(2), "--from", f"{orders.topic}/0={ends[0] + 1}", code=4)
    assert "Error: The log does not hold" in audited.err
    newest = (await program.run("show", JOB, "-o", "json")).document["job"]["newest_version"]
    assert newest == 3, "what is refused takes no number"
    assert "has no zone" in (await program.run("apply", orders.code(1), "--from", "2026-03-01", code=2)).err
    assert "does not read: it reads" in (await program.run("apply", orders.code(1), "--from", "x/0=1", code=2)).err


@pytest.mark.long
async def test_readers_move_and_the_old_version_goes(program: Program, orders: Orders) -> None:
    await serving(program, orders)
    await program.run("apply", orders.code(2), "--watch")
    typos = (await program.run("cutover", f"{JOB}=v9", "order-total=v1", code=3)).err
    assert f"There is no job 'order-total'; did you mean {JOB}?" in typos
    assert f"There is no version v9 of {JOB}. Its versions: v1, v2." in typos
    assert f"did you mean {JOB}?" in (await program.run("rollback", JOB, "order-total", code=3)).err
    await program.run("traffic", "set", JOB, "v1=87.5", "v2=12.5", "--reason", "a look")
    assert "v1 87.5 %, v2 12.5 %" in (await program.run("traffic", "show", JOB)).out
    unit = ("--unit", "user-17")
    explained = (await program.run("explain", JOB, *unit, "-o", "json")).document
    read = (await program.run("read", JOB, "--key", "user=user-1", *unit, "-o", "json")).document
    assert read["version"] == explained["version"]
    assert read["row"] == orders.table(read["version"])["user-1"]
    assert "There is no row with that key." in (await program.run("read", JOB, "nobody", code=3)).out
    rows = (
        await program.run("read", JOB, "--scan", "--order-by", "cents:desc", "--limit", "5", "-o", "json")
    ).documents
    largest = sorted(orders.table(1).values(), key=lambda row: -int(str(row["cents"])))[:5]
    assert [one["row"]["cents"] for one in rows] == [row["cents"] for row in largest]

    await program.run("cutover", JOB, "v2")
    assert "Nothing to change" in (await program.run("cutover", JOB, "v2")).out
    assert "rolled back to v1 87.5 %, v2 12.5 %" in (await program.run("rollback", JOB, "--reason", "odd")).out
    await program.run("cutover", JOB, "v2")
    assert "--forgo-rollback" in (await program.run("retire", JOB, "v1", code=4)).err
    await program.run("retire", JOB, "v1", "--retain-for", "1h", "--forgo-rollback")

    async def state(wanted: str) -> bool:
        shown = (await program.run("show", JOB, "v1", "-o", "json")).document
        return bool(shown["version"]["state"] == wanted)

    await eventually(lambda: state("RETIRED"), 60, every_s=0.2)
    for by_number in (("--key", "user=user-1"), ("--scan", "--limit", "1")):
        retired = await program.run("read", JOB, *by_number, "--version", "v1")
        assert f"{JOB} v1 is RETIRED: no reader is led to it" in retired.err
        assert "can be read by its number until 2" in retired.err
    pinned = await program.run("read", JOB, "--key", "user=user-1", "--version", "v1", "-o", "json")
    assert pinned.document["version_state"] == "RETIRED"
    assert "`turnout unretire` takes it back" in (await program.run("show", JOB)).out
    assert f"`turnout unretire {JOB} v1`" in (await program.run("run", "watch", JOB, "v1", code=1)).err
    assert "is taken back" in (await program.run("unretire", JOB, "v1")).out
    await eventually(lambda: state("REGISTERED"), 60, every_s=0.2)
    await program.run("retire", JOB, "v1", "--retain-for", "0s", "--forgo-rollback")
    await eventually(lambda: state("DROPPED"), 90, every_s=0.2)
    assert f"{JOB} v1 is already dropped." in (await program.run("retire", JOB, "v1")).out
    assert f"{JOB} v2 is not being retired." in (await program.run("unretire", JOB, "v2")).out
    assert "its table is gone" in (await program.run("run", "watch", JOB, "v1", code=1)).err
    history = (await program.run("show", JOB, "--history", "-o", "json")).document["route_changes"]
    assert [one["command"] for one in history] == ["CUT_OVER", "ROLL_BACK", "CUT_OVER", "SET_TRAFFIC", "CUT_OVER"]
    assert [one["reason"] for one in history] == ["", "odd", "", "a look", ""]
    assert f"{JOB}" in (await program.run("show")).out


async def test_a_run_that_cannot_go_on_says_so_everywhere(program: Program, orders: Orders) -> None:
    missing = program.directory / "missing.py"
    missing.write_text(orders.code(1).read_text().replace(orders.topic, f"{orders.topic}-missing"))
    refused = await program.run("apply", missing, "--watch", code=4)
    assert f"{JOB}: created v1; its replay did not start: There is no topic" in refused.err
    assert f"repeat `turnout apply {missing}`" in refused.err
    assert f"{JOB}: v1 is registered; its replay did not start" in (await program.run("apply", missing, code=4)).err

    await orders.produce(50)
    await orders.produce_value(b"not json \x1b[31m")
    failed = await program.run("apply", orders.code(2), "--watch", code=1)
    again = await program.run("apply", orders.code(2), "--watch", code=1)
    for said in (failed.err, again.out, (await program.run("run", "watch", JOB, "v2", code=1)).err):
        assert "To resume it would fail again: mend the job" in said
    assert (await program.run("apply", orders.code(2), "--no-watch")).out == again.out
    cutover = await program.run("cutover", JOB, "v2", code=4)
    assert "Next:  To resume it would fail again: mend the job" in cutover.err
    assert "behind" not in cutover.err
    assert cutover.err.count("has FAILED (MALFORMED_RECORD)") == 1
    assert "It is going to fail again: mend the job" in (await program.run("run", "resume", JOB, "v2")).out


async def test_what_postgresql_refuses_is_said_before_a_version_is_stored(program: Program, orders: Orders) -> None:
    await orders.produce(50)
    good = (await program.run("check", orders.code(1))).out
    assert "PostgreSQL takes the table, its derived columns and its indexes." in good
    wrong = program.directory / "wrong.py"
    text = orders.code(1).read_text()
    wrong.write_text(text.replace('on_malformed="fail")', 'on_malformed="fail", derived={"mean": "cents / nothing"})'))
    checked = await program.run("check", wrong, code=1)
    assert "PostgreSQL refuses the table of" in checked.out
    assert "Mend the file and check it again." in checked.out
    assert "TABLE_REFUSED" not in checked.out
    assert "register a new version" not in checked.out
    assert 'column "nothing" does not exist' in checked.out
    refused = await program.run("apply", wrong, code=4)
    assert 'column "nothing" does not exist' in refused.err
    assert "Nothing was stored.\nNext:  Mend the file and apply it again." in refused.err
    assert "There is no job yet." in (await program.run("show")).out
    assert f"{JOB}: created v1" in (await program.run("apply", orders.code(1), "--watch")).out


async def test_data_cannot_command_a_terminal(program: Program, orders: Orders) -> None:
    await orders.produce_value(b'{"user": "\\u001b[31mred", "cents": 5}')
    await program.run("apply", orders.code(1), "--watch")
    code, drawn = await program.in_terminal("read", JOB, "--scan", "--version", "v1")
    assert code == 0
    assert "\x1b[31mred" not in drawn
    assert "\\x1b[31mred" in drawn


async def test_each_service_at_its_own_address(
    separate_services: ServiceProcesses, orders: Orders, tmp_path: Path
) -> None:
    program = Program(tmp_path, {"TURNOUT_TARGET": "127.0.0.1:1"})
    named = [part for name in SERVICES for part in ("--target", f"{name}={separate_services.target(name)}")]
    await orders.produce(200)
    await program.run(*named, "apply", orders.code(1), "--watch", "--actor", "ada")
    found = (
        await program.run("read", JOB, "--scan", "--version", "1", "--limit", "1000", "-o", "json", *named)
    ).documents
    assert {one["row"]["user"]: one["row"] for one in found} == orders.table(1)
