"""What a figure of a benchmark is to reach, and whether it did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.workload import say


@dataclass(frozen=True, slots=True)
class Goal:
    """The least or the most that a figure is to be."""

    bound: float
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Whether the value is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}"


def at_most(bound: float) -> Goal:
    """A figure that is to stay below."""
    return Goal(bound, at_least=False)


def missed(answer: Mapping[str, Any], goals: Mapping[str, Goal]) -> list[str]:
    """A line for each figure that was measured and is not good enough; None = was not measured."""
    return [
        f"{name} is {answer[name]:g}, and is to be {goal}"
        for name, goal in goals.items()
        if answer.get(name) is not None and not goal.reached(answer[name])
    ]


def status(answer: Mapping[str, Any], goals: Mapping[str, Goal]) -> int:
    """Say what was missed; the exit status of the command, 0 when nothing was."""
    lines = missed(answer, goals)
    for line in lines:
        say(f"not reached: {line}")
    return 1 if lines else 0
