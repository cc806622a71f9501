"""`python -m bench.reads.bare`: a gRPC server that answers Get for one table, and does nothing else.

It knows its table by heart: no route, no version, no deadline, no trace, no count of reads in flight. The answer is the
front's own message, made in the plain way. Its PostgreSQL is in TURNOUT_POSTGRES.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

import grpc
import uvloop

from bench.reads.by_hand import COLUMNS, Place, open_pool, read_one
from turnout.kind_values import timestamp
from turnout.query.v1 import query_pb2 as pb
from turnout.query.v1 import query_pb2_grpc


class Bare(query_pb2_grpc.QueryServicer):
    """Get alone."""

    def __init__(self, pool: Any, place: Place) -> None:
        self._pool = pool
        self._statement = place.one

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        record = await read_one(self._pool, self._statement, request.key.values[0].int64_value)
        topics, partitions, next_offsets, event_times, order_id, user_id, amount_cents, country, ts = record
        row = None
        if order_id is not None:
            row = pb.Row(
                values=[
                    pb.Value(int64_value=order_id),
                    pb.Value(string_value=user_id),
                    pb.Value(int64_value=amount_cents),
                    pb.Value(string_value=country),
                    pb.Value(int64_value=ts),
                ]
            )
        positions = [
            pb.AppliedPosition(
                topic=topic,
                partition=partition,
                next_offset=next_offset,
                event_time=None if event_time is None else timestamp(event_time),
            )
            for topic, partition, next_offset, event_time in zip(
                topics, partitions, next_offsets, event_times, strict=True
            )
        ]
        served = pb.ServedVersion(
            version=1, epoch=1, columns=COLUMNS, applied_positions=positions, cause=pb.ServedVersion.ROUTED
        )
        return pb.GetResponse(row=row, served=served)


async def _serve(listen: str, place: Place) -> None:
    async with await open_pool(os.environ["TURNOUT_POSTGRES"]) as pool:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        query_pb2_grpc.add_QueryServicer_to_server(Bare(pool, place), server)  # type: ignore[abstract]  # Get alone
        server.add_insecure_port(listen)
        await server.start()
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop(1.0)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.reads.bare")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--version", required=True)
    given = parser.parse_args()
    uvloop.run(_serve(given.listen, Place(given.table, given.version)))


if __name__ == "__main__":
    main()
