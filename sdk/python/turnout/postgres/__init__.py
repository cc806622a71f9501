"""PostgreSQL for whoever reads or writes it: connections, named queries, and what "away" means. Needs asyncpg."""

from turnout.postgres.away import is_away, postgres_errors
from turnout.postgres.pool import Connection, Pool, connect, open_pool
from turnout.postgres.queries import Queries, load_queries
from turnout.postgres.refusal import refusal

__all__ = [
    "Connection",
    "Pool",
    "Queries",
    "connect",
    "is_away",
    "load_queries",
    "open_pool",
    "postgres_errors",
    "refusal",
]
