"""`python -m bench.reader`: reads of a live version at a steady rate, in a process of its own until it is stopped.

Writes two doubles a read to its output: when the read was due, by the clock that all processes of the machine share,
and how long after that it was answered, in seconds; minus one for a read that failed. A read is begun when it is due
whether or not the ones before it have been answered, so that a slow answer hides nothing.
"""

import argparse
import asyncio
import os
import random
import struct
import sys
import time
from typing import Final

import uvloop

from bench.workload import USERS
from turnout.client import Client
from turnout.errors import TurnoutError

FORMAT: Final = "dd"
FAILED: Final = -1.0
_READ_S: Final = 5.0


async def _read(target: str, job: str, per_s: float) -> None:
    rng = random.Random(2)
    running: set[asyncio.Task[None]] = set()
    async with Client(target, actor="bench") as client:

        async def one(due_s: float) -> None:
            try:
                await client.get(job, f"user-{rng.randrange(USERS)}", timeout_s=_READ_S)
                took_s = time.monotonic() - due_s
            except TurnoutError as error:
                sys.stderr.write(f"a read failed: {error}\n")
                took_s = FAILED
            os.write(1, struct.pack(FORMAT, due_s, took_s))

        due_s = time.monotonic()
        while True:
            due_s += 1 / per_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            task = asyncio.create_task(one(due_s))
            running.add(task)
            task.add_done_callback(running.discard)


def main() -> None:
    """Read until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.reader")
    parser.add_argument("--target", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--per-s", type=float, required=True)
    given = parser.parse_args()
    uvloop.run(_read(given.target, given.job, given.per_s))


if __name__ == "__main__":
    main()
