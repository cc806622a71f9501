"""The doctor names what is missing, and what to do about it, with an exit status for scripts."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from deploy.local import doctor, kafka_jars, postgres_programs
from deploy.local.errors import LocalStackError
from deploy.local.ports import HOST


def test_all_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    well = doctor.Finding(True, "Thing", "here")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: well, lambda: well))
    assert doctor.main() == 0
    assert capsys.readouterr().out == "ok       Thing            here\n" * 2


def test_something_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    well, ill = doctor.Finding(True, "Thing", "here"), doctor.Finding(False, "Other", "not here: get it")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: ill, lambda: well))
    assert doctor.main() == 1
    assert capsys.readouterr().out.splitlines()[0] == "missing  Other            not here: get it"


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.python().ok
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    finding = doctor.python()
    assert not finding.ok
    assert finding.note.startswith("3.10.4 is too old: install 3.11 or later")


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.packages().ok, "the environment of the tests has them"
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda _: ["pytest>=1", "not-there>=1", 'not-local; extra == "local"', 'not-wanted; extra == "other"'],
    )
    assert doctor.packages().note == "missing: not-there, not-local; run `make setup`"


def test_packages_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_DISTRIBUTION", "not-there")
    assert "run `make setup`" in doctor.packages().note
    assert not doctor.packages().ok


def test_maven_and_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kafka_jars, "_CACHE", tmp_path / "cache")
    assert not doctor.maven().ok
    assert "install it" in doctor.maven().note
    assert not doctor.kafka_broker().ok
    kafka_jars.directory().mkdir(parents=True)
    assert doctor.kafka_broker().ok
    assert doctor.maven().ok, "not needed once the broker is fetched"


def test_postgres_runs_here() -> None:
    finding = doctor.postgres()
    assert finding.ok, finding.note
    assert "(PostgreSQL) 18" in finding.note


@pytest.mark.skipif(postgres_programs.account() is None, reason="only a root user runs PostgreSQL as another account")
def test_postgres_as_root_without_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_programs, "ROOT_RUNS_AS", "no-such-account")
    finding = doctor.postgres()
    assert not finding.ok
    assert "as the account no-such-account (it refuses to run as root)" in finding.note
    assert "Work as an ordinary user" in finding.note


def test_postgres_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_programs, "_WHEEL", "not_there")
    with pytest.raises(LocalStackError, match="not installed"):
        postgres_programs.program("postgres")
    assert "run `make setup`" in doctor.postgres().note


def test_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as server:
        monkeypatch.setattr(doctor, "DEFAULT_PORT", server.getsockname()[1])
        assert not doctor.port().ok
    assert doctor.port().ok


def test_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2**30))
    assert not doctor.disk().ok
    assert "1.0 GiB free here, 3 are needed" in doctor.disk().note


def test_needs_nothing_installed() -> None:
    """It has to run with the system's Python, before anything is set up."""
    run = subprocess.run(
        [sys.executable, "-S", "-m", "deploy.local.doctor"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "missing  Python packages" in run.stdout
    assert "Traceback" not in run.stderr
