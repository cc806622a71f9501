"""What people do with runs: start, read, pause, resume, stop, limit, give a place in the queue."""

import logging
from dataclasses import dataclass
from datetime import datetime

from core.domain.text import ID_MAX, text
from core.kafka import TopicInfo
from services.replayer.admission import Admission
from services.replayer.budget import PRIORITY_MAX
from services.replayer.creation import create_table
from services.replayer.fleet import Fleet
from services.replayer.protocol import TopicPartition
from services.replayer.ranges import Extent, within
from services.replayer.run import Run
from services.replayer.states import FIRST, Command, Event, State
from services.replayer.store import Failure
from services.replayer.surroundings import Surroundings
from turnout.clock import Clock
from turnout.errors import FailedPrecondition, InvalidInput, Unavailable
from turnout.log_range import LogRange
from turnout.names import VersionId
from turnout.schema import JobDefinition, table_name

log = logging.getLogger(__name__)

WORKERS_DEFAULT = 2
WORKERS_MAX = 64


@dataclass(frozen=True, slots=True)
class _Log:
    """The topics as they stood when the run was started, and what it reads of them."""

    topic_ids: dict[str, str]
    extents: dict[TopicPartition, Extent]
    first_times: dict[TopicPartition, datetime]


class Runs:
    """Commands on runs. What is answered is stored; the processes have followed where a method says so."""

    def __init__(self, around: Surroundings, fleet: Fleet, admission: Admission, clock: Clock) -> None:
        self._around = around
        self._fleet = fleet
        self._admission = admission
        self._clock = clock

    async def start(
        self, version: VersionId, workers: int, rate_limit: int, request_id: str, *, priority: int = 0
    ) -> Run:
        """Create the version's table and positions and queue its run, which is admitted at once where the budget of
        copies allows; the run that exists when there is one already.

        FailedPrecondition (VERSION_RETIRED, VERSION_DROPPED, TOPIC_NOT_FOUND, TABLE_REFUSED, and of a range of the log
        RANGE_NOT_RETAINED, RANGE_NOT_PASSED, RANGE_NOT_FOUND, RANGE_INCOMPLETE, RANGE_IN_TRANSACTION, RANGE_BACKWARDS).
        """
        check_limits(workers, rate_limit)
        check_priority(priority)
        text(request_id, "request_id", ID_MAX)
        existing = await self._existing(version, request_id)
        if existing is not None:
            return existing
        registered = await self._around.artifacts.version(version)
        if not registered.runnable:
            raise _retired(version)
        await self._around.artifacts.unpacked(version, registered.artifact_digest)
        definition = registered.definition
        log = await self._log(definition, registered.log_range)
        run = Run(
            version=version,
            state=FIRST,
            failure_reason="",
            failure_message="",
            artifact_digest=registered.artifact_digest,
            definition=definition,
            workers=workers or WORKERS_DEFAULT,
            rate_limit=rate_limit,
            table=table_name(version.job, version.number),
            topic_ids=log.topic_ids,
            start_times=log.first_times,
            indexes_built=not definition.indexes,
            worker_restarts=0,
            revision=1,
            request_id=request_id,
            create_time=self._clock.now(),
            priority=priority,
            log_range=registered.log_range,
        )
        stored = await self._store_new(run, log.extents)
        return await self._still_wanted(stored)

    async def _still_wanted(self, run: Run) -> Run:
        """Let the queued run work, unless its version has been retired since the registry was asked.

        A retirement is stored before it stops the run. One that did so before our change was stored passed over the
        run, and shows now; one that comes after finds it.
        """
        try:
            registered = await self._around.artifacts.version(run.version)
        except Unavailable as error:
            # It was runnable a moment ago. Were it retired since, the drop of its table stops the run first.
            log.warning("%s works on: whether it was retired meanwhile is not known: %s", run.version, error.message)
        else:
            if not (registered.runnable or registered.reinstated):
                await self._command(run.version, Command.STOP)
                raise _retired(run.version)
        await self._admission.admit()
        return await self._around.store.get(run.version)

    async def _existing(self, version: VersionId, request_id: str) -> Run | None:
        if request_id:
            repeated = await self._around.store.find_by_request(request_id)
            if repeated is not None and repeated.version != version:
                raise InvalidInput(
                    "REQUEST_ID_REUSED",
                    f"The request id {request_id!r} belongs to the start of {repeated.version}; use a new one.",
                )
        existing = await self._around.store.find(version)
        if existing is not None and existing.drop_time is not None:
            raise FailedPrecondition(
                "VERSION_DROPPED", f"The table of {version} was dropped; register and start a new version instead."
            )
        return existing

    async def _log(self, definition: JobDefinition, log_range: LogRange | None) -> _Log:
        topics = self._around.topics
        infos = await topics.describe(definition)
        extents, ends = await topics.extents(log_range, infos, self._clock.now())
        first_times = await topics.first_times(within(ends, extents))
        return _Log({topic: info.topic_id for topic, info in infos.items()}, extents, first_times)

    async def _store_new(self, run: Run, extents: dict[TopicPartition, Extent]) -> Run:
        """Run, table and positions in one transaction; of two callers the second gets the first one's run."""
        store = self._around.store
        async with store.transaction() as connection:
            stored = await store.insert(connection, run)
            if stored is not None:
                await create_table(connection, run.definition, run.table)
                await store.insert_positions(connection, run.version, extents)
        return stored if stored is not None else await store.get(run.version)

    async def pause(self, version: VersionId) -> Run:
        """Pause; answers when the workers have finished their batch and are gone. Those that take longer are ended
        without being waited for: `live_workers` of the answer then counts them, and its status says so."""
        return await self._command(version, Command.PAUSE)

    async def stop(self, version: VersionId) -> Run:
        """Stop; answers when the workers have finished their batch and are gone. Those that take longer are ended
        without being waited for: `live_workers` of the answer then counts them, and its status says so."""
        return await self._command(version, Command.STOP)

    async def _command(self, version: VersionId, command: Command) -> Run:
        _, run = await self._around.store.change(version, command)
        self._fleet.follow(run)
        await self._fleet.idle(version)
        await self._admission.admit()
        return await self._around.store.get(version)

    async def resume(self, version: VersionId) -> Run:
        """Go on from the stored positions, once the topics are found to be those that the positions belong to. A run
        that has not caught up yet queues for its copy; one that has goes on at once.

        FailedPrecondition (VERSION_RETIRED, TOPIC_RECREATED, POSITION_BEYOND_END, LOG_TRUNCATED, RUN_STATE);
        Unavailable (REGISTRY_UNAVAILABLE).
        """
        run = await self._around.store.get(version)
        still = run.state in (State.QUEUED, State.COMPLETED) or run.state.wants_workers
        if still or run.drop_time is not None:
            _, run = await self._around.store.change(version, Command.RESUME)
            self._fleet.follow(run)
            return run
        registered = await self._around.artifacts.version(version)
        if not (registered.runnable or registered.reinstated):
            raise _retired(version)
        await self.check_topics(run)
        _, run = await self._around.store.change(version, Command.RESUME)
        return await self._still_wanted(run)

    async def check_topics(self, run: Run) -> dict[str, TopicInfo]:
        """The run's topics, when all of them are those that its positions belong to.

        Otherwise the run has FAILED and FailedPrecondition says why. A run that is COMPLETED reads no more: what has
        become of its topics since does not touch its table, and the answer is empty.
        """
        try:
            infos = await self._around.topics.check_identity(run)
            positions = (await self._around.store.positions([run.version])).get(run.version, {})
            await self._around.topics.check_positions(run, positions)
            await self._around.topics.check_applied(run, positions)
        except FailedPrecondition as error:
            if run.state is State.COMPLETED:
                return {}
            failure = Failure(error.reason, error.message)
            _, failed = await self._around.store.change(run.version, Event.FAULT, failure)
            self._fleet.follow(failed)
            raise
        return infos

    async def set_rate(self, version: VersionId, rate_limit: int) -> Run:
        """Limit the records a second of all workers together, at once; 0 = no limit."""
        check_limits(0, rate_limit)
        run = await self._around.store.set_rate(version, rate_limit)
        self._fleet.follow(run)
        return run

    async def set_priority(self, version: VersionId, priority: int) -> Run:
        """Move the run in the queue of copies. FailedPrecondition (RUN_STATE) once it is past its copy."""
        check_priority(priority)
        run = await self._around.store.set_priority(version, priority)
        if run is None:
            raise FailedPrecondition(
                "RUN_STATE",
                f"{version} is past its copy: it has been at the end of the log, so that it queues no more, and a "
                f"priority would change nothing.",
                metadata={"run": version.run_name},
            )
        self._fleet.follow(run)
        await self._admission.admit()
        return await self._around.store.get(version)


def _retired(version: VersionId) -> FailedPrecondition:
    return FailedPrecondition(
        "VERSION_RETIRED",
        f"{version} is retired or being retired; take that back first, or start another one.",
        metadata={"version": version.name},
    )


def check_limits(workers: int, rate_limit: int) -> None:
    if not 0 <= workers <= WORKERS_MAX:
        raise InvalidInput("INVALID_WORKERS", f"workers is {workers}; give 1 to {WORKERS_MAX}, or 0 for the default.")
    if rate_limit < 0:
        raise InvalidInput(
            "INVALID_RATE", f"rate_limit is {rate_limit}; give records a second above 0, or 0 for no limit."
        )


def check_priority(priority: int) -> None:
    if not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        raise InvalidInput(
            "INVALID_PRIORITY", f"priority is {priority}; give -{PRIORITY_MAX} to {PRIORITY_MAX}, where more is sooner."
        )
