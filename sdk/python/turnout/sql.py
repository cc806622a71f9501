"""Names in SQL, and the schema `serving`, which the replayer writes and the fronts read. Pure."""

from typing import Final

SCHEMA: Final = "serving"
DELETED_COLUMN: Final = "_deleted"
"""A row in which this hidden column is true does not exist for readers."""


def quoted(identifier: str) -> str:
    """An identifier as SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def serving(relation: str) -> str:
    """A table or view of the schema `serving` as SQL."""
    return f"{SCHEMA}.{quoted(relation)}"


def is_hidden(column: str) -> bool:
    """Whether the column of an output table is kept from readers."""
    return column.startswith("_")
