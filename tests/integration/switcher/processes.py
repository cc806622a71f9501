"""Switchers in processes of their own, to be killed and frozen."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from tests.integration.switcher.patience import LEASE_S
from tests.support.eventually import eventually
from tests.support.ports import own_port

T = TypeVar("T")

_PROGRAM = (
    "import sys; from core.run import main; from services.switcher.app import build; "
    "from tests.integration.switcher import patience; patience.take(); "
    "sys.exit(main({'switcher': build}, sys.argv[1:]))"
)


class SwitcherProcess:
    """A switcher in a process of its own, to be killed."""

    def __init__(self, postgres: str, replayer: str, data_dir: str, registry: str = "127.0.0.1:1") -> None:
        self.target = f"127.0.0.1:{own_port()}"
        self._environment = {"TURNOUT_POSTGRES": postgres}
        self._arguments = [
            *(sys.executable, "-c", _PROGRAM, "switcher", "--listen", self.target, "--kafka", "127.0.0.1:1"),
            *("--replayer", replayer, "--registry", registry, "--data-dir", data_dir),
            *("--reader-lease-s", str(LEASE_S)),
        ]

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments, env=self._environment, stderr=asyncio.subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def once_available(call: Callable[[], Awaitable[T]], *others: grpc.StatusCode) -> T:
    """The answer to a call, made again while the switcher is not there."""
    answers: list[T] = []

    async def answered() -> bool:
        try:
            answers.append(await call())
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, *others):
                raise
        return bool(answers)

    await eventually(answered)
    return answers[0]
