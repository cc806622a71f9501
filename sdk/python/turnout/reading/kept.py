"""Things made once of a value and kept beside it. Pure."""

from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

T = TypeVar("T")

KEPT_MAX: Final = 64


class Kept:
    """What was made of a value, by name, for as long as the value lives. Forgets all when it is too much."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def __call__(self, name: Hashable, make: Callable[[], T]) -> T:
        """What `make` made the first time under that name."""
        made: T | None = self._made.get(name)
        if made is None:
            if len(self._made) >= KEPT_MAX:
                self._made.clear()
            made = self._made[name] = make()
        return made
