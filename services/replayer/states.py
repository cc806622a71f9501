"""The states of a run, and every way from one to another, in one table.

Theory of operation. A run's state is at the same time what is wanted of it: REPLAYING and TAILING want worker
processes, QUEUED wants none yet, PAUSED, STOPPED, FAILED and COMPLETED want none. The supervisor makes the processes
follow the state and never the other way round, so that a crash between the two leaves nothing to guess: whoever starts
next reads the state.

           start            admitted           caught up
    (none) -----> QUEUED ------------> REPLAYING ------------> TAILING
                    ^  \\                  |                      |
             resume |   +--- pause, stop, fault (from all three) +
                    |                      v
                    +-------- PAUSED / STOPPED / FAILED

    REPLAYING -- completed --> COMPLETED (of a bounded range)

Commands come from people and may be refused; a refused command raises and changes nothing. Events come from worker
processes, from measuring and from the budget of copies; they may arrive late (a worker's last line after a pause),
hence an event that has no row changes nothing and is no error.

A run of a bounded range is COMPLETED once all of it is in the table, which stays as it is from then on. That is the one
state without workers from which nothing leads on: there is nothing left to resume, pause or fail. To stop it changes
nothing, for what a retirement asks for is so already.

Resuming leads to QUEUED also for a run that has been at the end of the log before: the log went on without it, so it
copies until it is at the end again. No way leads back from REPLAYING to QUEUED: a copy under way goes on, whatever
becomes of the budget. A guard names what must be true besides: a table that was dropped is never
resumed, and a run does not tail or complete before the indexes of its table are built.
"""

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """Where a run is. The value is its name in the store and in the contract."""

    QUEUED = "QUEUED"  # accepted; waits for its place in the budget of copies
    REPLAYING = "REPLAYING"  # copying the retained log
    TAILING = "TAILING"  # at the end of the log, following it
    PAUSED = "PAUSED"  # stopped for a while by a person
    STOPPED = "STOPPED"  # ended; the table stays
    FAILED = "FAILED"  # ended by a fault that a person must mend
    COMPLETED = "COMPLETED"  # has read the whole bounded range of its version

    @property
    def wants_workers(self) -> bool:
        """Whether worker processes belong to a run in this state."""
        return self in (State.REPLAYING, State.TAILING)


class Command(enum.Enum):
    """What a person asks for; refused where the table has no row."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


class Event(enum.Enum):
    """What happened; ignored where the table has no row."""

    ADMITTED = "admitted"  # the budget of copies has a place for it
    CAUGHT_UP = "caught up"  # every partition is at the end of the log, within the allowed lag
    COMPLETED = "completed"  # every partition is at the end of the version's bounded range
    FAULT = "fault"  # something that does not heal by itself


class Guard(enum.Enum):
    """What must be true besides the state. The value says it to a person."""

    TABLE_EXISTS = "its table was dropped; start a new version instead"
    INDEXES_BUILT = "the indexes of its table are not built yet"


@dataclass(frozen=True, slots=True)
class Facts:
    """What guards look at."""

    table_exists: bool = True
    indexes_built: bool = True


class IllegalCommandError(Exception):
    """A command that the state of the run does not allow. The text says why."""


FIRST = State.QUEUED  # the state of a run that was just started

TRANSITIONS: dict[tuple[State, Command | Event], tuple[Guard | None, State]] = {
    (State.QUEUED, Event.ADMITTED): (None, State.REPLAYING),
    (State.QUEUED, Event.FAULT): (None, State.FAILED),
    (State.QUEUED, Command.PAUSE): (None, State.PAUSED),
    (State.QUEUED, Command.RESUME): (None, State.QUEUED),
    (State.QUEUED, Command.STOP): (None, State.STOPPED),
    (State.REPLAYING, Event.CAUGHT_UP): (Guard.INDEXES_BUILT, State.TAILING),
    (State.REPLAYING, Event.COMPLETED): (Guard.INDEXES_BUILT, State.COMPLETED),
    (State.REPLAYING, Event.FAULT): (None, State.FAILED),
    (State.REPLAYING, Command.PAUSE): (None, State.PAUSED),
    (State.REPLAYING, Command.RESUME): (None, State.REPLAYING),
    (State.REPLAYING, Command.STOP): (None, State.STOPPED),
    (State.TAILING, Event.FAULT): (None, State.FAILED),
    (State.TAILING, Command.PAUSE): (None, State.PAUSED),
    (State.TAILING, Command.RESUME): (None, State.TAILING),
    (State.TAILING, Command.STOP): (None, State.STOPPED),
    # A worker that is asked to pause may find a fault in its last batch; so may a check of the topic meanwhile.
    (State.PAUSED, Event.FAULT): (None, State.FAILED),
    (State.PAUSED, Command.PAUSE): (None, State.PAUSED),
    (State.PAUSED, Command.RESUME): (Guard.TABLE_EXISTS, State.QUEUED),
    (State.PAUSED, Command.STOP): (None, State.STOPPED),
    (State.STOPPED, Command.RESUME): (Guard.TABLE_EXISTS, State.QUEUED),
    (State.STOPPED, Command.STOP): (None, State.STOPPED),
    (State.FAILED, Command.RESUME): (Guard.TABLE_EXISTS, State.QUEUED),
    (State.FAILED, Command.STOP): (None, State.STOPPED),
    (State.COMPLETED, Command.STOP): (None, State.COMPLETED),
}


def after(state: State, happening: Command | Event, facts: Facts) -> State:
    """The state after a command or an event. IllegalCommandError for a command that is not allowed."""
    row = TRANSITIONS.get((state, happening))
    if row is None:
        if isinstance(happening, Event):
            return state
        raise IllegalCommandError(f"A run that is {state.value} cannot {happening.value}; {_remedy(state, facts)}.")
    guard, to = row
    if guard is not None and not _holds(guard, facts):
        if isinstance(happening, Event):
            return state
        raise IllegalCommandError(f"The run cannot {happening.value}: {guard.value}.")
    return to


def _holds(guard: Guard, facts: Facts) -> bool:
    return facts.table_exists if guard is Guard.TABLE_EXISTS else facts.indexes_built


def _remedy(state: State, facts: Facts) -> str:
    if not facts.table_exists:
        return Guard.TABLE_EXISTS.value
    if state is State.COMPLETED:
        return (
            "it has read the whole range of its version, and its table stays as it is. To read more, apply the job's "
            "file with another range as a new version"
        )
    return "resume it first" if state in (State.STOPPED, State.FAILED, State.PAUSED) else "pause or stop it first"
