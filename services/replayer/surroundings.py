"""What everybody who works on runs works with."""

from dataclasses import dataclass

from core.config import Settings
from services.replayer.artifacts import Artifacts
from services.replayer.gates import Limits
from services.replayer.governing import Governing
from services.replayer.guard import RetentionGuard
from services.replayer.indexes import IndexBuilds
from services.replayer.presence import Presence
from services.replayer.sampler import Sampler
from services.replayer.sizes import TableSizes
from services.replayer.store import Store
from services.replayer.topics import EndsWatch, Topics


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Made once, in `app`."""

    settings: Settings
    store: Store
    topics: Topics
    ends: EndsWatch
    sampler: Sampler
    guard: RetentionGuard
    presence: Presence
    artifacts: Artifacts
    limits: Limits
    governing: Governing
    sizes: TableSizes
    indexes: IndexBuilds
