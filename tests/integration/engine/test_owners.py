"""Which backend is a worker's own: its name and its start say so, not its process id alone."""

from __future__ import annotations

from services.replayer.engine.session import IS_OWNERS, open_session, session_name
from tests.integration.engine.conftest import Make
from tests.integration.engine.test_aggregate import SALES
from tests.support.topics import Topics

LONG = "a-host-with-a-name-of-some-length.and-a-domain.example:punctuality-of-flights/v12/"
OTHERS = f"select count(*) from serving.positions p join pg_stat_activity a on {IS_OWNERS}"


def test_workers_of_a_long_host_name_have_different_names() -> None:
    names = {session_name(f"{LONG}{n}") for n in range(100)}
    assert len(names) == 100
    assert all(len(name.encode()) <= 63 and LONG[:20] in name for name in names)
    assert len(session_name("ä" * 80).encode()) <= 63


async def test_a_backend_is_the_owners_by_name_and_start(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    version = await make(SALES.format(topic=topic), [topic])
    session = await open_session(version.dsn, f"{LONG}1", 1.0)
    try:
        take = (
            "update serving.positions set owner = $1, owner_pid = pg_backend_pid(), "
            "lease_expires = clock_timestamp() + $2::text::interval"
        )
        await session.connection.execute(take, f"{LONG}1", "1 second")
        assert await session.connection.fetchval(OTHERS) == 1
        await session.connection.execute(take, f"{LONG}2", "1 second")  # the process id was a sibling's
        assert await session.connection.fetchval(OTHERS) == 0
        await session.connection.execute(take, f"{LONG}1", "-1 hour")  # it was an earlier backend's
        assert await session.connection.fetchval(OTHERS) == 0
    finally:
        session.connection.terminate()
