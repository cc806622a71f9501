"""The stored budget of copies and what counts against it: read, changed, summed up."""

from dataclasses import dataclass

from core.postgres import postgres_errors
from services.replayer.budget import Capacity
from services.replayer.store import QUERIES, Row, Store
from turnout.errors import Aborted, InvalidInput

NAME = "capacity"

_NUMBER_MAX = 2**31 - 1
_LARGE_NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be changed; None = stays."""

    copies_max: int | None = None
    rows_per_s_max: int | None = None
    storage_bytes_max: int | None = None
    read_p99_ratio_max: float | None = None

    def check(self) -> None:
        """InvalidInput (INVALID_CAPACITY) unless every figure makes sense."""
        for field, value, most in (
            ("copies_max", self.copies_max, _NUMBER_MAX),
            ("rows_per_s_max", self.rows_per_s_max, _LARGE_NUMBER_MAX),
            ("storage_bytes_max", self.storage_bytes_max, _LARGE_NUMBER_MAX),
        ):
            if value is not None and not 0 <= value <= most:
                raise InvalidInput(
                    "INVALID_CAPACITY",
                    f"{field} is {value}; give a number above 0, or 0 for no limit.",
                    metadata={"field": field},
                )
        ratio = self.read_p99_ratio_max
        if ratio is not None and not (ratio == 0 or 1 < ratio <= 1000):
            raise InvalidInput(
                "INVALID_CAPACITY",
                f"read_p99_ratio_max is {ratio:g}; give a ratio above 1, such as 1.3, for reads that are as quick as "
                f"without copies have the ratio 1; or 0, so that copies never slow down for reads.",
                metadata={"field": "read_p99_ratio_max"},
            )


async def read_capacity(store: Store) -> Capacity:
    """The budget as it stands."""
    with postgres_errors():
        return capacity_of(await store.pool.fetchrow(QUERIES.capacity))


async def update_capacity(store: Store, change: Change, etag: str) -> Capacity:
    """Change the budget; an empty etag stands for any. InvalidInput (INVALID_CAPACITY); Aborted (ETAG_MISMATCH)."""
    change.check()
    with postgres_errors():
        row = await store.pool.fetchrow(
            QUERIES.set_capacity,
            change.copies_max,
            change.rows_per_s_max,
            change.storage_bytes_max,
            change.read_p99_ratio_max,
            etag,
        )
    if row is not None:
        return capacity_of(row)
    present = await read_capacity(store)
    raise Aborted(
        "ETAG_MISMATCH",
        f"The budget of copies has changed meanwhile: its etag is {present.etag!r}, not {etag!r}. Nothing was done; "
        f"read it again and decide anew.",
        metadata={"etag": present.etag},
    )


def capacity_of(row: Row) -> Capacity:
    """The budget from its row."""
    return Capacity(
        copies_max=row["copies_max"],
        rows_per_s_max=row["rows_per_s_max"],
        storage_bytes_max=row["storage_bytes_max"],
        read_p99_ratio_max=row["read_p99_ratio_max"],
        revision=row["revision"],
    )
