"""Where the services and Kafka are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from turnout.addresses import DEFAULT_TARGET
from turnout.cli.exits import CommandError, ExitCode
from turnout.cli.targets import SERVICES, kafka, targets


def _dev(folder: Path, **changed: object) -> Path:
    file = folder / ".turnout" / "dev.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"target": "127.0.0.1:7411", "kafka": "127.0.0.1:9411", "kafka_config": None} | changed))
    return file


def _all(address: str) -> dict[str, str]:
    return dict.fromkeys(SERVICES, address)


def test_option_then_variable_then_dev_stack_then_default(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert targets((), {}, below) == _all(DEFAULT_TARGET)
    _dev(tmp_path)
    assert targets((), {}, below) == _all("127.0.0.1:7411")
    environment = {"TURNOUT_TARGET": "10.0.0.1:1"}
    assert targets((), environment, below) == _all("10.0.0.1:1")
    assert targets(("10.0.0.2:2",), environment, below) == _all("10.0.0.2:2")


def test_the_nearest_dev_stack_counts(tmp_path: Path) -> None:
    _dev(tmp_path)
    below = tmp_path / "a"
    _dev(below, target="127.0.0.1:7422")
    assert targets((), {}, below) == _all("127.0.0.1:7422")


def _stopped(folder: Path, pid: object) -> None:
    (folder / ".turnout").mkdir(parents=True)
    (folder / ".turnout" / "stack.lock").write_text(f"{pid}\n")


def _ended() -> int:
    """The id of a process that is no more."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


@pytest.mark.parametrize("pid", ["", "nonsense", "-1", "0", "ended"])
def test_a_stack_that_does_not_run_is_not_passed_over_for_somebody_elses(pid: str, tmp_path: Path) -> None:
    """Neither for one of a folder above, nor for the default address."""
    _dev(tmp_path)
    folder = tmp_path / "mine"
    _stopped(folder, _ended() if pid == "ended" else pid)
    below = folder / "a"
    below.mkdir()
    for asked in (lambda: targets((), {}, below), lambda: kafka("", None, {}, below)):
        with pytest.raises(CommandError, match=f"The stack of {re.escape(str(folder))}, .* does not run") as caught:
            asked()
        assert (caught.value.code, caught.value.reason) == (ExitCode.UNAVAILABLE, "DEV_STACK_DOWN")
        assert f"`turnout dev` in {folder}" in caught.value.next_step
    with pytest.raises(CommandError, match="does not run"):
        targets(("query=h:1",), {}, below)
    assert targets(("h:1",), {}, below) == _all("h:1")
    assert targets((), {"TURNOUT_TARGET": "h:2"}, below) == _all("h:2")
    assert kafka("k:1", None, {}, below).brokers == "k:1"


def test_a_stack_that_is_starting(tmp_path: Path) -> None:
    _stopped(tmp_path, os.getpid())
    with pytest.raises(CommandError, match="is starting or stopping") as caught:
        targets((), {}, tmp_path)
    assert "once `turnout dev` says that Turnout is ready" in caught.value.next_step


def test_a_stack_that_was_killed_left_its_file_behind(tmp_path: Path) -> None:
    _dev(tmp_path, pids={"stack": _ended()})
    with pytest.raises(CommandError, match="does not run"):
        targets((), {}, tmp_path)


def test_a_stack_that_runs(tmp_path: Path) -> None:
    _dev(tmp_path, pids={"stack": os.getpid()})
    (tmp_path / ".turnout" / "stack.lock").write_text(f"{os.getpid()}\n")
    assert targets((), {}, tmp_path) == _all("127.0.0.1:7411")


def test_a_folder_that_merely_holds_results_is_no_stack(tmp_path: Path) -> None:
    (tmp_path / ".turnout" / "demo").mkdir(parents=True)
    (tmp_path / ".turnout" / "demo.json").write_text("{}")
    assert targets((), {}, tmp_path) == _all(DEFAULT_TARGET)


def test_single_services(tmp_path: Path) -> None:
    found = targets(("h:1", "query=q:2"), {}, tmp_path)
    assert found == {**_all("h:1"), "query": "q:2"}
    assert targets((), {"TURNOUT_TARGET": "registry=a:1, replayer=b:2,switcher=c:3,query=d:4"}, tmp_path) == {
        "registry": "a:1",
        "replayer": "b:2",
        "switcher": "c:3",
        "query": "d:4",
    }


def test_services_that_one_source_does_not_name_are_looked_for_in_the_next(tmp_path: Path) -> None:
    assert targets(("query=q:1",), {}, tmp_path) == {**_all(DEFAULT_TARGET), "query": "q:1"}
    _dev(tmp_path)
    assert targets(("query=q:1",), {}, tmp_path) == {**_all("127.0.0.1:7411"), "query": "q:1"}
    environment = {"TURNOUT_TARGET": "registry=r:1,query=not:1"}
    assert targets(("query=q:1",), environment, tmp_path) == {
        **_all("127.0.0.1:7411"),
        "registry": "r:1",
        "query": "q:1",
    }
    assert targets(("query=q:1",), {"TURNOUT_TARGET": "h:1"}, tmp_path) == {**_all("h:1"), "query": "q:1"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("localhost", "is not an address"),
        (":7400", "is not an address"),
        ("h:0", "is not an address"),
        ("h:65536", "is not an address"),
        ("h:x", "is not an address"),
        ("regisrty=h:1", "did you mean registry"),
    ],
)
def test_what_is_no_target(option: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        targets((option,), {}, tmp_path)
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"target": 1}', '{"target": "h:1", "pids": []}', "nonsense"])
def test_a_dev_file_that_is_none(text: str, tmp_path: Path) -> None:
    _dev(tmp_path).write_text(text)
    with pytest.raises(CommandError, match="is not what `turnout dev` writes"):
        targets((), {}, tmp_path)


def test_kafka_option_then_variable_then_dev_stack(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nothing says where it is") as caught:
        kafka("", None, {}, tmp_path)
    assert "turnout dev" in caught.value.next_step
    _dev(tmp_path)
    assert kafka("", None, {}, tmp_path).properties == {"bootstrap.servers": "127.0.0.1:9411"}
    environment = {"TURNOUT_KAFKA": "k:1,k:2"}
    assert kafka("", None, environment, tmp_path).properties == {"bootstrap.servers": "k:1,k:2"}
    assert kafka("k:3", None, environment, tmp_path).properties == {"bootstrap.servers": "k:3"}


def test_kafka_by_a_file_of_properties(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("# ours\nbootstrap.servers = k:9092\n\nsasl.password=se=cret\n")
    client = kafka("", file, {}, tmp_path)
    assert client.properties == {"bootstrap.servers": "k:9092", "sasl.password": "se=cret"}
    assert "se=cret" not in repr(client)
    _dev(tmp_path, kafka=None, kafka_config=str(file))
    assert kafka("", None, {}, tmp_path) == client
    with pytest.raises(CommandError, match="give one of them"):
        kafka("k:1", file, {}, tmp_path)
    for text, said in (("nonsense\n", "line 1 is not key=value"), ("a=b\n", "no bootstrap.servers")):
        file.write_text(text)
        with pytest.raises(CommandError, match=said):
            kafka("", file, {}, tmp_path)
