"""PostgreSQL for every service: what `turnout.postgres` has for clients too, and migrations and notifications."""

from core.postgres.listen import Listener
from core.postgres.migrations import migrate
from turnout.postgres import (
    Connection,
    Pool,
    Queries,
    connect,
    is_away,
    load_queries,
    open_pool,
    postgres_errors,
    refusal,
)

__all__ = [
    "Connection",
    "Listener",
    "Pool",
    "Queries",
    "connect",
    "is_away",
    "load_queries",
    "migrate",
    "open_pool",
    "postgres_errors",
    "refusal",
]
