"""Small pieces that several views share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich.console import RenderableType
from rich.text import Text

from turnout.cli.printable import printable_on_one_line
from turnout.cli.quantities import percent

AWAY = "the switcher, which does not answer at present"
"""What something waits for that is watched while the switcher is away."""
_STATE_STYLES = {
    "TAILING": "green",
    "COMPLETED": "green",
    "MOVED": "green",
    "FAILED": "bold red",
    "PENDING": "yellow",
    "PAUSED": "yellow",
    "RETIRING": "yellow",
    "STOPPED": "dim",
    "RETIRED": "dim",
    "DROPPED": "dim",
}


def state(name: str) -> Text:
    """A state's name, in its colour."""
    return Text(name, style=_STATE_STYLES.get(name, ""))


def lines(sentences: Iterable[str]) -> list[RenderableType]:
    """Each sentence on a line of its own."""
    return [Text(sentence) for sentence in sentences]


def weights_text(weights: Mapping[int, int]) -> str:
    """`v1 90 %, v2 10 %`, versions without a share left out."""
    return ", ".join(f"v{version} {percent(share)}" for version, share in sorted(weights.items()) if share)


def value_text(value: object) -> str:
    """A value of a row, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e15 else repr(value)
    if isinstance(value, dict | list):
        return printable_on_one_line(msgspec.json.encode(value).decode())
    return printable_on_one_line(str(value))


COUNTS_CALLERS = (
    "Only reads that bring a unit are counted (`unit=` in the client, `turnout read --unit`); one that brings none "
    "gets the active version."
)


def named(resource: str) -> str:
    """`jobs/carrier-punctuality/rollouts/v2` -> `rollout v2`; any other text as it is."""
    parts = resource.split("/")
    return f"{parts[2].removesuffix('s')} {parts[3]}" if len(parts) == 4 and parts[0] == "jobs" else resource


def left_out(names: Sequence[str], command: str) -> Text:
    """That a picture on a low screen is not the whole one."""
    first, last = ", ".join(names[:-1]), names[-1]
    named = f"{first} and {last}" if first else last
    return Text(f"Left out for want of rows: {named}. `{command}` shows all.", style="dim")
