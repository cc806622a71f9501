"""Pages of a list: sizes, and opaque tokens that say where the next page begins."""

import base64
import json
from collections.abc import Callable
from typing import TypeVar

from turnout.errors import InvalidInput

T = TypeVar("T")

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000


def page_size(asked: int) -> int:
    """Items of a page: 0 = the default, too many = the maximum. InvalidInput when negative."""
    if asked < 0:
        raise InvalidInput("INVALID_PAGE_SIZE", f"page_size is {asked}; use 0 for the default or a positive number.")
    return min(asked or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def to_token(collection: str, after: str) -> str:
    """The token of the page that begins behind the item `after` of this collection."""
    return base64.urlsafe_b64encode(json.dumps([collection, after]).encode()).decode()


def page_of(found: list[T], size: int, collection: str, key: Callable[[T], object]) -> tuple[list[T], str]:
    """What fits on a page of what was found, asked for one more than that, and the token of the next page ("" = there
    is none). key: of an item, which `from_token` will give back as text."""
    if len(found) <= size:
        return found, ""
    return found[:size], to_token(collection, str(key(found[size - 1])))


def from_token(token: str, collection: str) -> str | None:
    """The item behind which the page begins; None = the first page. InvalidInput for a token of something else."""
    if not token:
        return None
    try:
        found = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except ValueError:
        found = None
    match found:
        case [stored, str(after)] if stored == collection:
            return after
    raise InvalidInput(
        "INVALID_PAGE_TOKEN", "page_token is not one that this list gave out; leave it out to begin again."
    )
