"""Flags and environment of a services process."""

import pytest

from core import config
from turnout.errors import InvalidInput


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.POSTGRES_VARIABLE, "postgresql://u:hush@127.0.0.1/db")


def test_no_name_means_all_four_here() -> None:
    names, settings = config.parse(["--kafka", "127.0.0.1:9092", "--listen", "127.0.0.1:7500"])
    assert names == list(config.SERVICES)
    assert {settings.registry_target, settings.replayer_target, settings.switcher_target} == {"127.0.0.1:7500"}


def test_a_service_alone_finds_the_others() -> None:
    names, settings = config.parse(["query", "--kafka", "k:1", "--switcher", "s:7400", "--registry", "r:7400"])
    assert names == ["query"]
    assert settings.registry_target == "r:7400"
    assert settings.switcher_target == "s:7400"


def test_only_a_replayer_needs_kafka(capsys: pytest.CaptureFixture[str]) -> None:
    _, settings = config.parse(["query", "--switcher", "s:7400", "--registry", "r:7400"])
    assert settings.kafka is None
    for refused in (["replayer", "--registry", "r:1", "--switcher", "s:1"], []):
        with pytest.raises(SystemExit):
            config.parse(refused)
        assert "give --kafka HOST:PORT or --kafka-config FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["replayer"], "--registry HOST:PORT and --switcher HOST:PORT"),
        (["replayer", "--switcher", "s:1"], "give --registry HOST:PORT"),
        (["registry", "switcher"], "give --replayer HOST:PORT"),
        (["query", "switcher", "--replayer", "r:1"], "give --registry HOST:PORT"),
    ],
)
def test_a_service_alone_must_be_told_of_those_it_calls(
    arguments: list[str], flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # One that took itself for the registry would join the others, and keep its share of their work waiting.
    with pytest.raises(SystemExit) as caught:
        config.parse([*arguments, "--kafka", "k:1"])
    assert caught.value.code == 2
    assert flags in capsys.readouterr().err


def test_only_the_front_has_several_processes_behind_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    alone = ["query", "--switcher", "s:7400", "--registry", "r:7400", "--kafka", "k:1", "--data-dir", "d"]
    _, settings = config.parse([*alone, "--query-processes", "4"])
    assert (settings.query_processes, settings.process, str(settings.data_dir)) == (4, 0, "d")
    _, third = config.parse([*alone, "--query-processes", "4", "--process", "3"])
    assert str(third.data_dir) == "d/process-3"
    for refused in (["--kafka", "k:1", "--query-processes", "2"], [*alone, "--query-processes", "0"]):
        with pytest.raises(SystemExit):
            config.parse(refused)
    said = capsys.readouterr().err
    assert "for the query service alone" in said
    assert "0 is not 1 or more" in said


def test_each_process_has_an_instance_of_its_own_and_shows_no_secret() -> None:
    _, one = config.parse(["--kafka", "k:1"])
    _, two = config.parse(["--kafka", "k:1"])
    assert one.instance != two.instance
    assert "hush" not in repr(one)


def test_without_a_database_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(config.POSTGRES_VARIABLE)
    with pytest.raises(InvalidInput, match="Set TURNOUT_POSTGRES"):
        config.parse(["--kafka", "k:1"])


@pytest.mark.parametrize("arguments", [[], ["nobody", "--kafka", "k:1"], ["--kafka", "k:1", "--run-lease-s", "0"]])
def test_wrong_usage_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        config.parse(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
