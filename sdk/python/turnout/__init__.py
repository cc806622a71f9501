"""Job definitions and client of Turnout.

A job file imports from here and from the standard library only; nothing here imports gRPC.
"""

from turnout.job.declare import Job, aggregate, fold, map  # noqa: A004 - the standard term of the field
from turnout.job.rows import ApproximateSum, Delete, Key, LastBy, Max, Meta, Min, Record, Row, Sum

__all__ = [
    "ApproximateSum",
    "Delete",
    "Job",
    "Key",
    "LastBy",
    "Max",
    "Meta",
    "Min",
    "Record",
    "Row",
    "Sum",
    "aggregate",
    "fold",
    "map",
]
