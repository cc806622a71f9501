"""`python -m bench.cutover.reader`: reads through the fronts in a process of its own, each answer checked.

The row of slot P is FACTOR times the applied position of partition P, where FACTOR belongs to the version that answers;
so an answer that mixes versions, or rows and positions of two instants, is seen. Commands come as lines on standard
input: `full SECONDS` (as fast as it goes, each client a read after the other; answers with reads a second, as a line of
text on standard error) and `at RATE` (so many a second, each begun when it is due, until the next command; 0 = none).
Every read of `at` is written to standard output as `RECORD` says.
"""

import argparse
import asyncio
import contextlib
import os
import random
import struct
import sys
import time
from typing import Final

import uvloop

from bench.cutover.record import FAILED, RECORD, RIGHT, WRONG, right
from bench.workload import PARTITIONS
from core.garbage import SERVING, pass_over_what_stands
from turnout.client import Client
from turnout.errors import TurnoutError

CLIENTS: Final = 8  # each likes one front the most
SPREAD: Final = 34  # the seed by which it is two clients to each of four fronts; a test holds it to that

_READ_S: Final = 5.0
_WRITE_S: Final = 0.05


class Reader:
    """Reads of one job."""

    def __init__(self, job: str, clients: list[Client]) -> None:
        self._job = job
        self._clients = clients
        self._rng = random.Random(3)
        self._records = bytearray()
        self._running: set[asyncio.Task[None]] = set()

    async def _one(self, client: Client, due_s: float) -> None:
        slot = self._rng.randrange(PARTITIONS)
        begun_s = time.monotonic()
        epoch = version = 0
        try:
            read = await client.get(self._job, slot, unit=f"user-{self._rng.randrange(100_000)}", timeout_s=_READ_S)
            epoch, version = read.epoch, read.version
            result = RIGHT if right(slot, read) else WRONG
            if result == WRONG:
                sys.stderr.write(f"a wrong read of slot {slot}: {read}\n")
        except TurnoutError as error:
            sys.stderr.write(f"a read failed: {error}\n")
            result = FAILED
        self._records += struct.pack(RECORD, due_s, begun_s, time.monotonic(), epoch, version, result)

    async def full(self, seconds: float) -> float:
        """Reads a second, as many as it gets; nothing of them is written.

        A client's reads come singly, as those of `at` mostly do: many at once would share calls, cost a fraction, and
        say nothing about how many single ones there may be.
        """
        end_s, reads = time.monotonic() + seconds, 0

        async def again(client: Client) -> None:
            nonlocal reads
            while time.monotonic() < end_s:
                await self._one(client, 0.0)
                reads += 1

        begin_s = time.monotonic()
        await asyncio.gather(*(again(client) for client in self._clients))
        self._records.clear()
        return reads / (time.monotonic() - begin_s)

    async def at(self, per_s: float) -> None:
        """Reads at a steady rate until cancelled."""
        due_s = time.monotonic()
        while True:
            due_s += 1 / per_s
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(self._one(self._rng.choice(self._clients), due_s))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def write(self) -> None:
        """Hand over what was read, now and then."""
        while True:
            await asyncio.sleep(_WRITE_S)
            records, self._records = self._records, bytearray()
            view = memoryview(records)
            while view:
                view = view[await asyncio.to_thread(os.write, 1, view) :]


async def _commands(reader: Reader) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    writing = asyncio.create_task(reader.write())
    reading: asyncio.Task[None] | None = None
    while line := (await lines.readline()).decode().split():
        if reading is not None:
            reading.cancel()
            reading = None
        word, number = line[0], float(line[1])
        if word == "full":
            print(f"full {await reader.full(number):.1f}", file=sys.stderr, flush=True)
        elif number:
            reading = asyncio.create_task(reader.at(number))
    writing.cancel()


def spread(fronts: list[str]) -> list[Client]:
    """The clients, each with an order of its own in which it likes the fronts."""
    random.seed(SPREAD)
    return [Client(targets={"query": fronts}, actor="bench") for _ in range(CLIENTS)]


async def _read(job: str, fronts: list[str]) -> None:
    async with contextlib.AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(client) for client in spread(fronts)]
        pass_over_what_stands(SERVING)  # what is measured is not to be this process
        await _commands(Reader(job, clients))


def main() -> None:
    """Read until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.cutover.reader")
    parser.add_argument("--job", required=True)
    parser.add_argument("--fronts", required=True, nargs="+")
    given = parser.parse_args()
    uvloop.run(_read(given.job, given.fronts))


if __name__ == "__main__":
    main()
