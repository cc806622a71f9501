"""A job's definition, and its range of the log, as they came over the wire."""

from turnout import log_range_proto
from turnout.definition_proto import check_projection
from turnout.errors import InvalidInput
from turnout.log_range import LogRange, LogRangeError
from turnout.registry.v1 import registry_pb2
from turnout.schema import JobDefinition, SchemaError


def definition(message: registry_pb2.Definition) -> JobDefinition:
    """The definition. InvalidInput (INVALID_DEFINITION) when it is none, or says two things."""
    try:
        return check_projection(message)
    except SchemaError as error:
        raise InvalidInput("INVALID_DEFINITION", f"The definition is refused: {error}.") from None


def log_range(message: registry_pb2.LogRange, read: JobDefinition) -> LogRange | None:
    """The range of the log, None = all of it. InvalidInput (INVALID_RANGE) when it makes no sense for the topics that
    are read."""
    try:
        found = log_range_proto.from_proto(message)
        if found is not None:
            found.check_topics([source.topic for source in read.topics])
    except LogRangeError as error:
        raise InvalidInput("INVALID_RANGE", f"The range of the log is refused: {error}.") from None
    return found
