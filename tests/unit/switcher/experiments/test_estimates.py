"""Estimates are stratified: a change of traffic is no effect of the code."""

import pytest

from services.switcher.experiments import estimates
from services.switcher.experiments.conclude import ArmTally, EpochTally
from tests.unit.switcher.experiments.made import tally


def test_changing_weights_do_not_look_like_an_effect() -> None:
    # Both arms err alike, 1 % in a quiet epoch and 20 % in a bad one, in which the candidate had most units.
    epochs = (
        EpochTally(2, (9000, 1000), (tally(9000, 90), tally(1000, 10))),
        EpochTally(3, (1000, 9000), (tally(1000, 200), tally(9000, 1800))),
    )
    control, candidate = (estimates.rate(epochs, place, lambda arm: arm.errors) for place in (0, 1))
    assert control is not None
    assert candidate is not None
    assert control.value == pytest.approx(candidate.value) == pytest.approx(0.105)
    assert control.low < 0.105 < control.high


def test_none_of_ten_may_still_be_some() -> None:
    found = estimates.rate((EpochTally(2, (1, 1), (tally(10), tally(10))),), 0, lambda arm: arm.errors)
    assert found is not None
    assert found.value == found.low == 0.0
    assert found.high > 0.05


def test_without_complete_windows_there_is_no_estimate() -> None:
    epochs = (EpochTally(2, (1, 1), (ArmTally(units=5, harms=(0,)), tally(10))),)
    assert estimates.rate(epochs, 0, lambda arm: arm.errors) is None
    assert estimates.mean((), 0) is None


def test_a_mean_has_the_error_of_its_sample() -> None:
    arm = ArmTally(4, 4, 0, 0, 10.0, 30.0, (0,))  # 1, 2, 3, 4
    found = estimates.mean((EpochTally(2, (1, 1), (arm, arm)),), 0)
    assert found is not None
    assert found.value == 2.5
    assert found.high - found.value == pytest.approx(1.959964 * (5 / 3 / 4) ** 0.5)
