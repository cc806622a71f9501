"""The watchdog barks at one record that takes too long, not at many that take a while together."""

from __future__ import annotations

import queue
import threading
import time

from services.replayer.engine.faults import RunFaultError
from services.replayer.engine.watchdog import Watchdog
from services.replayer.protocol import TopicPartition
from turnout.testing import Message

TP = TopicPartition("t", 2)
LIMIT_S = 0.5


def messages(count: int) -> list[Message]:
    return [Message(b"", offset=100 + i) for i in range(count)]


def test_names_the_record_and_the_place() -> None:
    barked: queue.Queue[RunFaultError] = queue.Queue()
    released = threading.Event()

    def bark(error: RunFaultError) -> None:
        barked.put(error)
        released.set()

    watchdog = Watchdog(LIMIT_S, bark)
    watchdog.start()
    given = messages(5)
    for number, _ in enumerate(watchdog.watched(TP, given, given)):
        if number == 3:
            released.wait(30)
    watchdog.done()
    watchdog.stop()
    fault = barked.get_nowait()
    assert (fault.reason, fault.tp, fault.offset) == ("TRANSFORM_TIMEOUT", TP, 103)
    assert "test_watchdog.py" in str(fault)
    assert barked.empty()


def test_silent_while_records_come_and_go() -> None:
    barked: list[RunFaultError] = []
    watchdog = Watchdog(LIMIT_S, barked.append)
    watchdog.start()
    until = time.monotonic() + 4 * LIMIT_S
    while time.monotonic() < until:
        one = messages(1)  # chunks of one record each, as for a slow function
        for _ in watchdog.watched(TP, one, one):
            threading.Event().wait(LIMIT_S / 20)
        watchdog.done()
    threading.Event().wait(2 * LIMIT_S)  # nothing is being worked on
    watchdog.stop()
    assert not barked
