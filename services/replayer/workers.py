"""One worker process: started with its orders on stdin, heard on stdout, its log in a file, ended in time."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from core.config import POSTGRES_VARIABLE
from services.replayer.liveness import Silence, silence_allowed_s
from services.replayer.protocol import (
    MESSAGE_BYTES_MAX,
    Alive,
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
    Trying,
    Waiting,
    decode_to_supervisor,
    encode,
)
from services.replayer.stuck import Standstill, allowed_s, is_stuck

log = logging.getLogger(__name__)

# What a process does to itself, as against what is done to it.
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP}
)
_COMMAND = (sys.executable, "-m", "services.replayer.engine")


class Worker:
    """A live worker process. Its fields are what it has said last.

    `heard` is called after every message and once after the process has ended. `may_wait`: whether it may wait for
    something, by its reason, as long as that lasts.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        start: Start,
        heard: Callable[[], None],
        may_wait: Callable[[str], bool],
    ) -> None:
        self.owner = start.owner
        self.partitions = start.partitions
        self.background = start.background
        self._rate = Rate(per_s=start.rate_per_s, write_s_max=start.write_s_max)
        self.working = False  # has held a partition
        self.waiting: Waiting | None = None
        self.fault: Fault | None = None
        self.stopped = False
        self.progress: Progress | None = None
        self.born_s = time.monotonic()
        self.given_up = ""  # why it was killed, in words
        self.stuck = False  # it was killed because it stood still
        self._given_up_busy = False  # it was killed for its silence, and was not frozen: it computed all the while
        self._trying: tuple[TopicPartition, int] | None = None
        self._lease_s = start.lease_s
        self._transform_limit_s = start.transform_limit_s
        self._silence = Silence(self.born_s)
        self._standstill = Standstill()
        self._process = process
        self._heard = heard
        self._may_wait = may_wait
        self._reader = asyncio.create_task(self._read(), name=f"read {self.owner}")

    @classmethod
    async def start(
        cls, start: Start, log_file: Path, heard: Callable[[], None], may_wait: Callable[[str], bool]
    ) -> "Worker":
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
        worker = cls(process, start, heard, may_wait)
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
    def alone_with(self) -> tuple[TopicPartition, int] | None:
        """Of an ended worker: the record, by partition and offset, that the job's function had last, alone; None if
        it had others with it, or if the process was killed by somebody else, whom the record does not speak for."""
        fault = self.fault
        if fault is not None and fault.topic is not None and fault.partition is not None and fault.offset is not None:
            return TopicPartition(fault.topic, fault.partition), fault.offset
        code = self._process.returncode
        of_itself = code is not None and (code >= 0 or -code in _CRASHES)
        return self._trying if of_itself or self._given_up_busy else None

    @property
    def end_text(self) -> str:
        """Of an ended worker: how, in words."""
        if self.fault is not None:
            return f"ended with {self.fault.reason}"
        if self.given_up:
            return f"{self.given_up} and was killed"
        code = self._process.returncode
        if code is not None and code < 0:
            return f"was killed by signal {-code}"
        return f"ended with status {code}"

    def assign(self, partitions: tuple[TopicPartition, ...]) -> None:
        """Work on these partitions from now on."""
        if partitions != self.partitions:
            self.partitions = partitions
            self._send(Assign(partitions=partitions))

    @property
    def rate_per_s(self) -> float | None:
        """How many records a second it may read; None = unlimited."""
        return self._rate.per_s

    @property
    def _stands_allowed_s(self) -> float:
        return allowed_s(self._lease_s, self.rate_per_s, len(self.partitions))

    def set_rate(self, rate: Rate) -> None:
        """Read at most so many records a second, and write at most so long at a time."""
        sooner = allowed_s(self._lease_s, rate.per_s, len(self.partitions)) < self._stands_allowed_s
        if sooner or self.rate_per_s == 0:
            self._standstill.excused()  # the time before was allowed
        if rate != self._rate:
            self._rate = rate
            self._send(rate)

    def beat(self) -> None:
        """Let it know that somebody looks after it; to be called every LOOK_S."""
        self._send(Alive())

    def stop(self) -> None:
        """Ask it to finish its batch, release its leases and end."""
        self._send(Stop())

    async def gone(self, grace_s: float) -> None:
        """Wait until it has ended; after the grace it is killed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), grace_s)
        self.kill()
        await self._reader

    def kill_if_silent(self) -> None:
        """Kill it when it has been silent for too long (`liveness.py`); to be called every LOOK_S."""
        silent_s = self._silence.look(time.monotonic())
        running = _runs(self.pid)
        allowed_s = silence_allowed_s(
            self._lease_s, self._transform_limit_s, spoke=self._silence.spoke, running=running
        )
        if silent_s > allowed_s and not self.ended:
            self.given_up = f"gave no sign of life for {silent_s:.0f} s"
            self._given_up_busy = running
            self.kill()

    async def kill_if_stuck(self, writes: Callable[[str], Awaitable[bool]]) -> None:
        """Kill it when it has stood still for too long (`stuck.py`). `writes`: whether PostgreSQL works for it."""
        stands_s = self._standstill.lasts_s()
        allowed = self._stands_allowed_s
        if self.ended or not is_stuck(stands_s, allowed, self._lease_s, writes=False):
            return
        writing = await writes(self.owner)
        if is_stuck(self._standstill.lasts_s(), allowed, self._lease_s, writes=writing) and not self.ended:
            self.given_up = f"stood still for {stands_s:.0f} s although the log goes on{self._said}"
            self.stuck = True
            self.kill()

    @property
    def _said(self) -> str:
        return f", said {self.waiting.reason}" if self.waiting is not None else ""

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
                self._silence.broken()
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
            case Ready() | Alive():
                pass  # a Progress says more
            case Progress():
                # Connected again is not over it: the batch may be refused as before. With nothing left to do it is.
                moved = self.progress is None or message.partitions != self.progress.partitions
                over = moved or all(state.at_end for state in message.partitions)
                self.progress = message
                if self.rate_per_s == 0:
                    self._standstill.excused()
                else:
                    self._standstill.told(message.partitions, time.monotonic())
                self.working = self.working or bool(message.partitions)
                if over and message.partitions:
                    self.waiting = None
            case Trying():
                self._trying = TopicPartition(message.topic, message.partition), message.offset
            case Waiting():
                self.waiting = message
                if self._may_wait(message.reason):
                    self._standstill.excused()
                else:
                    self._standstill.waits(time.monotonic())
            case Fault():
                self.fault = message
            case Stopped():
                self.stopped = True


def _runs(pid: int) -> bool:
    """Whether the process computes, waits for its turn to, or for a disk: it is not frozen. Where the system does not
    say so in /proc, no."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] in (["R"], ["D"])
