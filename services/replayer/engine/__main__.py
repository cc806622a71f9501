"""`python -m services.replayer.engine`: a worker process, driven over its standard streams (see protocol.py)."""

import asyncio
import contextlib
import logging
import os
import sys
import traceback

import uvloop

from core.garbage import pass_over_what_stands
from services.replayer.engine.control import Control
from services.replayer.engine.faults import RunFaultError
from services.replayer.engine.load import load_job
from services.replayer.engine.streams import Supervisor
from services.replayer.engine.watchdog import Watchdog
from services.replayer.engine.worker import Worker
from services.replayer.protocol import (
    EXIT_FAULT,
    STOP_WITHIN_S,
    Fault,
    ProtocolError,
    Ready,
    Start,
    Stopped,
    ToWorker,
)

EXIT_PROTOCOL = 2

# Batches are many small tuples without cycles, through which the collector would walk in vain. It still runs, as a
# job's own code may make cycles.
BATCHES = (500_000, 20, 100)


def main() -> int:
    """The worker's life; returns its exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    supervisor = Supervisor()
    try:
        start = supervisor.start()
    except ProtocolError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_PROTOCOL
    try:
        uvloop.run(_run(start, supervisor))
    except RunFaultError as error:
        return _fail(supervisor, error.fault)
    except Exception as error:
        traceback.print_exc()
        return _fail(
            supervisor,
            Fault(
                reason="INTERNAL",
                message=f"The worker met an error of its own: {type(error).__name__}: {error}. Its log "
                f"has the details; please report it, then resume the run.",
            ),
        )
    supervisor.send(Stopped())
    supervisor.flush()
    return 0


async def _run(start: Start, supervisor: Supervisor) -> None:
    job = load_job(start.artifact_dir, start.definition_json)
    pass_over_what_stands(BATCHES)
    loop = asyncio.get_running_loop()
    control = Control(start, supervisor.send, supervisor.flush)
    supervisor.listen(lambda message: _post(loop, control, message))
    watchdog = Watchdog(start.transform_limit_s, lambda error: os._exit(_fail(supervisor, error.fault)))
    watchdog.start()
    supervisor.send(Ready())
    reports = asyncio.create_task(control.report_regularly())
    work = asyncio.create_task(Worker(start, job, control, watchdog).run())
    stopped = asyncio.create_task(control.stopped.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({work}, timeout=STOP_WITHIN_S)
        if not work.done():
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        control.report_now()
    finally:
        reports.cancel()
        stopped.cancel()


def _post(loop: asyncio.AbstractEventLoop, control: Control, message: ToWorker | None) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
        loop.call_soon_threadsafe(control.heard, message)


def _fail(supervisor: Supervisor, fault: Fault) -> int:
    supervisor.send(fault)
    supervisor.flush()
    return EXIT_FAULT


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # at once: threads that wait for the supervisor, or a job's own, hold nothing up
