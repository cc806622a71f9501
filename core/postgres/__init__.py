"""PostgreSQL for every service: pool, migrations, named queries, notifications, and what "away" means."""

from core.postgres.away import is_away, postgres_errors
from core.postgres.listen import Listener
from core.postgres.migrations import migrate
from core.postgres.pool import Connection, Pool, connect, open_pool
from core.postgres.queries import Queries, load_queries
from core.postgres.refusal import refusal

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
