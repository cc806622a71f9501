"""Job files loaded in a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from turnout.job.artifact import unpack
from turnout.job.errors import ArtifactError, JobFileError
from turnout.job.loader import load
from turnout.loading import load_apart

JOB = '''"""How punctual is each carrier?

And more of it.
"""
from turnout import Key, Record, Row, Sum, aggregate

class Flight(Record):
    carrier: str

class Punctuality(Row):
    carrier: Key[str]
    flights: Sum[int] = 1

@aggregate("carrier-punctuality", topic="flights")
def punctuality(flight: Flight) -> Punctuality:
    return Punctuality(carrier=flight.carrier)
'''


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "punctuality.py"
    path.write_text(JOB)
    return path


async def test_it_is_loaded_and_packed_but_not_here(job_file: Path, tmp_path: Path) -> None:
    before = set(sys.modules)
    loaded = await load_apart(job_file)
    assert not [name for name in set(sys.modules) - before if "turnout_job" in name]
    assert loaded.description == "How punctual is each carrier?"
    assert loaded.definition.job == "carrier-punctuality"
    assert load(unpack(loaded.artifact, tmp_path / "unpacked")).definition == loaded.definition


async def test_what_it_prints_does_no_harm(job_file: Path) -> None:
    noise = "import os, sys\nprint('noise')\nos.write(1, b'more')\nsys.stdout.flush()\n"
    job_file.write_text(JOB + noise)
    assert (await load_apart(job_file)).definition.job == "carrier-punctuality"


async def test_a_folder_is_described_by_its_module(tmp_path: Path, job_file: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    job_file.rename(folder / "job.py")
    loaded = await load_apart(folder)
    assert loaded.description == "How punctual is each carrier?"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\n", "there is no job in it"),
        ("import nothing_of_that_name\n", "finds nothing"),
        ("def broken(:\n", "not Python"),
        ("import os\nos.write(2, b'last words')\nos._exit(7)\n", "status 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "status -9"),
        ("raise SystemExit(3)\n", "does not import"),
    ],
)
async def test_a_file_that_does_not_load_says_why(job_file: Path, code: str, words: str) -> None:
    job_file.write_text(code)
    with pytest.raises(JobFileError, match=words) as refused:
        await load_apart(job_file)
    assert "punctuality.py" in str(refused.value)
    if "status 7" in words:
        assert "last words" in str(refused.value)


async def test_the_line_is_named(job_file: Path) -> None:
    job_file.write_text(JOB.replace("flights: Sum[int] = 1", "flights: Sum[float] = 1"))
    with pytest.raises(JobFileError) as refused:
        await load_apart(job_file)
    assert refused.value.line == JOB[: JOB.index("flights: Sum")].count("\n") + 1
    assert refused.value.remedy


async def test_a_file_that_does_not_end_is_ended(job_file: Path) -> None:
    job_file.write_text("while True: pass\n")
    with pytest.raises(JobFileError, match=r"did not load within 0\.5 s"):
        await load_apart(job_file, timeout_s=0.5)


async def test_what_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        await load_apart(tmp_path / "nothing.py")
