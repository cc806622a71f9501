"""Loads a fold's states: one query for all keys of a chunk that are not in memory."""

from collections.abc import Hashable, Sequence
from typing import Any

from services.replayer import ddl
from services.replayer.engine.faults import DataRefusedError, reason_of, refused_for_data
from services.replayer.engine.session import Session
from turnout.job.compiled import Change
from turnout.schema import JobDefinition


class StateLoader:
    """Reads rows as changes. On a connection beside the one that writes: keys that are being written are in memory."""

    def __init__(self, session: Session, definition: JobDefinition, table: str) -> None:
        self._session = session
        self._positions = definition.key_positions
        self._query = ddl.load_states(definition, table)

    async def __call__(self, keys: Sequence[Hashable]) -> dict[Hashable, Change]:
        """The rows there are, by key. DataRefusedError if PostgreSQL can hold no such key."""
        single = len(self._positions) == 1
        columns: Any = zip(*keys, strict=True) if not single else [keys]
        try:
            with self._session.patience():
                rows = await self._session.connection.fetch(self._query, *map(list, columns))
        except Exception as error:
            if refused_for_data(error):
                raise DataRefusedError(reason_of(error)) from error
            raise
        found: dict[Hashable, Change] = {}
        for row in rows:
            change = tuple(row)
            key = change[self._positions[0]] if single else tuple(change[position] for position in self._positions)
            found[key] = change
        return found
