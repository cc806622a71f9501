"""The worker's ends of the pipes to its supervisor.

A thread each: reading and writing then never hold up the event loop, and while the loop stands still the watchdog can
say its last word and the supervisor hears that the process is alive. The job's code gets neither stream: what it
prints goes to the log.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Final

from services.replayer.liveness import BEAT_S
from services.replayer.protocol import (
    MESSAGE_BYTES_MAX,
    Alive,
    Progress,
    ProtocolError,
    Start,
    ToSupervisor,
    ToWorker,
    decode_to_worker,
    encode,
)

_UNSENT_MAX: Final = 100  # messages; beyond that nobody reads, and progress is dropped
_FLUSH_S: Final = 5.0


class Supervisor:
    """The other side. Takes over the process's standard streams; make one at the very start."""

    def __init__(self) -> None:
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        sys.stdout.flush()
        os.dup2(2, 1)
        self._unsent: queue.SimpleQueue[ToSupervisor | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._write, name="to-supervisor", daemon=True).start()

    def start(self) -> Start:
        """Wait for the first line. ProtocolError if it is anything else."""
        message = decode_to_worker(self._in.readline(MESSAGE_BYTES_MAX))
        if not isinstance(message, Start):
            raise ProtocolError("the first message for a worker is Start")
        return message

    def listen(self, heard: Callable[[ToWorker | None], None]) -> None:
        """Call `heard`, on a thread of its own, with each message from now on; with None once, when the supervisor
        is gone or talks nonsense."""
        threading.Thread(target=self._read, args=(heard,), name="from-supervisor", daemon=True).start()

    def send(self, message: ToSupervisor) -> None:
        """Say something; returns at once. Progress is dropped while nobody listens."""
        if isinstance(message, Progress) and self._unsent.qsize() > _UNSENT_MAX:
            return
        self._unsent.put(message)

    def flush(self) -> None:
        """Wait until everything is said, or for some seconds."""
        said = threading.Event()
        self._unsent.put(said)
        said.wait(_FLUSH_S)

    def _read(self, heard: Callable[[ToWorker | None], None]) -> None:
        while line := self._in.readline(MESSAGE_BYTES_MAX):
            try:
                message = decode_to_worker(line)
            except ProtocolError as error:
                sys.stderr.write(f"the supervisor said what is {error}\n")
                break
            heard(message)
        heard(None)

    def _write(self) -> None:
        gone = False
        message: ToSupervisor | threading.Event
        while True:
            try:
                message = self._unsent.get(timeout=BEAT_S)
            except queue.Empty:
                message = Alive()
            if isinstance(message, threading.Event):
                message.set()
            elif not gone:
                gone = not self._write_all(encode(message))

    def _write_all(self, line: bytes) -> bool:
        try:
            while line:
                line = line[os.write(self._out, line) :]
        except OSError:  # nobody reads any more; end of file on the other pipe says so too
            return False
        return True
