"""What is to be expected of a run, and what stands against it, in words. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from services.replayer.forecast import UNKNOWN, Forecast
from services.replayer.retention import Risk
from services.replayer.run import Run
from services.replayer.spans import span
from services.replayer.states import State


@dataclass(frozen=True, slots=True)
class Outlook:
    """When the run reaches its end, and where the log loses records before; None = nowhere."""

    forecast: Forecast = UNKNOWN
    risk: Risk | None = None


def warnings(run: Run, records_per_s: float, outlook: Outlook) -> Iterator[str]:
    """Why the run will not get to its end as it goes now."""
    if outlook.risk is not None:
        yield outlook.risk.message
    if outlook.forecast.never and run.state is State.REPLAYING:
        yield (
            f"at {records_per_s:,.0f} records/s it never catches up, for the log grows faster: raise its rate limit or "
            f"its workers"
        )


def remarks(run: Run, records_per_s: float, outlook: Outlook) -> Iterator[str]:
    """The warnings, and what the forecast leaves out."""
    yield from warnings(run, records_per_s, outlook)
    count = len(run.definition.indexes)
    if outlook.forecast.eta_s is not None and count and not run.indexes_built and run.state is State.REPLAYING:
        indexes = "an index of the table is" if count == 1 else f"{count} indexes of the table are"
        yield f"after the copy {indexes} built, which takes time that is not known and not in the ETA"


def expectation(run: Run, records_per_s: float, outlook: Outlook) -> Iterator[str]:
    """When the run reaches its end, with the spread."""
    eta_s, least_s, most_s = outlook.forecast.eta_s, outlook.forecast.eta_min_s, outlook.forecast.eta_max_s
    if eta_s is not None:
        end = "its range" if run.log_range is not None and run.log_range.bounded else "the log"
        latest = "an unknown time" if most_s is None else span(most_s)
        spread = "" if least_s is None else f" (between {span(least_s)} and {latest})"
        yield f"at {records_per_s:,.0f} records/s it reaches the end of {end} in about {span(eta_s)}{spread}"
