"""Between the messages of a shadow's counts and the values."""

from turnout.shadow import ShadowCounts
from turnout.switcher.v1 import shadow_pb2

NUMBERS = (
    "compared",
    "equal",
    "only_candidate_differs",
    "only_active_differs",
    "active_differs",
    "only_active",
    "only_candidate",
)
"""Names of the counts that are one number, here and in the message."""


def counts_of(message: shadow_pb2.ShadowCounts) -> ShadowCounts:
    """The counts of a message."""
    numbers = {name: getattr(message, name) for name in NUMBERS}
    return ShadowCounts(**numbers, columns=dict(message.columns), left_out=dict(message.left_out))


def counts_message(counts: ShadowCounts) -> shadow_pb2.ShadowCounts:
    """The message of counts."""
    numbers = {name: getattr(counts, name) for name in NUMBERS}
    return shadow_pb2.ShadowCounts(**numbers, columns=counts.columns, left_out=counts.left_out)
