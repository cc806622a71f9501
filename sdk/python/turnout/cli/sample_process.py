"""Runs a job's code in a child process, so that a fault of it cannot take the command down, and with a time limit."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from turnout.cli.exits import CommandError, ExitCode
from turnout.cli.kafka import SampledRecord
from turnout.cli.sample_child import Given, Transformed
from turnout.loading import LOAD_S_MAX

RECORD_S_MAX = 10.0
_STDERR_CHARACTERS = 2000


class SampleProcess:
    """Transforms records by the job of a file that is known to load. Use it as a context manager.

    CommandError (REFUSED) when the job's code ends its process or takes longer than the limit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._limit_s = LOAD_S_MAX + RECORD_S_MAX  # the first answer includes the loading
        self._child = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "turnout.cli.sample_child", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._said = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> SampleProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def transform(self, record: SampledRecord) -> Transformed:
        """The rows of one record, or why it is malformed."""
        given = Given(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            list(record.headers),
        )
        where = f"{record.topic}/{record.partition} offset {record.offset}"
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(msgspec.json.encode(given) + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._ended(f"the record {where}") from None
        answer = self._answer(f"the record {where}")
        self._limit_s = RECORD_S_MAX
        return msgspec.json.decode(answer, type=Transformed)

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.wait()
        self._listener.join()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert pipe is not None
            _close_quietly(pipe)

    def _answer(self, doing: str) -> bytes:
        assert self._child.stdout is not None
        with self._killed_after(self._limit_s) as fired:
            line = self._child.stdout.readline()
        if line:
            return line
        if fired.is_set():
            raise CommandError(
                ExitCode.REFUSED,
                "JOB_TOO_SLOW",
                f"{self._path.name}: {doing} took longer than {self._limit_s:g} s, so it was ended.",
                next_step="A job only defines and transforms: look for a loop, or for something it waits for.",
            )
        raise self._ended(doing)

    @contextmanager
    def _killed_after(self, limit_s: float) -> Iterator[threading.Event]:
        fired = threading.Event()

        def fire() -> None:
            fired.set()
            self._child.kill()

        timer = threading.Timer(limit_s, fire)
        timer.start()
        try:
            yield fired
        finally:
            timer.cancel()

    def _ended(self, doing: str) -> CommandError:
        status = self._child.wait()
        self._listener.join()
        said = bytes(self._said).decode(errors="replace").strip()
        tail = said.rpartition("\n")[2]
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return CommandError(
            ExitCode.REFUSED,
            "JOB_ENDED_ITS_PROCESS",
            f"{self._path.name}: {doing} ended the job's process with {how}{': ' + tail if tail else ''}.",
            next_step="Run the file by itself with python to see where.",
        )

    def _listen(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self._said += line
            del self._said[:-_STDERR_CHARACTERS]


def _close_quietly(pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError):  # a record that the child no longer took
        pipe.close()
