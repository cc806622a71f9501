"""The reads of a reader process, and what is wrong with them."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import numpy as np

from bench.cutover.record import FAILED, RIGHT
from bench.workload import say

_KIND: Final = np.dtype(
    [("due", "f8"), ("begun", "f8"), ("answered", "f8"), ("epoch", "i4"), ("version", "i4"), ("result", "i4")],
)
_PIECE: Final = 65536
_SETTLE_S: Final = 0.5  # until what was read is here


class Readings:
    """Commands to a reader process, and what it has read."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told = bytearray()
        self._full: asyncio.Queue[float] = asyncio.Queue()

    async def full(self, seconds: float) -> float:
        """Reads a second at full speed."""
        self._command(f"full {seconds}")
        return await self._full.get()

    def at(self, per_s: float) -> None:
        """Read at a steady rate from now on; 0 = not at all."""
        self._command(f"at {per_s}")

    def _command(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while piece := await self._process.stdout.read(_PIECE):
            self._told += piece

    async def listen_to_words(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            match line.decode().split():
                case ["full", number]:
                    self._full.put_nowait(float(number))
                case _:
                    say(line.decode().rstrip())

    async def take(self) -> "np.ndarray[Any, Any]":
        """Everything since the last time, once it is here."""
        await asyncio.sleep(_SETTLE_S)
        whole = len(self._told) - len(self._told) % _KIND.itemsize
        taken, self._told = bytes(self._told[:whole]), self._told[whole:]
        return np.frombuffer(taken, _KIND)


@asynccontextmanager
async def reading(job: str, fronts: Sequence[str]) -> AsyncIterator[Readings]:
    """A reader process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.cutover.reader", "--job", job, "--fronts", *fronts),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    readings = Readings(process)
    listening = [asyncio.create_task(readings.listen()), asyncio.create_task(readings.listen_to_words())]
    try:
        yield readings
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await asyncio.gather(*listening)


def failed(reads: "np.ndarray[Any, Any]") -> int:
    """Reads without an answer."""
    return int((reads["result"] == FAILED).sum())


def wrong(
    reads: "np.ndarray[Any, Any]", active: Mapping[int, int], adopted: Sequence[tuple[float, int]]
) -> tuple[int, list[str]]:
    """How many answers are wrong, and a word on the first of each kind.

    active: the version of each epoch that was ever committed. adopted: when which epoch was answered as served by all
    fronts, in that order; a read that was begun later must not be answered by an epoch before.
    """
    answered = reads[reads["result"] != FAILED]
    value = answered["result"] != RIGHT
    known = np.array([active.get(int(epoch), -1) for epoch in answered["epoch"]], dtype="i4")
    version = known != answered["version"]
    times = np.array([at_s for at_s, _ in adopted])
    epochs = np.array([0, *(epoch for _, epoch in adopted)])
    floor = epochs[np.searchsorted(times, answered["begun"])]
    stale = answered["epoch"] < floor
    kinds = {"value": value, "version of its epoch": version, "epoch after an adoption": stale}
    words = [f"{int(kind.sum())} wrong by {name}: {answered[kind][0]}" for name, kind in kinds.items() if kind.any()]
    return int((value | version | stale).sum()), words


def p99_ms(reads: "np.ndarray[Any, Any]") -> float:
    """Of the answered ones, from when they were due."""
    answered = reads[reads["result"] != FAILED]
    return float(np.percentile(answered["answered"] - answered["due"], 99)) * 1000 if len(answered) else float("nan")


def within(reads: "np.ndarray[Any, Any]", spans: Sequence[tuple[float, float]]) -> "np.ndarray[Any, Any]":
    """The reads that were due within one of the spans, which do not overlap and are sorted."""
    begins, ends = np.array([begin for begin, _ in spans]), np.array([end for _, end in spans])
    place = np.searchsorted(begins, reads["due"], side="right") - 1
    inside = (place >= 0) & (reads["due"] < ends[np.maximum(place, 0)])
    return reads[inside]
