"""Decision records: a conclusion with everything that it rests on, so that anybody can draw it again. Pure."""

from typing import Final

import msgspec

from services.switcher.experiments.conclude import Conclusion, Situation, conclude

RULES: Final = 3
"""Number of the rules. It grows with every change that may conclude otherwise from the same situation."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conclusion, what it rests on, who drew it and why."""

    rules: int
    experiment: str
    actor: str  # the switcher itself, or whom a person claims to be
    reason: str  # of that person
    situation: Situation
    conclusion: Conclusion


class RulesChangedError(Exception):
    """The record was made by other rules than these; recomputing it would prove nothing."""


_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def recorded(experiment: str, actor: str, reason: str, situation: Situation) -> Record:
    """The record of what follows from a situation."""
    return Record(RULES, experiment, actor, reason, situation, conclude(situation))


def encode(record: Record) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode(record: bytes) -> Record:
    """A record from JSON. msgspec.ValidationError when it is none."""
    return _decoder.decode(record)


def refuse_other_rules(made_by: int, ours: int) -> None:
    """RulesChangedError when other rules than ours made a record."""
    if made_by != ours:
        raise RulesChangedError(
            f"The record was made by rules {made_by}, these are rules {ours}: recompute it with the release that "
            "made it."
        )


def recomputed(record: bytes) -> bytes:
    """The record that these rules make of the situation in a record. RulesChangedError when other rules made it."""
    stored = decode(record)
    refuse_other_rules(stored.rules, RULES)
    return encode(recorded(stored.experiment, stored.actor, stored.reason, stored.situation))
