"""A services process from start to drain."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import uvloop

from core import config
from core.config import POSTGRES_VARIABLE, Settings
from core.garbage import SERVING, pass_over_what_stands
from core.postgres import connect, refusal
from core.processes import REFUSED, supervise
from core.rpc.server import RpcServer, ServiceApp
from turnout import otlp
from turnout.errors import InvalidInput, TurnoutError

log = logging.getLogger(__name__)

_POSTGRES_RETRY_S = 0.5

Build = Callable[[Settings], ServiceApp]


def main(builders: Mapping[str, Build], arguments: list[str]) -> int:
    """Run the named services until SIGTERM or SIGINT; the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # Clients log every reconnect as an error; the services say themselves what is away.
    for noisy in ("aiokafka", "confluent_kafka"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        names, settings = config.parse(arguments)
        if settings.query_processes > 1 and not settings.process:
            return asyncio.run(supervise(arguments, settings.query_processes, settings.listen))
        return uvloop.run(_serve(names, settings, builders))
    except TurnoutError as error:
        print(error.message, file=sys.stderr)
        return REFUSED


async def await_postgres(settings: Settings) -> None:
    """Wait while PostgreSQL is away: services and database often start together.

    InvalidInput (POSTGRES_REFUSED) when it refuses, or when the setting is no URL.
    """
    told = False
    while True:
        try:
            connection = await connect(settings.postgres, application_name="turnout start")
        except Exception as error:
            why = refusal(error)
            if why is not None:
                raise InvalidInput("POSTGRES_REFUSED", f"PostgreSQL {why}. Check {POSTGRES_VARIABLE}.") from None
            if not told:
                log.warning(
                    "PostgreSQL at %s does not answer yet (%s); waiting for it", POSTGRES_VARIABLE, type(error).__name__
                )
                told = True
            await asyncio.sleep(_POSTGRES_RETRY_S)
        else:
            await connection.close()
            return


async def _serve(names: list[str], settings: Settings, builders: Mapping[str, Build]) -> int:
    service = "turnout" if len(names) > 1 else f"turnout-{names[0]}"
    flush_spans, flush_metrics = otlp.export_spans(service), otlp.export_metrics(service)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not settings.listen.startswith(("127.0.0.1:", "localhost:", "[::1]:", "unix:")):
        log.warning("%s is open to others, and there is no authentication yet: protect it", settings.listen)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if settings.process:
        _stop_with_supervisor(stopping)
    if not await _unless(stopping, await_postgres(settings)):
        return 0
    server = RpcServer(settings.listen, [builders[name](settings) for name in names], shared_port=settings.process > 0)
    try:
        port = await server.start()
        pass_over_what_stands(SERVING)
        which = f" as process {settings.process}" if settings.process else ""
        log.info("%s listening on %s (port %d)%s", ", ".join(names), settings.listen, port, which)
        await stopping.wait()
        log.info("stopping")
    finally:
        # The last figures are asked of services that are still there; a collector that is away holds nothing up.
        await asyncio.gather(server.stop(), asyncio.to_thread(flush_metrics))
        await asyncio.to_thread(flush_spans)
    return 0


def _stop_with_supervisor(stopping: asyncio.Event) -> None:
    """Set the event when the supervisor of this process is gone: its end of our input is closed then."""
    loop, supervisor = asyncio.get_running_loop(), sys.stdin.fileno()

    def gone() -> None:
        loop.remove_reader(supervisor)
        stopping.set()

    loop.add_reader(supervisor, gone)


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work ended before somebody asked to stop; it is given up then, and raises what it raises."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait([working])
        return False
    await working
    return True
