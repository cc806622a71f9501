"""Named SQL in one file: blocks headed `-- name: some_query`."""

import re
from pathlib import Path

_HEAD = re.compile(r"^-- name: ([a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)


class Queries:
    """The queries of a file as attributes; an unknown name fails at once and says what there is."""

    def __init__(self, path: Path, statements: dict[str, str]) -> None:
        self._path = path
        self._statements = statements

    def __getattr__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            known = ", ".join(sorted(self._statements))
            raise AttributeError(f"{self._path.name} has no query {name!r}; it has {known}.") from None


def load_queries(path: Path) -> Queries:
    """Read a file of named queries. ValueError when a name stands twice or nothing follows it."""
    parts = _HEAD.split(path.read_text(encoding="utf-8"))
    statements: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in statements:
            raise ValueError(f"{path}: the query {name!r} stands twice.")
        if not body.strip():
            raise ValueError(f"{path}: the query {name!r} is empty.")
        statements[name] = body.strip().rstrip(";")
    return Queries(path, statements)
