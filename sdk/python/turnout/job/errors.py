"""What can be wrong with a job, and with a record.

ValueError
 +-- JobDefinitionError        the definition is refused: reason, and what to do
 |    +-- JobFileError         the same, with the file and line it stands in
 |    +-- ArtifactError        the files cannot be packed or unpacked
 +-- MalformedRecordError      turnout.testing only: a record the job refuses
Exception
 +-- PartitionConflictError    a row keyed by partition met from two partitions: fails the run
"""

from __future__ import annotations

CAN_EXPRESS = "docs/jobs.md#what-a-job-can-express"


class JobDefinitionError(ValueError):
    """A job that is refused. `reason` says what is wrong and why, `remedy` what to do next.

    `subject` is the class or function and `field` the field of it that the reason is about, so that the loader finds
    the line.
    """

    def __init__(self, reason: str, remedy: str, *, subject: str = "", field: str = "") -> None:
        super().__init__(f"{reason}\n  {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.subject = subject
        self.field = field


class JobFileError(JobDefinitionError):
    """A job file that is refused. `file` is the path inside the artefact, `line` counts from 1, 0 = the whole file."""

    def __init__(self, file: str, line: int, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.file = file
        self.line = line
        where = f"{file}:{line}" if line else file
        self.args = (f"{where}: {reason}\n  {remedy}",)


class ArtifactError(JobDefinitionError):
    """Files that cannot be an artefact, or bytes that are none."""


class PartitionConflictError(Exception):
    """A row keyed by partition was met from a second partition: no order decides between the two, so the run fails.

    It happens when a topic is widened (its keys move to other partitions) or is not partitioned by the row key at all.
    """

    def __init__(self, key: object, topic: str, partitions: tuple[int, int]) -> None:
        super().__init__(
            f"the row with key {key!r} comes from partition {partitions[0]} and now from partition {partitions[1]} of "
            f"topic {topic!r}: its rows are ordered within one partition only. Was the topic widened, or is it not "
            f"partitioned by this key? Replay from a topic partitioned by the row key, or declare order_by= instead"
        )
        self.key = key
        self.topic = topic
        self.partitions = partitions
