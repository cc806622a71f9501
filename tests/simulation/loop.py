"""An event loop whose time is simulated, and processes on it that can be killed and frozen at any step.

Nothing waits: when nothing is ready, the clock jumps to the next timer. Everything that is scheduled belongs to the
process in whose context it was scheduled. A killed process never runs again, not even a `finally`, as after SIGKILL; a
frozen one runs on later, as after SIGSTOP and SIGCONT, with all that it believed before.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
"""Wall time at second 0 of the simulated clock."""

START_S = 1000.0


@dataclass(eq=False)
class Process:
    """A process of the simulation. `skew_s`: how far its wall clock is ahead of the database's."""

    name: str
    skew_s: float = 0.0
    crash_at: int = 0  # the step at which it is killed, or frozen; 0 = at none
    freeze_s: float = 0.0  # for how long it is frozen at that step; 0 = it is killed
    done: list[str] = field(default_factory=list)  # what each of its steps was
    alive: bool = True
    frozen: bool = False
    held: list[Callable[[], None]] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    when_killed: list[Callable[[], None]] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)  # what its code raised and should not have

    @property
    def steps(self) -> int:
        """How many steps it has made."""
        return len(self.done)

    @property
    def halted(self) -> bool:
        return self.frozen or not self.alive


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def of_now() -> Process | None:
    """The process that runs now; None = none of the simulation's."""
    return _PROCESS.get()


def current() -> Process:
    """The process that runs now."""
    process = of_now()
    assert process is not None, "this runs in no process of the simulation"
    return process


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class _Future(asyncio.Future[Any]):
    """A future by whose number a set is in order: by its address the order of a set would be another one each time."""

    def __init__(self, loop: Loop) -> None:
        self._number = next(loop.numbers)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """A task in the same way."""

    def __init__(self, work: Any, loop: Loop, context: contextvars.Context | None) -> None:
        self._number = next(loop.numbers)
        super().__init__(work, loop=loop, context=context)  # type: ignore[call-arg, unused-ignore]

    def __hash__(self) -> int:
        return self._number


class Loop(asyncio.BaseEventLoop):
    """The loop. Callbacks of halted processes are held back."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = START_S
        self._clock_resolution = 1e-9
        self._selector = self
        self.numbers = itertools.count()
        self.thread_s: Callable[[], float] = lambda: 0.001
        self.set_task_factory(_task)  # type: ignore[arg-type]
        self.set_exception_handler(lambda *_: None)  # what is lost with a killed process is no news

    # --- the clock ---

    def time(self) -> float:
        return self._now_s

    def now(self) -> datetime:
        """The database's wall time."""
        return EPOCH + timedelta(seconds=self._now_s)

    def select(self, timeout: float | None) -> list[Any]:
        """What asyncio calls to wait: the clock jumps."""
        if timeout is None:
            raise Stuck("nothing is left to happen")
        self._now_s += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    # --- scheduling by process ---

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(self)

    def call_soon(  # type: ignore[override]  # any callback
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is not None and process.halted:
            handle = asyncio.Handle(callback, args, self, context)
            process.held.append(lambda: self._ready.append(handle))  # type: ignore[attr-defined]
            return handle
        return super().call_soon(callback, *args, context=context)

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # any callback

    def call_at(  # type: ignore[override]  # any callback
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        context = contextvars.copy_context() if context is None else context
        process = context.get(_PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        timers: list[asyncio.TimerHandle] = []

        def due() -> None:
            if timers[0].cancelled():
                return
            if process.halted:
                process.held.append(lambda: self._ready.append(timers[0]))  # type: ignore[attr-defined]
            else:
                callback(*args)

        timers.append(super().call_at(when, due, context=context))
        return timers[0]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """A thread's work is done at one instant, a while later."""
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.in_process(_PROCESS.get(), self.thread_s(), work)
        return future

    # --- processes ---

    def spawn(self, process: Process | None, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine as a part of a process; None = of nobody that can be killed."""
        context = contextvars.Context()
        context.run(_PROCESS.set, process)
        return self.create_task(work, context=context)

    def in_process(self, process: Process | None, delay_s: float, callback: Any, *args: Any) -> None:
        """Call something in a process after a delay."""
        context = contextvars.Context()
        context.run(_PROCESS.set, process)
        self.call_later(delay_s, callback, *args, context=context)

    def halt(self, process: Process) -> None:
        """Hold back what is ready already."""
        ready = self._ready  # type: ignore[attr-defined]
        nothing = asyncio.Handle(lambda: None, (), self)
        nothing.cancel()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._context.get(_PROCESS) is process:
                process.held.append(lambda handle=handle: ready.append(handle))
                handle = nothing  # the loop has counted what is ready
            ready.append(handle)

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        if process.alive:
            process.alive = False
            self.halt(process)
            for tell in process.when_killed:
                tell()

    def freeze(self, process: Process, for_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        if process.halted:
            return
        process.frozen = True
        self.halt(process)
        self.in_process(None, for_s, self._thaw, process)

    def _thaw(self, process: Process) -> None:
        process.frozen = False
        if process.alive:
            held, process.held = process.held, []
            for put_back in held:
                put_back()

    async def step(self, what: str) -> None:
        """A step of the present process: where it may be killed, or frozen. what: equal for those that do the same."""
        process = current()
        process.done.append(what)
        if process.alive and process.steps == process.crash_at:
            if process.freeze_s:
                self.freeze(process, process.freeze_s)
                await asyncio.sleep(0)
            else:
                self.kill(process)
                await self.create_future()

    def finish(self, processes: list[Process]) -> None:
        """End all that is left of the processes, so that nothing is collected half-run."""
        for process in processes:
            process.alive, process.frozen = True, False
            process.crash_at = 0
            held, process.held = process.held, []
            for put_back in held:
                put_back()
        for _ in range(20):
            left = [task for process in processes for task in process.tasks if not task.done()]
            left += [task for task in asyncio.all_tasks(self) if not task.done() and task not in left]
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=30.0))
        self.run_until_complete(self.shutdown_asyncgens())


def _task(loop: Loop, work: Any, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
    task = _Task(work, loop, context)
    process = _PROCESS.get() if context is None else context.get(_PROCESS)
    if process is not None:
        process.tasks.append(task)  # else a killed process's would be collected, and so run its `finally`
        if len(process.tasks) > 500:
            process.tasks[:] = [one for one in process.tasks if not one.done()]
    return task


class Clock:
    """A process's clocks, as `turnout.clock.Clock`."""

    def __init__(self, loop: Loop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def now(self) -> datetime:
        return self._loop.now() + timedelta(seconds=self._process.skew_s)

    def monotonic_s(self) -> float:
        return self._loop.time()
