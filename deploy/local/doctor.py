"""`python -m deploy.local.doctor`: names what this machine lacks for `make demo`, one line each.

Standard library only: it has to run where nothing is installed yet.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deploy.local import kafka_jars, postgres_programs
from deploy.local.errors import LocalStackError
from deploy.local.ports import DEFAULT_PORT, is_free

PYTHON_MIN = (3, 11)
FREE_GIB_MIN = 3
_DISTRIBUTION = "turnout-server"
_WITHIN_S = 20
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:[^;]*);?(.*)$")


class Finding(NamedTuple):
    """One thing looked at. `note` says what was found; when it is not ok, also what to do."""

    ok: bool
    subject: str
    note: str


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON_MIN:
        wanted = ".".join(map(str, PYTHON_MIN))
        return Finding(False, "Python", f"{version} is too old: install {wanted} or later and make it `python3`")
    return Finding(True, "Python", version)


def packages() -> Finding:
    """Whether the distributions that the server and its embedded stack require are installed for this Python."""
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return Finding(False, "Python packages", "not installed for this Python: run `make setup`")
    missing = []
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        assert match is not None, requirement
        name, condition = match.groups()
        if ("extra" not in condition or "local" in condition) and not _installed(name):
            missing.append(name)
    if missing:
        return Finding(False, "Python packages", f"missing: {', '.join(missing)}; run `make setup`")
    return Finding(True, "Python packages", f"installed in {sys.prefix}")


def maven() -> Finding:
    path = shutil.which("mvn")
    if path is not None:
        return Finding(True, "Maven", path)
    if kafka_jars.fetched():
        return Finding(True, "Maven", "not found, and not needed any more: the Kafka broker is fetched")
    return Finding(False, "Maven", "not found: install it (package `maven`) so that `mvn` is in the PATH")


def kafka_broker() -> Finding:
    if kafka_jars.fetched():
        return Finding(True, "Kafka broker", f"fetched, in {kafka_jars.directory()}")
    return Finding(False, "Kafka broker", "not fetched yet: run `make setup` (once, about 45 MB)")


def postgres() -> Finding:
    """Whether the embedded PostgreSQL runs here, as the account that it would run as."""
    subject = "PostgreSQL"
    try:
        program = postgres_programs.program("postgres")
    except LocalStackError:
        return Finding(False, subject, "its package is not installed for this Python: run `make setup`")
    account = postgres_programs.account()
    try:
        status, said = _guarded([str(program), "--version"], account)
    except subprocess.TimeoutExpired:
        return Finding(False, subject, f"{program} does not end: use your own with --postgres URL")
    if status == 0:
        return Finding(True, subject, said + (f", run as the account {account}" if account else ""))
    as_whom = f" as the account {account} (it refuses to run as root)" if account else ""
    return Finding(
        False,
        subject,
        f"does not run{as_whom}: {said or f'exit status {status}'}. Work as an ordinary user, or use your own with "
        f"--postgres URL",
    )


def _guarded(command: list[str], account: str | None) -> tuple[int, str]:
    """Run a command the way the stack runs it; exit status and last line of its output."""
    guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), "--stop-signal", "SIGTERM"]
    guard += ["--grace-s", "1"] + (["--account", account] if account else [])
    read_end, write_end = os.pipe()  # the guard ends its child when this pipe ends
    try:
        with tempfile.TemporaryDirectory() as directory:
            run = subprocess.run(  # noqa: S603  # our own guard
                [*guard, "--lock", str(Path(directory) / "lock"), "--", *command],
                stdin=read_end,
                capture_output=True,
                text=True,
                timeout=_WITHIN_S,
                env=postgres_programs.environment(),
                check=False,
            )
    finally:
        os.close(read_end)
        os.close(write_end)
    lines = run.stderr.strip().splitlines()
    return run.returncode, lines[-1] if lines else ""


def port() -> Finding:
    subject = f"Port {DEFAULT_PORT}"
    if is_free(DEFAULT_PORT):
        return Finding(True, subject, "free")
    return Finding(False, subject, "taken by another process (`turnout dev` already?): stop it, or use --port")


def disk() -> Finding:
    free_gib = shutil.disk_usage(Path.cwd()).free / 1024**3
    if free_gib < FREE_GIB_MIN:
        return Finding(False, "Disk", f"{free_gib:.1f} GiB free here, {FREE_GIB_MIN} are needed: free some space")
    return Finding(True, "Disk", f"{free_gib:.0f} GiB free here")


CHECKS: tuple[Callable[[], Finding], ...] = (python, packages, maven, kafka_broker, postgres, port, disk)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> int:
    """Exit status 1 when something is missing."""
    findings = [check() for check in CHECKS]
    for finding in findings:
        print(f"{'ok' if finding.ok else 'missing':<8} {finding.subject:<16} {finding.note}")
    return 0 if all(finding.ok for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
