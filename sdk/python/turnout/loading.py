"""Loads a job file in a process of its own, so that the user's code does not run inside a long-lived client.

`load_apart` starts `python -m turnout.loading PATH`, which loads and packs the file and writes one message to its
standard output. What the user's code prints goes to standard error instead.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from turnout import schema
from turnout.job.artifact import pack
from turnout.job.errors import ArtifactError, JobDefinitionError, JobFileError
from turnout.job.loader import load
from turnout.schema import JobDefinition

LOAD_S_MAX = 60.0
_STDERR_LINES = 5


class LoadedJob(msgspec.Struct, frozen=True, tag=True):
    """A job file, loaded. description: the first paragraph of its docstring. artifact: the packed code."""

    definition: JobDefinition
    description: str
    artifact: bytes


class _Refused(msgspec.Struct, frozen=True, tag=True):
    """Why the file was refused, as the fields of the error."""

    error: str
    reason: str
    remedy: str
    file: str = ""
    line: int = 0


_Answer: TypeAlias = LoadedJob | _Refused


async def load_apart(path: Path | str, *, timeout_s: float = LOAD_S_MAX) -> LoadedJob:
    """Load and pack a job file, or a folder of them.

    JobFileError or ArtifactError as `turnout.job.load` and `pack` raise them; JobFileError also when the file ends the
    process or does not load within `timeout_s`.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a folder "turnout" in the working directory is not ours
        "-m",
        "turnout.loading",
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    name = Path(path).name
    try:
        async with asyncio.timeout(timeout_s):
            output, complaints = await child.communicate()
    except TimeoutError:
        raise JobFileError(
            name, 0, f"the file did not load within {timeout_s:g} s", "a job file only defines: mend what it runs"
        ) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        loaded: _Answer = msgspec.msgpack.decode(output, type=_Answer)
    except msgspec.MsgspecError:
        last = "\n  ".join(complaints.decode(errors="replace").splitlines()[-_STDERR_LINES:])
        raise JobFileError(
            name,
            0,
            f"the process that loaded it ended with status {child.returncode}" + (f":\n  {last}" if last else ""),
            "a job file only defines: mend what it runs at the top level",
        ) from None
    if isinstance(loaded, _Refused):
        raise _error(loaded)
    schema.validate(loaded.definition)
    return loaded


def _error(refused: _Refused) -> JobDefinitionError:
    if refused.error == JobFileError.__name__:
        return JobFileError(refused.file, refused.line, refused.reason, refused.remedy)
    if refused.error == ArtifactError.__name__:
        return ArtifactError(refused.reason, refused.remedy)
    return JobDefinitionError(refused.reason, refused.remedy)


def _load(path: Path) -> LoadedJob:
    artifact = pack(path)
    job = load(path)
    module = sys.modules.get(job.__module__)
    text = inspect.cleandoc((module.__doc__ if module else None) or job.__doc__ or "")
    return LoadedJob(job.definition, " ".join(text.split("\n\n")[0].split()), artifact.data)


def _answer(load_it: Callable[[], LoadedJob]) -> LoadedJob | _Refused:
    try:
        return load_it()
    except JobDefinitionError as error:
        file, line = (error.file, error.line) if isinstance(error, JobFileError) else ("", 0)
        return _Refused(type(error).__name__, error.reason, error.remedy, file, line)


def main() -> None:
    """The child: load the file named on the command line, answer on the real standard output."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    loaded = _answer(lambda: _load(Path(sys.argv[1])))
    with answer:
        answer.write(msgspec.msgpack.encode(loaded))
    sys.stdout.flush()
    os._exit(0)  # not the exit handlers and threads of the user's code


if __name__ == "__main__":
    main()
