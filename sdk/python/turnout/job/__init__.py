"""Job definitions: what users write (`declare`, `rows`), how it is loaded (`load`), stored (`artifact`) and run
(`compiled`: the interface for an engine, described at the top of that file)."""

from turnout.job.declare import Job
from turnout.job.errors import ArtifactError, JobDefinitionError, JobFileError, PartitionConflictError
from turnout.job.loader import load

__all__ = ["ArtifactError", "Job", "JobDefinitionError", "JobFileError", "PartitionConflictError", "load"]
