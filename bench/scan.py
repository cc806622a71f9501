"""`python -m bench scan`: a scan of 10,000,000 rows, and what it takes of memory on both sides.

A table of generated rows is read from the first to the last by column, as an Arrow stream, and by the client, row by
row. The resident memory of the front, which is a process of its own, and of this process is looked at all the time.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import grpc
import uvloop

from bench.arguments import at_least_one
from bench.goals import at_most, status
from bench.memory import resident_mib
from bench.reads.world import Table, live_table
from bench.stack import Front, Stack, front, running
from bench.workload import say
from turnout.client import Client
from turnout.query.v1 import query_pb2 as pb
from turnout.query.v1 import query_pb2_grpc
from turnout.tasks import beside

GOALS: Final = {"front_growth_mib": at_most(64), "client_growth_mib": at_most(64)}
_LOOK_S: Final = 0.05
_SCAN_S: Final = 120.0
_FILL_S: Final = 1_800.0
_FIRST_ROWS: Final = 1_000

_HIDDEN: Final = r"""
select string_agg(quote_ident(attname), ', ') from pg_attribute
where attrelid = ('serving.' || $1)::regclass and attnum > 0 and not attisdropped and attname like '\_%'
"""
_FILL: Final = """
insert into serving.{table} (order_id, user_id, amount_cents, country, ts, {hidden})
select n, 'user-' || n % 200000, n % 100000, 'DE', 1700000000000 + n, h.*
from (select {hidden} from serving.{table} limit 1) h, generate_series($1::bigint, $2::bigint - 1) n
"""


@dataclass
class Grown:
    """By how much the resident memory of two processes grew at the most, in MiB."""

    front_mib: float = 0.0
    client_mib: float = 0.0


@asynccontextmanager
async def _watched(front_pid: int, grown: Grown) -> AsyncIterator[None]:
    """Looks at the memory meanwhile."""
    before = resident_mib(front_pid), resident_mib("self")

    async def look() -> None:
        while True:
            grown.front_mib = max(grown.front_mib, resident_mib(front_pid) - before[0])
            grown.client_mib = max(grown.client_mib, resident_mib("self") - before[1])
            await asyncio.sleep(_LOOK_S)

    async with beside(look()):
        yield


async def _stream(target: str, table: Table, rows: int, form: pb.ScanRequest.Format.ValueType) -> int:
    """Scan by the stub alone; the rows that came, of an Arrow stream the bytes."""
    async with grpc.aio.insecure_channel(target) as channel:
        query = cast(Any, query_pb2_grpc.QueryStub(channel))
        request = pb.ScanRequest(job=f"jobs/{table.job}", limit=rows, format=form)
        count = 0
        async for message in query.Scan(request, timeout=_SCAN_S):
            count += len(message.columns[0].int64_values) // 8 if message.columns else len(message.arrow)
        return count


async def _client(target: str, table: Table, rows: int) -> int:
    async with Client(target, actor="bench") as client:
        count = 0
        async for read in client.scan(table.job, limit=rows, timeout_s=_SCAN_S):
            assert read.row is not None
            count += 1
        return count


async def _scans(served: Front, table: Table, rows: int) -> dict[str, Any]:
    grown, rates = Grown(), {}
    scans: dict[str, Callable[[int], Awaitable[int]]] = {
        "columns": lambda count: _stream(served.target, table, count, pb.ScanRequest.COLUMNS),
        "arrow": lambda count: _stream(served.target, table, count, pb.ScanRequest.ARROW),
        "client": lambda count: _client(served.target, table, count),
    }
    for name, scan in scans.items():
        await scan(min(rows, 100_000))  # what is loaded once is not the scan's
        async with _watched(served.pid, grown):
            began_s = time.monotonic()
            came = await scan(rows)
            rates[f"{name}_rows_per_s"] = round(rows / (time.monotonic() - began_s))
        if name != "arrow" and came != rows:
            raise RuntimeError(f"{came:,} rows came by {name}, and the table has {rows:,}")
        say(f"{name}: {rates[f'{name}_rows_per_s']:,} rows/s, front {grown.front_mib:+.1f} MiB so far")
    return {
        "rows": rows,
        **rates,
        "front_growth_mib": round(grown.front_mib, 1),
        "client_growth_mib": round(grown.client_mib, 1),
    }


async def _filled(stack: Stack, rows: int) -> Table:
    table = await live_table(stack, 4, min(rows, _FIRST_ROWS))
    say(f"filling it with {rows:,} rows")
    hidden = await stack.look.fetchval(_HIDDEN, table.place.table)
    fill = _FILL.format(table=table.place.table, hidden=hidden)
    await stack.look.execute(fill, table.rows, rows, timeout=_FILL_S)
    await stack.look.execute(f"vacuum analyze serving.{table.place.table}", timeout=_FILL_S)
    return table


async def _measure(given: argparse.Namespace) -> dict[str, Any]:
    async with running(given.data_dir) as stack, front(stack) as served:
        return await _scans(served, await _filled(stack, given.rows), given.rows)


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when neither side's memory grew by more than a page is worth."""
    parser = argparse.ArgumentParser(prog="python -m bench scan", description=__doc__)
    parser.add_argument("--rows", type=at_least_one, default=10_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--data-dir", type=Path, help="keep everything here (default: a temporary directory)")
    answer = uvloop.run(_measure(parser.parse_args(argv)))
    code = status(answer, GOALS)
    print(json.dumps(answer), flush=True)
    return code
