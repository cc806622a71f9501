"""One worker process: started with its orders on stdin, heard on stdout, its log in a file, ended in time."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.config import POSTGRES_VARIABLE
from services.replayer.protocol import (
    MESSAGE_BYTES_MAX,
    Assign,
    Fault,
    Progress,
    ProtocolError,
    Rate,
    Ready,
    Start,
    Stop,
    Stopped,
    TopicPartition,
    ToSupervisor,
    ToWorker,
    Waiting,
    decode_to_supervisor,
    encode,
)

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", "services.replayer.engine")


class Worker:
    """A live worker process. Its fields are what it has said last.

    `heard` is called after every message and once after the process has ended.
    """

    def __init__(self, process: asyncio.subprocess.Process, start: Start, heard: Callable[[], None]) -> None:
        self.owner = start.owner
        self.partitions = start.partitions
        self.rate_per_s = start.rate_per_s
        self.working = False  # has held a partition
        self.waiting: Waiting | None = None
        self.fault: Fault | None = None
        self.stopped = False
        self.progress: Progress | None = None
        self.born_s = time.monotonic()
        self._process = process
        self._heard = heard
        self._reader = asyncio.create_task(self._read(), name=f"read {self.owner}")

    @classmethod
    async def start(cls, start: Start, log_file: Path, heard: Callable[[], None]) -> "Worker":
        """Start a process. OSError when the system refuses."""
        log_file.parent.mkdir(parents=True, exist_ok=True)
        # Ctrl-C at a terminal goes to the whole session: a session of its own lets the supervisor end it in order.
        with log_file.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={name: value for name, value in os.environ.items() if name != POSTGRES_VARIABLE},
                start_new_session=True,
                limit=MESSAGE_BYTES_MAX,
            )
        worker = cls(process, start, heard)
        worker._send(start)
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone and everything that it said has been read."""
        return self._reader.done()

    @property
    def in_order(self) -> bool:
        """Of an ended worker: whether it stopped because it was told to."""
        return self.stopped and self._process.returncode == 0

    @property
    def end_text(self) -> str:
        """Of an ended worker: how, in words."""
        code = self._process.returncode
        if code is not None and code < 0:
            return f"was killed by signal {-code}"
        return f"ended with status {code}"

    def assign(self, partitions: tuple[TopicPartition, ...]) -> None:
        """Work on these partitions from now on."""
        if partitions != self.partitions:
            self.partitions = partitions
            self._send(Assign(partitions=partitions))

    def set_rate(self, per_s: float | None) -> None:
        """Read at most so many records a second."""
        if per_s != self.rate_per_s:
            self.rate_per_s = per_s
            self._send(Rate(per_s=per_s))

    def stop(self) -> None:
        """Ask it to finish its batch, release its leases and end."""
        self._send(Stop())

    async def gone(self, grace_s: float) -> None:
        """Wait until it has ended; after the grace it is killed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), grace_s)
        self.kill()
        await self._reader

    def kill(self) -> None:
        """SIGKILL; nothing when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _send(self, message: ToWorker) -> None:
        # No drain: a line is small beside the pipe's buffer, and whoever does not read is ended by its silence.
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(encode(message))

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                self._take(decode_to_supervisor(line))
                self._heard()
        except (ProtocolError, ValueError) as error:
            log.warning("%s wrote a line that is no message (%s); ending it", self.owner, error)
            self.kill()
        finally:
            await self._process.wait()
            asyncio.get_running_loop().call_soon(self._heard)

    def _take(self, message: ToSupervisor) -> None:
        match message:
            case Ready():
                pass  # the first Progress says more
            case Progress():
                moved = self.progress is None or message.partitions != self.progress.partitions
                self.progress = message
                self.working = self.working or bool(message.partitions)
                if moved and message.partitions:
                    self.waiting = None
            case Waiting():
                self.waiting = message
            case Fault():
                self.fault = message
            case Stopped():
                self.stopped = True
