"""Loading an artefact: one job, or an error with file, line, reason and what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from turnout.job import JobFileError, load
from turnout.testing import run

HEAD = """\
from turnout import Delete, Key, LastBy, Max, Record, Row, Sum, aggregate, fold, map

class Event(Record):
    id: str

class Total(Row):
    id: Key[str]
    n: Sum[int] = 1

"""
JOB = """\
@aggregate("totals", topic="events")
def totals(event: Event) -> Total:
    return Total(event.id)
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def refused(path: Path) -> JobFileError:
    before = set(sys.modules)
    with pytest.raises(JobFileError) as error:
        load(path)
    assert not {name for name in set(sys.modules) - before if name.startswith("turnout_job_")}
    return error.value


def test_a_file(tmp_path: Path) -> None:
    path, search = write(tmp_path / "my-job.py", HEAD + JOB), list(sys.path)
    one, other = load(path), load(str(path))
    assert one.definition == other.definition
    assert one is not other
    assert [row.n for row in run(one, [{"id": "a"}, {"id": "a"}])] == [2]  # type: ignore[attr-defined]
    assert sys.path == search
    assert [file.name for file in tmp_path.iterdir()] == ["my-job.py"]


def test_postponed_annotations(tmp_path: Path) -> None:
    path = write(tmp_path / "a.py", "from __future__ import annotations\n" + HEAD + JOB)
    assert load(path).definition.job == "totals"


def test_a_folder(tmp_path: Path) -> None:
    write(
        tmp_path / "job" / "job.py",
        HEAD.replace("class Event", "from .parts.rules import unit\n\nclass Event")
        + JOB.replace("event.id", "unit(event.id)"),
    )
    write(
        tmp_path / "job" / "parts" / "rules.py",
        "def unit(id: str) -> str:\n    from ..names import suffix\n    return id + suffix\n",
    )
    write(tmp_path / "job" / "names.py", "suffix = '!'\n")
    write(tmp_path / "job" / ".hidden.py", "not python")
    job = load(tmp_path / "job")
    assert [row.id for row in run(job, [{"id": "a"}])] == ["a!"]  # type: ignore[attr-defined]
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_folder_with_an_init(tmp_path: Path) -> None:
    write(tmp_path / "job" / "__init__.py", "from .rules import totals\n")
    write(tmp_path / "job" / "rules.py", HEAD + JOB)
    write(tmp_path / "job" / "sub" / "__init__.py", "")
    assert load(tmp_path / "job").definition.job == "totals"


def test_a_refused_file_in_an_init(tmp_path: Path) -> None:
    write(tmp_path / "job" / "__init__.py", "x = 1\ny = x / 0\n")
    error = refused(tmp_path / "job")
    assert (error.file, error.line) == ("__init__.py", 2)


BAD_SUM = HEAD.replace("Sum[int]", "Sum[str]").replace("= 1", "= ''")
REFUSED = [
    ("syntax", "x = 1\ndef f(:\n", 2, "the file is not Python: invalid syntax", "mend the line; this is Python 3.11"),
    ("name", "x = 1\ny = nothing\n", 2, "the file does not import: NameError: name 'nothing'", "at the top level"),
    ("exit", "import sys\nsys.exit(3)\n", 2, "the file does not import: SystemExit: 3", "only defines"),
    ("empty", "", 0, "there is no job in it", "docs/jobs.md#what-a-job-can-express"),
    ("two", HEAD + JOB + JOB.replace("totals", "others"), 0, "there are 2 jobs in it: 'others', 'totals'", "one job"),
    (
        "missing",
        "import nowhere_to_be_found\n" + HEAD + JOB,
        1,
        "import of 'nowhere_to_be_found' finds nothing",
        "requirements=",
    ),
    (
        "outside",
        HEAD + "import pytest\n" + JOB,
        10,
        "imports 'pytest', which is neither in the standard library",
        'requirements=["pytest==',
    ),
    ("inside", HEAD + JOB + "    import msgspec.json\n", 13, "the file imports 'msgspec'", 'requirements=["msgspec=='),
    (
        "type",
        HEAD.replace("n: Sum[int] = 1", "n: Sum[complex]") + JOB,
        8,
        "has the type complex, which maps to no column",
        "int, float, bool, str, bytes, date, datetime, Decimal, UUID, an Enum, list, dict",
    ),
    ("key", HEAD.replace("Key[str]", "Sum[int]") + JOB, 6, "the row has no key", "mark at least one column as Key"),
    ("sum", BAD_SUM + JOB, 8, "Sum column 'n' is string", "only int and Decimal are summed"),
    ("last-by", HEAD.replace("n: Sum[int] = 1", "n: LastBy[int]") + JOB, 8, "names no ordering column", "last_by="),
    ("topic", HEAD + JOB.replace('"events"', '"a b"'), 6, "'a b' is not the name of a Kafka topic", "use 1 to 249"),
    ("no-topic", HEAD + JOB.replace(', topic="events"', ""), 10, "by topic= or by topics=", "give one of the two"),
    ("order", HEAD.replace("Sum[int]", "int") + JOB.replace("aggregate", "map"), 6, "exactly one order", "order_by="),
    (
        "several",
        HEAD + JOB.replace("-> Total", "-> Total | Event"),
        11,
        "returns Event, which is not a row type",
        "docs/jobs.md#what-a-job-can-express",
    ),
    (
        "async",
        HEAD + JOB.replace("def totals", "async def totals"),
        11,
        "is async",
        "docs/jobs.md#what-a-job-can-express",
    ),
    ("unpinned", HEAD + JOB.replace('"events"', '"events", requirements=["numpy"]'), 10, "not pinned", "name==version"),
    (
        "absent",
        HEAD + JOB.replace('"events"', '"events", requirements=["no-such-thing==1"]'),
        0,
        "requires no-such-thing==1, but this Python does not have it",
        "pip install no-such-thing==1",
    ),
    (
        "other-version",
        HEAD + JOB.replace('"events"', '"events", requirements=["msgspec==0.0.1"]'),
        0,
        "requires msgspec==0.0.1, but this Python has ",
        "pip install msgspec==0.0.1",
    ),
]


