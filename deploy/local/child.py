"""A child process behind its guard (see guard.py): started, watched, stopped or killed, its log kept in a file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path

from deploy.local.errors import LocalStackError

_GUARD = Path(__file__).with_name("guard.py")
_LOG_BYTES_MAX = 20 * 1024 * 1024
_LOG_TAIL_BYTES = 16 * 1024
_POLL_S = 0.05
_LEFTOVER_GRACE_S = 20.0


class Child:
    """One process of the stack: PostgreSQL, Kafka, the services, or a short-lived tool of theirs.

    `name` is what a person calls it; `run_dir` holds its lock file; `log` receives its output, appended.
    """

    def __init__(self, name: str, *, run_dir: Path, log: Path, stop_signal: signal.Signals, grace_s: float) -> None:
        self.name = name
        self.log = log
        self._lock = run_dir / f"{name.lower()}.lock"
        self._stop_signal = stop_signal
        self._grace_s = grace_s
        self._guard: asyncio.subprocess.Process | None = None
        self._log_start = 0
        self.pid: int | None = None
        """Process id of the child itself, not of its guard; None while it does not run."""

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.returncode is None

    @property
    def ended_by_itself(self) -> bool:
        """It was started, nobody stopped or killed it, and it is gone."""
        return self._guard is not None and self._guard.returncode is not None

    @property
    def killed_by(self) -> signal.Signals | None:
        """The signal that ended it, if it is gone by itself and a signal did it."""
        status = self._guard.returncode if self._guard is not None else None
        number = (status or 0) - 128 if (status or 0) > 0 else -(status or 0)
        return signal.Signals(number) if number in set(signal.Signals) else None

    async def start(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str], account: str | None = None
    ) -> None:
        """Start the command. Secrets belong in `environment` or in files, never in `command`."""
        assert not self.running, f"{self.name} runs already"
        await self.settle()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        guard = [sys.executable, "-I", "-S", str(_GUARD), "--lock", str(self._lock)]
        guard += ["--stop-signal", self._stop_signal.name, "--grace-s", str(self._grace_s)]
        guard += ["--account", account] if account else []
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._guard = await asyncio.create_subprocess_exec(
                *guard,
                "--",
                *map(str, command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        first_line = await self._guard.stdout.readline()
        self.pid = int(first_line) if first_line.strip() else None

    async def run(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str], account: str | None = None
    ) -> int:
        """Run a short-lived command to its end; its exit status (125: it could not be started)."""
        await self.start(command, environment=environment, account=account)
        return await self.wait()

    async def wait(self) -> int:
        """Wait for the end of the child and of all it started; its exit status, 128 + the signal if killed by one."""
        assert self._guard is not None, f"{self.name} was not started"
        status = await self._guard.wait()
        self._release()
        return status

    async def stop(self) -> None:
        """Stop it by its own stop signal, kill it if it outlives the grace. Harmless when it does not run.

        Returns, also when it is cancelled meanwhile, only when nothing of it is left.
        """
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        await _to_the_end(self.wait())

    async def kill(self) -> None:
        """SIGKILL, as a crash would be. Returns when nothing of it is left. Harmless when it does not run."""
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._guard.stdin.write(b"K")
            await self._guard.stdin.drain()
        await _to_the_end(self.wait())

    def log_since_start(self) -> str:
        """What it wrote since its last start, at most the last 16 KiB."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
        return ""

    def _release(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard = None
        self.pid = None

    async def settle(self) -> None:
        """Let what an earlier, crashed stack left on this directory come to its end, or end it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LEFTOVER_GRACE_S
        while _is_locked(self._lock):
            if loop.time() > deadline:
                self._kill_leftover()
                deadline = loop.time() + _LEFTOVER_GRACE_S
            await asyncio.sleep(_POLL_S)

    def _kill_leftover(self) -> None:
        pids = [int(word) for word in self._lock.read_text().split()]
        ours = [pid for pid in pids if str(self._lock.parent) in _command_line(pid)]
        if not ours:
            raise LocalStackError(
                f"{self.name} of an earlier stack still runs on {self._lock.parent} and does not end: "
                f"end what holds {self._lock.name} (processes {', '.join(map(str, pids))}) and start again"
            )
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _to_the_end(work: Coroutine[None, None, int]) -> None:
    """Await it whole: a cancellation in between is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _is_locked(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _command_line(pid: int) -> str:
    """Arguments of a running process, or nothing: a process id on disk may belong to somebody else by now."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    if sys.platform == "linux":
        return ""
    command = ["ps", "-o", "args=", "-ww", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  # a number alone
