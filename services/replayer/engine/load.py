"""Loads the job that a version registered, and refuses to run anything else under its name."""

import importlib.metadata
import sys

import msgspec

from services.replayer.engine.faults import RunFaultError
from turnout.job import JobDefinitionError, load
from turnout.job.compiled import CompiledJob
from turnout.schema import JobDefinition, SchemaError, decode


def load_job(artifact_dir: str, definition_json: str) -> CompiledJob:
    """The compiled job. RunFaultError: REQUIREMENTS_MISSING, JOB_DOES_NOT_LOAD, DEFINITION_CHANGED."""
    try:
        registered = decode(definition_json)
    except SchemaError as error:
        raise RunFaultError("JOB_DOES_NOT_LOAD", f"The registered definition cannot be read: {error}.") from error
    _check_requirements(registered)
    try:
        job = load(artifact_dir)
    except JobDefinitionError as error:
        raise RunFaultError("JOB_DOES_NOT_LOAD", f"The job does not load: {error}") from error
    # What it was loaded with is checked above; everything else must be the same.
    loaded = msgspec.structs.replace(job.definition, python=registered.python, requirements=registered.requirements)
    if loaded != registered:
        raise RunFaultError(
            "DEFINITION_CHANGED",
            "The job's sources now define another table than the one registered: they depend on something outside of "
            "them. Make the job file independent of the machine and apply it as a new version.",
        )
    return job.compile()


def _check_requirements(definition: JobDefinition) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if definition.python and definition.python != python:
        missing.append(f"Python {definition.python} (this is {python})")
    for requirement in definition.requirements:
        name, _, version = requirement.partition("==")
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement)
            continue
        if version and installed != version:
            missing.append(f"{requirement} (installed is {installed})")
    if missing:
        raise RunFaultError(
            "REQUIREMENTS_MISSING",
            f"This worker's Python lacks what the version was registered with: {', '.join(missing)}. Install it where "
            f"the replayer runs, or apply the job again from an environment like the replayer's.",
        )
