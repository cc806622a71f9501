"""Who is told which rights the user of the database lacks: whoever reads by it, or a front's operator."""

import logging
from collections.abc import Callable

from turnout.errors import FailedPrecondition
from turnout.reading.columns import Table
from turnout.reading.rights import denied, denied_at_a_front

log = logging.getLogger(__name__)

_LOGGED_MAX = 1000

Denial = Callable[[Table, str], FailedPrecondition]
"""The error of a read of the table, and what PostgreSQL said of it."""


def told_to_the_reader(table: Table, said: str) -> FailedPrecondition:
    """In direct mode the user of the database is the reader's own."""
    return denied(table.role, table.owner, f"the table of {table.version}", said)


class ToldToTheOperator:
    """At a front it is no reader's business who reads, and no reader could grant it anything: its log tells it, once
    for each table."""

    def __init__(self) -> None:
        self._logged: set[int] = set()

    def __call__(self, table: Table, said: str) -> FailedPrecondition:
        if table.relation not in self._logged:
            if len(self._logged) >= _LOGGED_MAX:
                self._logged.clear()
            self._logged.add(table.relation)
            log.error("%s", told_to_the_reader(table, said).message)
        return denied_at_a_front(str(table.version))
