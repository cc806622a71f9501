"""The life of a version: one table.

Theory of operation. A version is REGISTERED by CreateVersion and stays so until somebody retires it. While it is
RETIRING a saga (`retirement.py`) has calls to make: forwards, to release the version and stop its run, or backwards, to
reinstate it. RETIRED means released and stopped, with the table still there. DROPPED is final.

    REGISTERED --RETIRE--> RETIRING --RUN_STOPPED--> RETIRED --TABLE_DROPPED--> DROPPED
        ^                   |    ^                      |
        +-REFUSED,REINSTATED+    +-UNRETIRE-------------+
                                   RUN_NOT_STOPPED
"""

from enum import Enum

from turnout.errors import FailedPrecondition


class State(Enum):
    """Where a version is in its life; the names are those of the contract."""

    REGISTERED = "REGISTERED"
    RETIRING = "RETIRING"
    RETIRED = "RETIRED"
    DROPPED = "DROPPED"


class Event(Enum):
    """What happens to a version."""

    RETIRE = "RETIRE"  # somebody asks for the retirement
    REFUSED = "REFUSED"  # the switcher refuses to release it: nothing has changed
    RUN_STOPPED = "RUN_STOPPED"  # released and stopped
    RUN_NOT_STOPPED = "RUN_NOT_STOPPED"  # at its drop the run is found to go on
    TABLE_DROPPED = "TABLE_DROPPED"
    UNRETIRE = "UNRETIRE"  # somebody takes the retirement back
    REINSTATED = "REINSTATED"  # it may be named again


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.REGISTERED, Event.RETIRE): State.RETIRING,
    (State.RETIRING, Event.REFUSED): State.REGISTERED,
    (State.RETIRING, Event.RUN_STOPPED): State.RETIRED,
    (State.RETIRING, Event.UNRETIRE): State.RETIRING,
    (State.RETIRING, Event.REINSTATED): State.REGISTERED,
    (State.RETIRED, Event.UNRETIRE): State.RETIRING,
    (State.RETIRED, Event.RUN_NOT_STOPPED): State.RETIRING,
    (State.RETIRED, Event.TABLE_DROPPED): State.DROPPED,
}


def after(state: State, event: Event) -> State:
    """The state that follows; FailedPrecondition (ILLEGAL_TRANSITION) where the table has none, and nothing changes."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise FailedPrecondition(
            "ILLEGAL_TRANSITION", f"A version that is {state.value} cannot meet {event.value}."
        ) from None
