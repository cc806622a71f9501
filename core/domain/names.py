"""Resource names, as the SDK has them: services import the domain's words from `core.domain`."""

from turnout.names import (
    VersionId,
    job_name,
    parse_job,
    parse_route,
    parse_run,
    parse_version,
    route_name,
)

__all__ = ["VersionId", "job_name", "parse_job", "parse_route", "parse_run", "parse_version", "route_name"]
