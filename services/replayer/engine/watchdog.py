"""Ends a worker whose user function hangs, and says at which record and where in the code.

The event loop runs the user's function, so it cannot watch it; a thread does. It counts its own ticks, not the clock:
a machine that slept, or a worker that was stopped and continued, has not used up the record's time.
"""

import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from services.replayer.engine.faults import RunFaultError
from services.replayer.protocol import TopicPartition
from turnout.job.rows import Message

_TICKS: Final = 20  # in the time limit of a record
_STACK_LINES_MAX: Final = 12


class _Remaining(Protocol):
    def __length_hint__(self) -> int: ...


class Watchdog:
    """Watches the records that the transform is given. `bark` is called on the thread, once; it ends the process."""

    def __init__(self, limit_s: float, bark: Callable[[RunFaultError], None]) -> None:
        self._limit_s = limit_s
        self._bark = bark
        self._work: tuple[int, TopicPartition, Sequence[Message], _Remaining] | None = None
        self._given = 0
        self._thread_id = threading.get_ident()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch the calling thread."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._closed.set()
        self._thread.join()

    def watched(self, tp: TopicPartition, messages: Sequence[Message], items: Sequence[Any]) -> Iterator[Any]:
        """An iterator over `items`, one for each message. The record that is being worked on follows from how many are
        left, which costs nothing per record."""
        iterator = iter(items)
        self._given += 1
        self._work = (self._given, tp, messages, iterator)  # type: ignore[assignment]  # a list's iterator has a length hint
        return iterator

    def done(self) -> None:
        """The records last given are dealt with."""
        self._work = None

    def _watch(self) -> None:
        seen: tuple[int, int] | None = None
        ticks = 0
        while not self._closed.wait(self._limit_s / _TICKS):
            work = self._work
            if work is None:
                seen, ticks = None, 0
                continue
            given, tp, messages, remaining = work
            now = (given, remaining.__length_hint__())
            ticks = ticks + 1 if now == seen else 0
            seen = now
            if ticks >= _TICKS:
                self._bark(self._fault(tp, messages, now[1]))
                return

    def _fault(self, tp: TopicPartition, messages: Sequence[Message], left: int) -> RunFaultError:
        message = messages[max(0, len(messages) - left - 1)]
        stack = traceback.extract_stack(sys._current_frames()[self._thread_id])
        where = "\n".join(_lines(stack))
        return RunFaultError(
            "TRANSFORM_TIMEOUT",
            f"The job's function has worked on one record of {tp.topic}, partition {tp.partition}, offset "
            f"{message.offset} for more than {self._limit_s:g} s. It hangs here:\n{where}\n"
            f"Mend the function and apply it as a new version; this run cannot pass the record.",
            tp,
            message.offset,
        )


def _lines(stack: Iterable[traceback.FrameSummary]) -> list[str]:
    """The innermost frames, from where the generated code calls the user's function."""
    frames = list(stack)
    generated = [i for i, frame in enumerate(frames) if frame.filename.startswith("<turnout ")]
    shown = frames[generated[-1] + 1 :] if generated else frames
    return [f"  {frame.filename}, line {frame.lineno}, in {frame.name}" for frame in shown[-_STACK_LINES_MAX:]]
