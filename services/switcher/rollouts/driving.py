"""What takes rollouts from step to step: looks, decides, stores, acts, and stores what became of it.

One replica at a time does, by a lease, and each rollout by itself (`Loop`): none waits for another's act. The lease
only saves work: two replicas that drive one rollout disagree about nothing, because each change is a compare-and-set on
the stored rollout, each act has one request id, and the commit of a route is fenced by the row. Whoever takes over
finds all there is to know in the database.
"""

import logging
import time
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from services.switcher.loop import Leases, Loop
from services.switcher.rollouts.acting import ACTOR, Acts
from services.switcher.rollouts.acts import Act, Done, Refused, Result, due
from services.switcher.rollouts.comparing import Comparisons
from services.switcher.rollouts.looking import Looks
from services.switcher.rollouts.record import Happened, decides, ended, follows, recorded
from services.switcher.rollouts.rollout import CLAIM, State
from services.switcher.rollouts.store import TRIES, RolloutStore, Stored
from services.switcher.rollouts.verdicts import Finding

log = logging.getLogger(__name__)

_LEASE: Final = timedelta(seconds=3)
_REFUSED_S: Final = 5.0  # until the way back is tried again after it was refused
_LOOKED_AT: Final = (State.RUNNING, State.PAUSED)


class Driver:
    """The driving of one replica."""

    def __init__(
        self,
        store: RolloutStore,
        leases: Leases,
        looks: Looks,
        acts: Acts,
        comparisons: Comparisons,
        holder: str,
    ) -> None:
        self._loop = Loop("rollouts", "rollout", self, leases, holder, _LEASE)
        self._store = store
        self._looks = looks
        self._acts = acts
        self._comparisons = comparisons
        self._not_before: dict[int, float] = {}

    async def run(self) -> None:
        """Drive until cancelled."""
        await self._loop.run()

    async def going_on(self) -> Collection[int]:
        """Numbers of the rollouts that are not over."""
        going_on = await self._store.going_on()
        self._not_before = {number: one for number, one in self._not_before.items() if number in going_on}
        return going_on

    async def turned(self) -> None:
        """Nothing but the rollouts themselves."""

    async def given_up(self) -> None:
        """Let the comparisons go, too."""
        await self._comparisons.give_up_all()

    async def one(self, number: int) -> bool:
        """One look, and one act where one is due; whether there may be more to do at once."""
        stored = await self._store.load(number)
        if stored.rollout.state.over:
            await self._comparisons.give_up(number)
            return False
        if stored.rollout.state in _LOOKED_AT and stored.rollout.step != CLAIM:
            look = await self._looks.look(stored)
            if await self._kept(stored, look, look.findings):
                return True
            stored = await self._store.load(number)
        act = due(stored.rollout)
        if act is None or time.monotonic() < self._not_before.get(number, 0.0):
            return False
        result = await self._acts.carry_out(stored, act)
        await self._note(number, act, result)
        return isinstance(result, Done)

    async def _note(self, number: int, act: Act, result: Result) -> None:
        """Store what became of an act, whoever else changes the rollout at the moment."""
        self._not_before.pop(number, None)
        if isinstance(result, Refused):
            self._not_before[number] = time.monotonic() + _REFUSED_S
        happened = ended(act, result)
        # Where others are always faster, the act is carried out again, and its request id finds it done.
        for _ in range(TRIES):
            stored = await self._store.load(number)
            after = follows(stored.rollout, happened, stored.now)
            if after == stored.rollout:
                return
            record = recorded(stored.name, ACTOR, "", stored.now, stored.rollout, happened)
            if await self._store.keep(stored, after, record if decides(stored.rollout, after) else None):
                log.info("%s: %s: %s", stored.name, act.kind.value, after.why if isinstance(result, Done) else result)
                return

    async def _kept(self, stored: Stored, happened: Happened, findings: tuple[Finding, ...]) -> bool:
        """Store what follows from a look; whether that decides anything, or somebody else was faster."""
        after = follows(stored.rollout, happened, stored.now)
        if after == stored.rollout:
            await self._store.keep_findings(stored, findings)
            return False
        if not decides(stored.rollout, after):
            return not await self._store.keep(stored, after, None, findings)
        record = recorded(stored.name, ACTOR, "", stored.now, stored.rollout, happened)
        if await self._store.keep(stored, after, record, findings):
            log.info("%s: %s: %s", stored.name, after.state.value, after.why)
        return True
