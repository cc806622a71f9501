"""Changes in a calm world, one after another, and what must have come of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from services.switcher.rollouts.rollout import Phase, State
from tests.simulation.checks import Violation
from tests.simulation.launchers import ALL, COMPARE, RETIRE, create, experiment, soak, traffic
from tests.simulation.network import channel
from tests.simulation.people import GATES
from tests.simulation.replayer import Flaw
from tests.simulation.world import World
from turnout.names import VersionId
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.routing import WHOLE
from turnout.status import from_rpc_error
from turnout.switcher.v1 import change_pb2, experiment_pb2, rollout_pb2, route_pb2, switcher_pb2_grpc

CANDIDATE = VersionId("alpha", 2)
_ALPHA = VersionId("alpha", 1)
_CALL_S = 5.0
_WITHIN_S = 20.0  # in which a change must have come to its end, whoever was halted
_PAUSE_S = 0.05
_SOON_S = 0.02  # shorter than it takes to change a route
_AT_ONCE_S = 0.005
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_ROLLOUT = "second"


class Client:
    """Asks for one change after another, each until it is answered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._switcher: Any = switcher_pb2_grpc.SwitcherStub(channel(world.network, "switcher"))
        self._registry: Any = registry_pb2_grpc.RegistryStub(channel(world.network, "registry"))
        self._number = 0

    # --- changes ---

    async def cut_over(self, version: int, job: str = "alpha") -> None:
        request = change_pb2.CutOverRouteRequest(name=f"jobs/{job}/route", version=version, override_gates=GATES)
        await self._change(self._switcher.CutOverRoute, request)

    async def cut_over_all(self, version: int) -> None:
        request = change_pb2.CutOverRoutesRequest(override_gates=GATES)
        for job in sorted(self.world.jobs):
            request.cut_overs.add(name=f"jobs/{job}/route", version=version)
        answer = await self._asked(self._switcher.CutOverRoutes, request)
        for change in answer.route_changes:
            self.world.checks.answered(change)

    async def split(self, active: int, version: int, weight: int) -> None:
        arms = [route_pb2.Arm(version=active, weight=WHOLE - weight)]
        arms += [route_pb2.Arm(version=version, weight=weight)] if version != active else []
        request = change_pb2.SetTrafficRequest(name="jobs/alpha/route", arms=arms, override_gates=GATES)
        await self._change(self._switcher.SetTraffic, request)

    async def roll_back(self) -> None:
        await self._change(self._switcher.RollBackRoute, change_pb2.RollBackRouteRequest(name="jobs/alpha/route"))

    async def retire(self, retain_ms: int = 0) -> None:
        """Retire v1 of alpha, until its run has stopped, or its table is gone where it is not retained."""
        request = registry_pb2.RetireVersionRequest(name=_ALPHA.name, forgo_rollback=True)
        request.retain_for.FromMilliseconds(retain_ms)
        await self._asked(self._registry.RetireVersion, request)
        await self._until_it_is("RETIRED" if retain_ms else "DROPPED")

    async def until_retired(self) -> None:
        """Wait until v1 of alpha is kept for its last day."""
        await self._until_it_is("RETIRED")

    async def unretire(self) -> None:
        await self._asked(self._registry.UnretireVersion, registry_pb2.UnretireVersionRequest(name=_ALPHA.name))
        await self._until(lambda: not self.world.checks.unsettled())

    async def _until_it_is(self, state: str) -> None:
        def there() -> bool:
            rows = self.world.real.fetch("select state from registry.versions where job = 'alpha' and number = 1")
            return bool(rows[0]["state"] == state)

        await self._until(there)

    # --- rollouts ---

    async def roll_out(self, version: int, *steps: rollout_pb2.RolloutStep) -> None:
        """Begin to roll a version of alpha out."""
        await self._asked(self._switcher.CreateRollout, create("alpha", _ROLLOUT, version, list(steps)))

    async def until(self, state: State, step: int | None = None, phase: Phase | None = None) -> None:
        """Wait until the rollout stands there. step: from 1."""

        def there() -> bool:
            [known] = self.world.checks.rolling.rollouts.values()
            rollout = known.rollout
            if rollout.state is not state and (rollout.state.over or rollout.state is State.PAUSED):
                self.world.checks.fail(f"the rollout is {rollout.state.value}, and not {state.value}: {rollout.why}")
            return (
                rollout.state is state
                and (step is None or rollout.step + 1 == step)
                and (phase is None or rollout.phase is phase)
            )

        await self._until(there, _AT_ONCE_S)

    async def experiment(self) -> None:
        """Give half of alpha's units v2, and let guardrails watch it."""
        await self._asked(self._switcher.CreateExperiment, experiment("alpha", _ROLLOUT, 1, [2]))

    async def until_to_end(self) -> None:
        """Wait until a guardrail is about to end the experiment, or has ended it."""
        sql = "select from switcher.experiment_decisions where action = 'END'"
        await self._until(lambda: bool(self.world.real.fetch(sql)), _SOON_S)

    async def stop_experiment(self) -> None:
        """End the experiment."""
        request = experiment_pb2.StopExperimentRequest(name=f"jobs/alpha/experiments/{_ROLLOUT}")
        await self._asked(self._switcher.StopExperiment, request)

    async def until_experiment(self) -> None:
        """Wait until one was created."""
        await self._until(lambda: bool(self.world.checks.rolling.experiments), _AT_ONCE_S)

    async def abort(self) -> None:
        """Abort the rollout, and wait for its end."""
        request = rollout_pb2.AbortRolloutRequest(name=f"jobs/alpha/rollouts/{_ROLLOUT}")
        await self._asked(self._switcher.AbortRollout, request)
        await self.until(State.ABORTED)

    # --- asking ---

    async def _change(self, method: Any, request: Any) -> None:
        self.world.checks.answered(await self._asked(method, request))

    async def _asked(self, method: Any, request: Any) -> Any:
        """The answer. Repeated with its request id while there is none; anew where it was refused, which must have
        changed nothing."""
        loop = self.world.loop
        until_s = loop.time() + _WITHIN_S
        self._name(request)
        while loop.time() < until_s:
            try:
                return await method(request, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                self._refused(error, request)
            await asyncio.sleep(_PAUSE_S)
        self.world.checks.fail(f"{type(request).__name__} was not carried out within {_WITHIN_S:g} s")
        raise Violation

    def _refused(self, error: grpc.aio.AioRpcError, request: Any) -> None:
        said = from_rpc_error(error, "service")
        self.world.checks.count(f"refused {said.reason}")
        if error.code() in _AGAIN or said.reason == "REQUEST_CARRIED_OUT":
            return
        if error.code() is not grpc.StatusCode.ABORTED:
            self.world.checks.fail(f"{type(request).__name__} was refused: {said.reason}: {said.message}")
            raise Violation
        if request.request_id in self.world.checks.requests.values():
            self.world.checks.fail(f"{type(request).__name__} was refused ({said.reason}), and has changed a route")
        self._name(request)

    def _name(self, request: Any) -> None:
        """Give a request an id, if it takes one."""
        self._number += 1
        if "request_id" in request.DESCRIPTOR.fields_by_name:
            request.request_id = f"request-{self._number}"

    async def _until(self, holds: Callable[[], bool], pause_s: float = _PAUSE_S) -> None:
        until_s = self.world.loop.time() + _WITHIN_S
        while not holds():
            if self.world.loop.time() > until_s:
                self.world.checks.fail(f"after {_WITHIN_S:g} s: {self.world.checks.unsettled()}")
            if self.world.checks.violations:
                raise Violation
            await asyncio.sleep(pause_s)


@dataclass(frozen=True)
class Course:
    """A change, what comes before it, and what has become of the routes by it: of a job its active version and weights.

    dropped: whether v1 of alpha has no table any more.
    """

    before: Callable[[Client], Awaitable[None]]
    change: Callable[[Client], Awaitable[None]]
    alpha: tuple[int, dict[int, int]]
    beta: int = 1
    epochs: int | None = 1  # by which alpha's has grown; None = that depends
    dropped: bool = False
    rollouts: bool = False  # whether anything drives rollouts
    flaw: Flaw | None = None  # of v2 of alpha

    def missed(self, world: World, epoch: int) -> Iterator[str]:
        """How what came of it differs from what was asked for. epoch: of alpha before the change."""
        alpha, beta = world.checks.newest("alpha"), world.checks.newest("beta")
        assert alpha is not None
        assert beta is not None
        found = alpha.active_version, {arm.version: arm.weight for arm in alpha.arms}
        if found != self.alpha or beta.active_version != self.beta:
            yield f"alpha came to {found}, beta to v{beta.active_version}; asked was for {self.alpha}, v{self.beta}"
        if self.epochs is not None and alpha.epoch != epoch + self.epochs:
            yield f"alpha went from epoch {epoch} to {alpha.epoch}, not by {self.epochs}"
        if (_ALPHA in world.tables.dropped) != self.dropped:
            yield f"the table of {_ALPHA} is {'there' if self.dropped else 'gone'}"


async def _nothing(client: Client) -> None:
    """The routes are as they were begun with."""


async def _second(client: Client) -> None:
    await client.cut_over(2)


async def _retired(client: Client) -> None:
    await client.cut_over(2)
    await client.retire(retain_ms=60_000)


async def _half(client: Client) -> None:
    await client.split(1, 2, 5000)


async def _replaced(client: Client) -> None:
    await client.cut_over(2)
    await client.retire()


async def _rolled_out(client: Client) -> None:
    await client.roll_out(2, COMPARE, traffic(5000, 0.3), ALL)
    await client.until(State.SUCCEEDED)


async def _rolled_out_to_the_end(client: Client) -> None:
    await client.roll_out(2, ALL, RETIRE)
    await client.until(State.SUCCEEDED)
    await client.until_retired()


async def _aborted(client: Client) -> None:
    await client.roll_out(2, traffic(5000, 60.0), ALL)
    await client.until(State.RUNNING, 1, Phase.WATCHING)
    await client.abort()


async def _aborted_under_way(client: Client) -> None:
    """As readers are about to be given the version: there is the experiment that is to count them."""
    await client.roll_out(2, traffic(5000, 60.0), ALL)
    await client.until_experiment()
    await client.abort()


async def _aborted_behind_the_cutover(client: Client) -> None:
    await client.roll_out(2, ALL, soak(60.0))
    await client.until(State.RUNNING, 2)
    await client.abort()


async def _taken_back(client: Client) -> None:
    """It fails by itself, of what is wrong with it."""
    await client.roll_out(2, COMPARE, traffic(5000, 60.0), ALL)
    await client.until(State.ROLLED_BACK)


async def _experimented(client: Client) -> None:
    await client.experiment()
    await client.until_to_end()
    await client.stop_experiment()


COURSES: dict[str, Course] = {
    "cut over": Course(_nothing, _second, (2, {2: WHOLE})),
    "cut over together": Course(_nothing, lambda client: client.cut_over_all(2), (2, {2: WHOLE}), beta=2),
    "split": Course(_nothing, _half, (1, {1: 5000, 2: 5000})),
    "abort": Course(_half, lambda client: client.split(1, 1, 0), (1, {1: WHOLE})),
    "roll back": Course(_second, lambda client: client.roll_back(), (1, {1: WHOLE})),
    "retire": Course(_second, lambda client: client.retire(), (2, {2: WHOLE}), epochs=0, dropped=True),
    "replace": Course(_nothing, _replaced, (2, {2: WHOLE}), dropped=True),
    "unretire": Course(_retired, lambda client: client.unretire(), (2, {2: WHOLE}), epochs=0),
    "roll out": Course(_nothing, _rolled_out, (2, {2: WHOLE}), epochs=4, rollouts=True),
    "roll out and retire": Course(_nothing, _rolled_out_to_the_end, (2, {2: WHOLE}), epochs=3, rollouts=True),
    "abort a rollout": Course(_nothing, _aborted, (1, {1: WHOLE}), epochs=3, rollouts=True),
    "abort a rollout under way": Course(_nothing, _aborted_under_way, (1, {1: WHOLE}), epochs=None, rollouts=True),
    "abort behind the cutover": Course(_nothing, _aborted_behind_the_cutover, (1, {1: WHOLE}), epochs=3, rollouts=True),
    "stop what a guardrail ends": Course(
        _nothing, _experimented, (1, {1: WHOLE}), epochs=2, rollouts=True, flaw=Flaw.HARMS
    ),
    "take back what differs": Course(
        _nothing, _taken_back, (1, {1: WHOLE}), epochs=2, rollouts=True, flaw=Flaw.DIFFERS
    ),
    "take back what harms": Course(_nothing, _taken_back, (1, {1: WHOLE}), epochs=None, rollouts=True, flaw=Flaw.HARMS),
}
