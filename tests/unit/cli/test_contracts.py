"""Contracts from options and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.cli.contracts import contract_of
from turnout.cli.exits import CommandError
from turnout.contract import Contract, Expected, ExpectedColumn, Tolerance


def test_nothing_given_is_no_contract_and_same_is_one() -> None:
    assert contract_of(None, [], [], [], None) is None
    assert contract_of(None, [], [], [], None, same=True) == Contract()


def test_options() -> None:
    found = contract_of(
        None,
        ["on_time=20%", "only-old"],
        ["name", "only-new=1%"],
        ["share=0.01", "rate=5%"],
        "50%",
    )
    assert found == Contract(
        columns=(ExpectedColumn("on_time", Expected(0.2)), ExpectedColumn("name", Expected(None, True))),
        only_old=Expected(),
        only_new=Expected(0.01, True),
        share_max=0.5,
        tolerances=(Tolerance("share", 0.01), Tolerance("rate", relative=0.05)),
    )


def test_options_add_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "contract.toml"
    file.write_text("[columns.on_time]\nshare_max = 0.1\n[columns.name]\n[tolerances]\nshare = {absolute = 1.0}\n")
    found = contract_of(file, ["on_time"], [], ["share=2"], None)
    assert found == Contract(
        columns=(ExpectedColumn("on_time", Expected()), ExpectedColumn("name", Expected())),
        tolerances=(Tolerance("share", 2.0),),
    )


@pytest.mark.parametrize(
    ("expect", "tolerances", "share_max", "says"),
    [
        (["on_time=lots"], [], None, "--expect on_time=lots: 'lots' is no share"),
        ([""], [], None, "a column has no name"),
        ([], ["share"], None, "write COLUMN=BY"),
        ([], ["share=x"], None, "'x' is no number"),
        ([], ["share=0"], None, "allows nothing"),
        ([], [], "2", "--share-max 2: a share is 2"),
    ],
)
def test_options_that_make_no_sense(expect: list[str], tolerances: list[str], share_max: str | None, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        contract_of(None, expect, [], tolerances, share_max)


def test_a_file_that_makes_no_sense(tmp_path: Path) -> None:
    file = tmp_path / "contract.toml"
    file.write_text("x = 1")
    with pytest.raises(CommandError, match="toml: there is no 'x' in a contract"):
        contract_of(file, [], [], [], None)
    with pytest.raises(CommandError, match="--same says that nothing may differ"):
        contract_of(file, [], [], [], None, same=True)
    file.write_text("columms = {}")
    with pytest.raises(CommandError, match=r"there is no 'columms' in a contract \(did you mean columns\?\)"):
        contract_of(file, [], [], [], None)
