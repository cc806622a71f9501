"""The public names of the SDK, as a snapshot: changing one is a decision."""

from __future__ import annotations

import subprocess
import sys

import turnout
import turnout.job
import turnout.testing


def test_names_of_turnout() -> None:
    assert sorted(turnout.__all__) == [
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
    assert all(hasattr(turnout, name) for name in turnout.__all__)


def test_names_of_turnout_job() -> None:
    assert sorted(turnout.job.__all__) == [
        "ArtifactError",
        "Job",
        "JobDefinitionError",
        "JobFileError",
        "PartitionConflictError",
        "load",
    ]


def test_names_of_turnout_testing() -> None:
    assert sorted(turnout.testing.__all__) == ["MalformedRecordError", "Message", "run"]


def test_a_job_file_needs_no_grpc() -> None:
    """An engine such as Flink pins other versions of grpc and protobuf than ours."""
    code = (
        "import sys, turnout, turnout.job.compiled, turnout.job.artifact, turnout.testing, turnout.schema\n"
        "found = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(found & {'grpc', 'google', 'opentelemetry', 'asyncio', 'typer', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
