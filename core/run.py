"""A services process from start to drain."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Mapping

import asyncpg
import uvloop

from core import config
from core.config import POSTGRES_VARIABLE, Settings
from core.domain.errors import InvalidInput, TurnoutError
from core.postgres import connect, is_away
from core.rpc.server import RpcServer, ServiceApp
from turnout import otlp

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
        return uvloop.run(_serve(names, settings, builders))
    except TurnoutError as error:
        print(error.message, file=sys.stderr)
        return 2


async def await_postgres(settings: Settings) -> None:
    """Wait while PostgreSQL is away: services and database often start together.

    InvalidInput (POSTGRES_REFUSED) when it refuses, or when the setting is no URL.
    """
    told = False
    while True:
        try:
            connection = await connect(settings.postgres, application_name="turnout start")
        except Exception as error:
            fault = _fault(error)
            if fault is not None:
                raise InvalidInput("POSTGRES_REFUSED", fault) from None
            if not told:
                log.warning(
                    "PostgreSQL at %s does not answer yet (%s); waiting for it", POSTGRES_VARIABLE, type(error).__name__
                )
                told = True
            await asyncio.sleep(_POSTGRES_RETRY_S)
        else:
            await connection.close()
            return


def _fault(error: Exception) -> str | None:
    """What is wrong with the setting, for a person; None = PostgreSQL is only away.

    Never in the words of the error: a password with a "/" or "#" in it splits the URL elsewhere, and then the driver
    and the server quote pieces of it as a port, a host, or the name of a database.
    """
    # An invalid URL first: the driver raises it as an error of its interface, too.
    if isinstance(error, ValueError):
        return (
            f"{POSTGRES_VARIABLE} is not the URL of a PostgreSQL database. Write "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and inside user and password %2F for /, %23 for #, "
            "%3F for ?, %40 for @, %25 for %."
        )
    if is_away(error):
        return None
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        kind = "it does not accept the user or the password"
    elif isinstance(error, asyncpg.InvalidCatalogNameError):
        kind = "it has no such database"
    else:
        kind = f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}".rstrip()
    return f"PostgreSQL refuses the connection: {kind}. Check {POSTGRES_VARIABLE}."


async def _serve(names: list[str], settings: Settings, builders: Mapping[str, Build]) -> int:
    flush_spans = otlp.export_spans("turnout" if len(names) > 1 else f"turnout-{names[0]}")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not settings.listen.startswith(("127.0.0.1:", "localhost:", "[::1]:", "unix:")):
        log.warning("%s is open to others, and there is no authentication yet: protect it", settings.listen)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await await_postgres(settings)
    server = RpcServer(settings.listen, [builders[name](settings) for name in names])
    try:
        port = await server.start()
        log.info("%s listening on %s (port %d)", ", ".join(names), settings.listen, port)
        await stopping.wait()
        log.info("stopping")
    finally:
        await server.stop()
        await asyncio.to_thread(flush_spans)
    return 0
