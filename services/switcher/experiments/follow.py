"""An experiment's state follows its route, in the transaction that commits the route.

What stands on the route is the truth: an experiment runs once its route is committed, each epoch of it is a stratum
with the weights of that moment, and whatever takes it off the route ends it. So there is no moment in which fronts
expose units to an experiment that does not count, whoever dies.
"""

import json
from typing import Any, Final

from services.switcher.experiments.conclude import Action
from services.switcher.experiments.rows import SQL, State
from services.switcher.records import ChangeRecord, CommandKind
from turnout.errors import Aborted
from turnout.routing import Route

_ACTIONS = {
    CommandKind.ABORT: (Action.ABORT, Action.END),
    CommandKind.STEP: (Action.STEP,),
    CommandKind.STOP_EXPERIMENT: (Action.ASKED,),
}
"""The decisions that a change carries out. Any other change of the route carries out none, whatever was decided."""


def carried_out_with(action: Action) -> tuple[Action, ...]:
    """The decisions that the same change carries out; all, of one that asks for no change."""
    return next((actions for actions in _ACTIONS.values() if action in actions), tuple(Action))


async def follow(connection: Any, before: Route | None, record: ChangeRecord) -> None:
    """Bring the experiments of the route before and after a change in step with it.

    Aborted (EXPERIMENT_FORGOTTEN) where one that is to start is not there any more: its start took too long.
    """
    after, at = record.route, record.commit_time
    was = before.experiment if before else None
    now = after.experiment
    if was is not None and (now is None or now.number != was.number):
        state = State.ROLLED_BACK if record.command is CommandKind.ABORT else State.STOPPED
        await connection.execute(SQL.finish, was.number, state.value, at, _reason(record))
    if now is not None:
        weights = json.dumps({arm.version: arm.weight for arm in after.arms})
        if (was is None or was.number != now.number) and not await connection.fetchval(SQL.start, now.number):
            raise Aborted(
                "EXPERIMENT_FORGOTTEN",
                f"{now.name} took so long to start that it was forgotten. Nothing has changed; start it again.",
            )
        await connection.execute(SQL.begin_epoch, now.number, after.epoch, weights, at)
    for one in {one.number for one in (was, now) if one is not None}:
        actions = [action.value for action in _ACTIONS.get(record.command, ())]
        await connection.execute(SQL.carried_out, one, after.epoch, actions)


_BY_ITSELF: Final = frozenset({CommandKind.ABORT, CommandKind.ROLL_OUT, CommandKind.WITHDRAW})
"""Commands that nobody gave."""


def _reason(record: ChangeRecord) -> str:
    done = {
        CommandKind.ABORT: "A guardrail took the last candidate off the route",
        CommandKind.STOP_EXPERIMENT: "Stopped",
        CommandKind.ROLL_OUT: "The rollout went on without it",
        CommandKind.WITHDRAW: "The rollout took its candidate back",
    }.get(record.command, f"Its route was changed over its head ({record.command.words})")
    by = f" by {record.claimed_actor}" if record.claimed_actor and record.command not in _BY_ITSELF else ""
    stop = "" if record.reason.endswith((".", "!", "?")) else "."
    return f"{done}{by}: {record.reason}{stop}" if record.reason else f"{done}{by}."
