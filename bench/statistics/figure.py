"""One figure of the table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Random = np.random.Generator

PEEKS = 100
"""Looks of a naive test, and of those for which the goal names them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of experiments, or another figure, beside what it is to reach, what was promised and the naive test.

    nominal: the probability of error that the experiment was planned with; None = there is none.
    """

    name: str
    what: str
    value: float
    goal: float
    nominal: float | None = None
    naive: float | None = None
    experiments: int = 0  # that `value` is the share of; 0 = it is no share
    at_least: bool = False  # whether the goal is the least, not the most


def share_of(rounds: int, happens: Callable[[], bool]) -> float:
    """The share of rounds in which it happens."""
    return sum(happens() for _ in range(rounds)) / rounds
