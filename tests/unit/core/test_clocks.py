"""What simulations cannot see: nothing that they run asks the machine's clock in a way that nobody can replace."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SIMULATED = ("core", "services/query", "services/registry", "services/switcher", "sdk/python/turnout/reading")
CLOCK = ROOT / "sdk/python/turnout/clock.py"
SOURCES = sorted(
    {*(path for folder in SIMULATED for path in (ROOT / folder).rglob("*.py")), *CLOCK.parent.glob("*.py")}
)
BY_NAME = {"time", "random", "secrets"}  # modules whose functions are asked through the module
UNSEEN = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
OF_NOW = {("time", "localtime"), ("time", "gmtime")}  # without an argument


def found(source: str) -> Iterator[str]:
    """Each place that simulations cannot see, by its line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module)) if module in BY_NAME:
                yield f"line {node.lineno}: from {module} import"
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
                if (owner, name) in UNSEEN:
                    yield f"line {node.lineno}: {owner}.{name}"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name), args=[]):
                if (owner, name) in OF_NOW:
                    yield f"line {node.lineno}: {owner}.{name}()"


def test_nothing_that_is_simulated_asks_the_machine_for_the_time_unseen() -> None:
    assert len(SOURCES) > 100
    asking = {path: list(found(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert asking.pop(CLOCK), "the one place"
    assert not {str(path.relative_to(ROOT)): places for path, places in asking.items() if places}


@pytest.mark.parametrize(
    "source",
    [
        *("datetime.now(UTC)", "datetime.datetime.utcnow()", "date.today()", "ask = datetime.now"),
        *(
            "time.localtime()",
            "from time import monotonic",
            "from random import Random",
            "from secrets import token_hex",
        ),
    ],
)
def test_each_way_to_ask_is_found(source: str) -> None:
    assert len(list(found(source))) == 1


@pytest.mark.parametrize("source", ["time.monotonic()", "time.gmtime(0)", "import random", "now()", "timer.now"])
def test_what_simulations_see_is_left_alone(source: str) -> None:
    assert not list(found(source))
