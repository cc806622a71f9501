"""What happens to a rollout, what it makes of that, and the record of both, so that anybody can draw it again. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from services.switcher.experiments.record import refuse_other_rules
from services.switcher.rollouts import commands
from services.switcher.rollouts.acts import Act, Done, Later, Overruled, Refused, Result, acted
from services.switcher.rollouts.rollout import Overruling, Rollout, Seen, advanced
from services.switcher.rollouts.verdicts import Finding

RULES: Final = 3
"""Number of the rules. It grows with every change that may decide otherwise on the same."""


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="LOOK"):
    """What gates and route say."""

    findings: tuple[Finding, ...]
    overruled: str
    overruling: Overruling = Overruling.CHANGED


class ActEnded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ACT"):
    """What became of an act. result: DONE, LATER, REFUSED or OVERRULED; why: of all but the first."""

    act: Act
    result: str
    why: str = ""


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="SAID"):
    """What a person said. verb: PAUSE, RESUME, PROMOTE or ABORT; place: of the step that PROMOTE names, from 0."""

    verb: str
    why: str  # in a sentence, with who said it
    place: int = 0


Happened = Look | ActEnded | Said


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rollout before and after something happened, who made it happen and why."""

    rules: int
    rollout: str  # its name
    actor: str  # the switcher itself, or whom a person claims to be
    reason: str  # of that person
    now: datetime
    before: Rollout
    happened: Happened
    after: Rollout


_rollout_decoder: msgspec.json.Decoder[Rollout] = msgspec.json.Decoder(Rollout)
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_VERBS: Final[dict[str, Callable[[Rollout, str, datetime], Rollout]]] = {
    "PAUSE": commands.pause,
    "RESUME": commands.resume,
    "ABORT": commands.abort,
}


def ended(act: Act, result: Result) -> ActEnded:
    """What became of the act."""
    match result:
        case Done():
            return ActEnded(act, "DONE")
        case Later(why):
            return ActEnded(act, "LATER", why)
        case Refused(why):
            return ActEnded(act, "REFUSED", why)
        case Overruled(why):
            return ActEnded(act, "OVERRULED", why)


def follows(before: Rollout, happened: Happened, now: datetime) -> Rollout:
    """The rollout after something happened. The errors of a verb are those of `commands`."""
    match happened:
        case Look(findings, overruled, overruling):
            return advanced(before, Seen(findings, overruled, overruling), now)
        case ActEnded(act, result, why):
            return acted(before, act, _result(result, why), now)
        case Said("PROMOTE", why, place):
            return commands.promote(before, place, why, now)
        case Said(verb, why):
            return _VERBS[verb](before, why, now)


def _result(result: str, why: str) -> Result:
    match result:
        case "DONE":
            return Done()
        case "LATER":
            return Later(why)
        case "OVERRULED":
            return Overruled(why)
        case _:
            return Refused(why)


def decides(before: Rollout, after: Rollout) -> bool:
    """Whether more has changed than the time of watching, the words for what is waited for, another try, and a freeze
    that follows too soon on one that is on record."""
    return _decided(before) != _decided(after)


def _decided(rollout: Rollout) -> Rollout:
    return msgspec.structs.replace(
        rollout,
        watched_s=0.0,
        unread_s=0.0,
        watched_at=None,
        waits_for="",
        frozen="",
        freezes=0,
        attempt=0,
        taken_back=False,
    )


def recorded(rollout: str, actor: str, reason: str, now: datetime, before: Rollout, happened: Happened) -> Record:
    """The record of what follows."""
    return Record(RULES, rollout, actor, reason, now, before, happened, follows(before, happened, now))


def sentence(before: Rollout, after: Rollout) -> str:
    """Why the rollout has come from the one to the other."""
    if after.why != before.why:
        return after.why
    if after.frozen and not before.frozen:
        how_often = f", {after.freezes} times in this step by now" if after.freezes > 1 else ""
        return f"Frozen{how_often}: {after.frozen}"
    if before.frozen and not after.frozen:
        return "No longer frozen: its gates answer."
    step = after.present
    done = f"{step.label} is taken, and watched." if step and after.phase is not before.phase else ""
    return done or after.waits_for or after.why


def action(happened: Happened) -> str:
    """What happened, in a word: LOOK, ACT, or the verb of a person."""
    match happened:
        case Look():
            return "LOOK"
        case ActEnded():
            return "ACT"
        case Said(verb):
            return verb


def encode(value: Record | Rollout) -> bytes:
    """As JSON."""
    return msgspec.json.encode(value)


def decode_rollout(text: bytes | str) -> Rollout:
    """The rollout that `encode` wrote."""
    return _rollout_decoder.decode(text)


def decode(record: bytes) -> Record:
    """A record from JSON. msgspec.ValidationError when it is none."""
    return _decoder.decode(record)


def recomputed(record: bytes) -> bytes:
    """The record that these rules make of what is in a record. RulesChangedError when other rules made it."""
    stored = decode(record)
    refuse_other_rules(stored.rules, RULES)
    return encode(recorded(stored.rollout, stored.actor, stored.reason, stored.now, stored.before, stored.happened))
