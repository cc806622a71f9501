"""What happened to a rollout can be drawn again from its record, to the byte."""

from collections.abc import Callable

import msgspec
import pytest

from services.switcher.experiments.record import RulesChangedError
from services.switcher.rollouts.acts import Done, Later, Overruled, Refused, Result, due
from services.switcher.rollouts.record import (
    RULES,
    Happened,
    Look,
    Record,
    Said,
    action,
    decides,
    decode_rollout,
    encode,
    ended,
    follows,
    recomputed,
    recorded,
    sentence,
)
from services.switcher.rollouts.rollout import NOTED_EVERY_S, Overruling, Rollout, State, asks
from services.switcher.rollouts.verdicts import GateVerdict
from tests.unit.switcher.rollouts.made import at, new, say
from turnout.errors import FailedPrecondition


def acting(rollout: Rollout, result: Result) -> Happened:
    act = due(rollout)
    assert act is not None
    return ended(act, result)


def step(rollout: Rollout, happened: Happened, seconds: float = 1.0) -> Rollout:
    """One thing further; its record can be drawn again."""
    record = recorded("jobs/flights/rollouts/r", "rollout", "", at(seconds), rollout, happened)
    assert recomputed(encode(record)) == encode(record)
    assert record.after == follows(rollout, happened, at(seconds))
    return record.after


NEW = decode_rollout(encode(new()))
"""As it is read from where it is kept."""
CLAIMED = step(NEW, acting(NEW, Done()))
WATCHING = step(CLAIMED, acting(CLAIMED, Done()))
"""The first step, which is watched."""


def look(rollout: Rollout, verdict: GateVerdict) -> Look:
    return Look(say(verdict, *asks(rollout)), "")


@pytest.mark.parametrize("verdict", GateVerdict)
def test_a_look_is_drawn_again(verdict: GateVerdict) -> None:
    step(WATCHING, look(WATCHING, verdict))
    step(WATCHING, Look((), "Somebody changed it."))


@pytest.mark.parametrize("overruling", Overruling)
def test_a_route_that_others_changed_is_drawn_again(overruling: Overruling) -> None:
    after = step(WATCHING, Look((), "Somebody changed it.", overruling))
    assert after.state is (State.ROLLING_BACK if overruling is Overruling.ROLLED_BACK else State.PAUSED)


def test_a_way_back_that_others_have_closed_is_drawn_again() -> None:
    aborted = step(WATCHING, Said("ABORT", "Enough."))
    assert step(aborted, acting(aborted, Overruled("But v2 stays."))).why == "Enough. But v2 stays."


@pytest.mark.parametrize("result", [Done(), Later("Not yet."), Refused("No.")])
def test_what_became_of_an_act_is_drawn_again(result: Result) -> None:
    step(NEW, acting(NEW, result))


@pytest.mark.parametrize("verb", ["PAUSE", "RESUME", "PROMOTE", "ABORT"])
def test_what_a_person_said_is_drawn_again(verb: str) -> None:
    said = Said(verb, "Somebody said so.", 0)
    after = step(WATCHING, said)
    assert action(said) == verb
    if after.state is not State.RUNNING:
        assert sentence(WATCHING, after) == "Somebody said so."


def test_a_verb_that_may_not_be_said_is_none() -> None:
    over = msgspec.structs.replace(WATCHING, state=State.SUCCEEDED)
    with pytest.raises(FailedPrecondition):
        follows(over, Said("PAUSE", "Somebody said so."), at(1))


def test_what_other_rules_decided_is_not_drawn_again() -> None:
    record = recorded("r", "", "", at(1), WATCHING, Said("ABORT", "No."))
    other: Record = msgspec.structs.replace(record, rules=RULES + 1)
    with pytest.raises(RulesChangedError, match=f"made by rules {RULES + 1}"):
        recomputed(encode(other))


def test_time_of_watching_and_other_words_for_the_same_decide_nothing() -> None:
    waiting = step(WATCHING, look(WATCHING, GateVerdict.WAIT))
    later = step(waiting, look(WATCHING, GateVerdict.WAIT), 5)
    assert later != waiting
    assert not decides(waiting, later)
    frozen = step(later, Look((), ""), 6)
    assert decides(later, frozen)
    assert sentence(later, frozen).startswith("Frozen: ")
    others: Callable[[str], Rollout] = lambda words: msgspec.structs.replace(frozen, frozen=words)  # noqa: E731
    assert not decides(frozen, others("The front is silent for 12 s."))
    assert sentence(frozen, later) == "No longer frozen: its gates answer."


def test_what_fails_and_answers_each_second_leaves_a_record_of_both_now_and_then() -> None:
    rollout, kept = WATCHING, list[tuple[int, str]]()
    for second in range(2 * int(NOTED_EVERY_S) + 10):
        seen = Look((), "") if second % 2 else look(rollout, GateVerdict.WAIT)
        before, rollout = rollout, step(rollout, seen, second)
        if decides(before, rollout):
            kept.append((second, sentence(before, rollout)))
    every = int(NOTED_EVERY_S)
    assert [second for second, _ in kept] == [1, 2, every + 1, every + 2, 2 * every + 1, 2 * every + 2]
    assert [told.partition(":")[0] for _, told in kept] == [
        "Frozen",
        "No longer frozen",
        f"Frozen, {every // 2 + 1} times in this step by now",
        "No longer frozen",
        f"Frozen, {every + 1} times in this step by now",
        "No longer frozen",
    ]


def test_the_first_freeze_of_each_step_is_on_record() -> None:
    frozen = step(WATCHING, Look((), ""), 1)
    thawed = step(frozen, look(WATCHING, GateVerdict.PASS), 2)
    assert thawed.step == WATCHING.step + 1
    later = step(thawed, acting(thawed, Done()), 3)
    assert decides(later, step(later, Look((), ""), 4))


def test_a_freeze_that_left_no_record_ends_without_one_and_a_pause_in_it_has_its_own() -> None:
    again = WATCHING
    for second in (1, 2, 3):
        again = step(again, Look((), "") if second % 2 else look(again, GateVerdict.WAIT), second)
    assert (bool(again.frozen), again.on_record) == (True, False)
    assert not decides(again, step(again, look(again, GateVerdict.WAIT), 4))
    assert decides(again, step(again, Said("PAUSE", "Somebody paused it."), 4))
