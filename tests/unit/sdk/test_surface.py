"""The public surface of the client as a snapshot: a change of it is meant, and seen in review."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import turnout
import turnout.client
import turnout.contract
import turnout.errors
import turnout.experiments
import turnout.log_range
import turnout.readiness
import turnout.results
import turnout.rollouts
import turnout.shadow
from turnout.client import Client, basis_points
from turnout.client.session import Session
from turnout.errors import InvalidInput, TurnoutError

SNAPSHOT = Path(__file__).with_name("surface.txt")


def surface() -> Iterator[str]:
    yield "turnout: " + ", ".join(sorted(turnout.__all__))
    yield "turnout.client: " + ", ".join(sorted(turnout.client.__all__))
    yield f"Client{inspect.signature(Client)}"
    for name, method in sorted(inspect.getmembers(Client, inspect.isfunction)):
        if not name.startswith("_"):
            kind = "async def" if inspect.iscoroutinefunction(method) else "def"
            yield f"Client: {kind} {name}{inspect.signature(method)}"
    for name, method in sorted(inspect.getmembers(Session, inspect.isfunction)):
        if not name.startswith("_"):
            kind = "async def" if inspect.iscoroutinefunction(method) else "def"
            yield f"Session: {kind} {name}{inspect.signature(method)}"
    for cls in _classes(turnout.errors):
        yield f"{cls.__name__}({', '.join(base.__name__ for base in cls.__bases__)})"
    modules = (
        turnout.contract,
        turnout.log_range,
        turnout.results,
        turnout.experiments,
        turnout.rollouts,
        turnout.shadow,
        turnout.readiness,
    )
    for cls in (cls for module in modules for cls in _classes(module)):
        if issubclass(cls, ValueError):
            yield f"{cls.__name__}({', '.join(base.__name__ for base in cls.__bases__)})"
        elif issubclass(cls, enum.Enum):
            yield f"{cls.__name__}: {', '.join(cls.__members__)}"
        else:
            yield f"{cls.__name__}: {', '.join(f'{name}: {kind}' for name, kind in _fields(cls))}"


def _fields(cls: type) -> list[tuple[str, object]]:
    if issubclass(cls, msgspec.Struct):
        return [(name, cls.__annotations__[name]) for name in cls.__struct_fields__]
    assert dataclasses.is_dataclass(cls)
    return [(field.name, field.type) for field in dataclasses.fields(cls)]


def _classes(module: ModuleType) -> list[type]:
    found = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__]
    return sorted((cls for cls in found if not cls.__name__.startswith("_")), key=lambda cls: cls.__name__)


def test_it_is_as_written_down() -> None:
    now = "\n".join(surface()) + "\n"
    assert now == SNAPSHOT.read_text(encoding="utf-8"), (
        f"The public surface has changed. If that is meant, write it down: python -m {__name__}"
    )


def test_every_method_says_what_it_does() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name
        if not name.startswith("_") and name != "session":  # which asks nobody
            assert "timeout_s" in inspect.signature(method).parameters, name


def test_results_are_frozen() -> None:
    modules = (turnout.results, turnout.experiments, turnout.rollouts, turnout.shadow)
    for cls in (cls for module in modules for cls in _classes(module)):
        if not issubclass(cls, enum.Enum):
            params = cls.__struct_config__ if issubclass(cls, msgspec.Struct) else cls.__dataclass_params__  # type: ignore[attr-defined]
            assert params.frozen, cls


def test_job_files_do_not_load_grpc() -> None:
    code = "import sys, turnout, turnout.loading, turnout.errors, turnout.results; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_client_loads_no_database_driver() -> None:
    code = "import sys, turnout.client, turnout.cli.app; sys.exit(bool({'asyncpg', 'mmh3'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_direct_mode_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "turnout.direct.reads", None)  # what an import of it finds
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(InvalidInput, match=r"install turnout\[direct\]"):
        async with Client(direct="postgresql://127.0.0.1:1/none"):
            pass


async def test_direct_mode_asks_for_the_services_that_it_calls() -> None:
    with pytest.raises(InvalidInput, match="no target for the registry"):
        async with Client(targets={"switcher": "127.0.0.1:1"}, direct="postgresql://127.0.0.1:1/none"):
            pass


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    assert turnout.errors.__doc__ is not None
    for cls in _classes(turnout.errors):
        if issubclass(cls, TurnoutError):
            assert cls.__name__ in turnout.errors.__doc__


@pytest.mark.parametrize(("percent", "points"), [(0, 0), (100, 10_000), (12.5, 1250), (0.01, 1), (33.33, 3333)])
def test_basis_points(percent: float, points: int) -> None:
    assert basis_points(percent) == points


@pytest.mark.parametrize("percent", [-1, 100.01, 0.001, float("nan"), float("inf")])
def test_no_basis_points(percent: float) -> None:
    with pytest.raises(InvalidInput, match="%"):
        basis_points(percent)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": "a:1", "targets": {"query": "b:1"}}, "not both"),
        ({"targets": {"querry": "b:1"}}, "querry"),
        ({"targets": {"query": []}}, "query has 0 targets"),
        ({"targets": {"registry": ["a:1", "b:1"]}}, "registry has 2 targets"),
        ({"timeout_s": 0}, "above 0"),
    ],
)
def test_a_client_that_makes_no_sense_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Client(**arguments)  # type: ignore[arg-type]  # that is the point


async def test_a_client_is_opened_first() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Client().get_job("a")
    async with Client(targets={"query": "127.0.0.1:1"}) as client:
        with pytest.raises(InvalidInput, match="no target for the registry"):
            await client.get_job("a")
        with pytest.raises(InvalidInput, match="not a job id"):
            await client.get("A", "key")
        with pytest.raises(InvalidInput, match="count from 1"):
            await client.get_run("a", 0)
        with pytest.raises(InvalidInput, match="empty"):
            await client.get("a", "key", unit="")
        with pytest.raises(InvalidInput, match="either a unit or a key"):
            await client.explain("a")
        with pytest.raises(InvalidInput, match="basis points"):
            await client.set_traffic("a", {1: 0.5})  # type: ignore[dict-item]  # that is the point


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(surface()) + "\n", encoding="utf-8")