@pytest.mark.parametrize(
    ("text", "line", "reason", "remedy"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_refused_files(tmp_path: Path, text: str, line: int, reason: str, remedy: str) -> None:
    error = refused(write(tmp_path / "job.py", text))
    assert reason in error.reason
    assert remedy in error.remedy
    assert (error.file, error.line) == ("job.py", line)
    where = f"job.py:{line}" if line else "job.py"
    assert str(error) == f"{where}: {error.reason}\n  {error.remedy}"


def test_a_required_import_is_accepted(tmp_path: Path) -> None:
    import msgspec

    requirement = f'"events", requirements=["msgspec=={msgspec.__version__}"]'
    path = write(tmp_path / "job.py", "import msgspec\n" + HEAD + JOB.replace('"events"', requirement))
    assert load(path).definition.requirements == (f"msgspec=={msgspec.__version__}",)


def test_what_is_not_there(tmp_path: Path) -> None:
    error = refused(tmp_path / "nothing.py")
    assert (error.file, error.line) == ("nothing.py", 0)
    assert error.reason == "the file cannot be read: No such file or directory"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").reason == "the folder holds no Python file"


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_bytes(b"x = '\xff'\n")
    assert refused(tmp_path / "job.py").reason.startswith("the file is not Python")
    (tmp_path / "job.py").write_bytes(b"x = '\0'\n")
    assert refused(tmp_path / "job.py").reason.startswith("the file is not Python")


def test_siblings_are_imported_relatively(tmp_path: Path) -> None:
    write(tmp_path / "job" / "main.py", "import rules\n" + HEAD + JOB)
    write(tmp_path / "job" / "rules.py", "")
    error = refused(tmp_path / "job")
    assert (error.file, error.line) == ("main.py", 1)
    assert error.remedy == "modules of one folder import one another relatively: from .rules import ..."
    error = refused(tmp_path / "job" / "main.py")
    assert error.remedy == "put both into a folder of their own and name the folder"


def test_an_error_names_the_file_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "job" / "main.py", "from .deep.rules import x\n" + HEAD + JOB)
    write(tmp_path / "job" / "deep" / "rules.py", "\n\nx = 1 / 0\n")
    error = refused(tmp_path / "job")
    assert (error.file, error.line) == ("deep/rules.py", 3)
    assert "ZeroDivisionError" in error.reason


@pytest.mark.parametrize("head", [HEAD, HEAD.replace("from turnout import", "import turnout\nfrom turnout import")])
def test_a_folder_of_several_job_files_is_not_run_and_not_one_job(tmp_path: Path, head: str) -> None:
    decorator = "@aggregate(" if head == HEAD else "@turnout.aggregate("
    for name in ("one", "two"):
        write(tmp_path / "jobs" / f"{name}.py", head + JOB.replace("@aggregate(", decorator) + "\nraise SystemExit\n")
    write(tmp_path / "jobs" / "main.py", "import jobs.one\n")
    error = refused(tmp_path / "jobs")
    assert (error.file, error.line) == ("jobs", 0)
    assert error.reason == "the folder is not one job: 2 of its files define jobs (one.py, two.py)"
    assert error.remedy == "name one of these files, or a folder that holds one job"
