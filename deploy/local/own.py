"""One's own Kafka and PostgreSQL in place of the embedded ones: whether they answer, told without any password."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from core.kafka.properties import KafkaConfig
from core.postgres import connect, refusal
from deploy.local.errors import LocalStackError

_PROBE_TIMEOUT_S = 1.5
_POLL_S = 0.5
_POSTGRES_PORT = 5432


@dataclass(frozen=True)
class OwnPart:
    """A server that is not ours to start. `answers` raises LocalStackError where waiting would not help."""

    name: str
    place: str
    """Where it is, for a person: " at HOST:PORT", or nothing where only a piece of a secret could be shown."""
    answers: Callable[[], Awaitable[bool]]


def own_kafka(config: KafkaConfig) -> OwnPart:
    async def answers() -> bool:
        return await asyncio.to_thread(_kafka_answers, config)

    return OwnPart("Kafka", f" at {config.bootstrap}", answers)


def own_postgres(dsn: str) -> OwnPart:
    place = postgres_place(dsn)

    async def answers() -> bool:
        try:
            connection = await asyncio.wait_for(connect(dsn, application_name="turnout dev"), _PROBE_TIMEOUT_S)
        except Exception as error:
            why = refusal(error)
            if why is not None:
                raise LocalStackError(
                    f"PostgreSQL{place} {why}; check what --postgres or TURNOUT_POSTGRES says"
                ) from None
            return False
        await connection.close()
        return True

    return OwnPart("PostgreSQL", place, answers)


def postgres_place(dsn: str) -> str:
    """ " at HOST:PORT" of a connection string, or "" where the URL is not certain to be split in the right place.

    A password with an unescaped "/", "#" or "?" in it ends the URL's authority early: what then looks like a host and
    a port is the user and the start of the password. The "@" left behind in the rest gives it away.
    """
    try:
        url = urlsplit(dsn)
        port = url.port or _POSTGRES_PORT
    except ValueError:
        return ""
    if not url.hostname or "@" in url.path + url.query + url.fragment:
        return ""
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f" at {host}:{port}"


async def silent(parts: Sequence[OwnPart]) -> list[OwnPart]:
    """Those that do not answer now, asked all at once, within 1.5 s."""
    answers = await asyncio.gather(*(part.answers() for part in parts))
    return [part for part, answered in zip(parts, answers, strict=True) if not answered]


async def until_all_answer(
    waited_for: Sequence[OwnPart], tell: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Wait for those, without limit, and tell of each that has come. `check` runs in between and may raise."""
    while waited_for:
        check()
        await asyncio.sleep(_POLL_S)
        still = await silent(waited_for)
        for part in waited_for:
            if part not in still:
                tell(f"{part.name}{part.place} answers now.")
        waited_for = still


def _kafka_answers(config: KafkaConfig) -> bool:
    # A client of its own for each question: one that is kept waits longer and longer before it tries again.
    try:
        client = AdminClient(config.librdkafka())
    except KafkaException as error:
        raise LocalStackError(f"the Kafka client refuses its properties: {error.args[0].str()}") from None
    try:
        return len(client.list_topics(timeout=_PROBE_TIMEOUT_S).brokers) > 0
    except KafkaException:
        return False
