"""What the benchmarks refuse before anything is started."""

import sys

import pytest

from bench.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["faults", "--rounds", "0"], "argument --rounds: is 0; it must be 1 or more"),
        (["faults", "--rounds", "-1"], "argument --rounds: is -1; it must be 1 or more"),
        (["faults", "--round", "-1"], "argument --round: is -1; it must be 0 or more"),
        (["tail", "--rate", "-5"], "argument --rate: is -5; it must be 1 or more"),
        (["tail", "--seconds", "nan"], "argument --seconds: is nan; it must be above 0"),
        (["statistics", "--rounds", "0"], "argument --rounds: is 0; it must be 1 or more"),
        (["interference", "--rounds", "0"], "argument --rounds: is 0; it must be 1 or more"),
        (["scan", "--rows", "0"], "argument --rows: is 0; it must be 1 or more"),
        (["growth", "--fronts", "0"], "argument --fronts: is 0; it must be 1 or more"),
        (["reads", "--seconds", "0"], "argument --seconds: is 0; it must be above 0"),
        (["replay", "--records", "0"], "argument --records: is 0; it must be 1 or more"),
    ],
)
def test_a_number_that_measures_nothing_is_refused(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_a_command_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "nonsense"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("nonsense is no command of the bench.")
