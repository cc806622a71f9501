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


def in_words(record: Record) -> str:
    """Why, in a sentence for people: of what somebody asked for, who asked for what; else that of the conclusion."""
    situation = record.situation
    if situation.asked is None:
        return record.conclusion.sentence
    who = record.actor or "Somebody"
    versions = [arm.version for arm in situation.spec.arms]
    weights = {version: weight for version, weight in zip(versions, situation.asked, strict=True) if weight}
    shares = ", ".join(f"v{version} {weight / 100:g} %" for version, weight in weights.items())
    if not situation.epochs:
        return f"{who} began with {shares}."
    if len(weights) > 1:
        return f"{who} moved the weights to {shares}."
    [version] = weights
    return f"{who} gave all the units to v{version}{', the control' if version == situation.spec.control else ''}."


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
