"""Plans to begin with. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.switcher.rollouts.plan import Plan, Step, StepKind
from services.switcher.statistics.decision import Plan as Judging
from turnout.routing import WHOLE

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0

_REPLAY: Final = Step(StepKind.REPLAY)
_COMPARE: Final = Step(StepKind.COMPARE)
_APPROVE: Final = Step(StepKind.APPROVE)
_ALL: Final = Step(StepKind.TRAFFIC, WHOLE)
_RETIRE: Final = Step(StepKind.RETIRE)


def _traffic(share: int, *, for_s: float = 0.0, within_s: float = 0.0, no_worse: bool = False) -> Step:
    return Step(StepKind.TRAFFIC, share, for_s, within_s, no_worse)


TEMPLATES: Final[Mapping[str, Plan]] = MappingProxyType(
    {
        # Each share proves itself for hours, and a person looks before all readers move and before the way back goes.
        "careful": Plan(
            (
                _REPLAY,
                _COMPARE,
                Step(StepKind.SHADOW, 1000, for_s=_HOUR),
                _traffic(100, for_s=_HOUR),
                _traffic(500, for_s=6 * _HOUR, within_s=3 * _DAY, no_worse=True),
                _traffic(2500, for_s=12 * _HOUR, within_s=3 * _DAY, no_worse=True),
                _APPROVE,
                _ALL,
                Step(StepKind.SOAK, for_s=2 * _DAY),
                _APPROVE,
                _RETIRE,
            ),
            Judging(margin=0.05),
        ),
        "normal": Plan(
            (
                _REPLAY,
                _COMPARE,
                _traffic(500, for_s=_HOUR),
                _traffic(2500, for_s=_HOUR, within_s=2 * _DAY, no_worse=True),
                _ALL,
                Step(StepKind.SOAK, for_s=_DAY),
                _RETIRE,
            )
        ),
        # Harm is watched for, its absence is not shown; the old version stays.
        "fast": Plan(
            (
                _REPLAY,
                _COMPARE,
                _traffic(1000, for_s=10 * _MINUTE),
                _ALL,
                Step(StepKind.SOAK, for_s=_HOUR),
            ),
            window_s=10 * _MINUTE,
        ),
    }
)
"""By name."""
