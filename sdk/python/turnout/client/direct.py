"""How a client reads in direct mode."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Direct:
    """A client that is a front of its own: it reads PostgreSQL without a hop. Needs turnout[direct].

    postgres: the database of the services, as a URL; a user who may only read the schema `serving` is enough.
    Where it refuses, opening the client is InvalidInput (POSTGRES_REFUSED), where the user lacks rights
    FailedPrecondition (POSTGRES_DENIED); that it is away is told by the reads.
    routes_file: where the last good routes are kept, so that a client that starts while the switcher is away can read;
    one for each process. None = nowhere. max_stale_active_s, max_stale_experiment_s: for how long it reads without
    the switcher, and for how long it then still follows a split.

    It holds a reader lease while it is open: every change of a route waits until it has followed, and a client that
    dies is waited for until its lease expires. Close it, and nothing waits.
    """

    postgres: str = field(repr=False)  # may hold a password
    routes_file: Path | None = None
    max_stale_active_s: float = 60.0
    max_stale_experiment_s: float = 15.0
