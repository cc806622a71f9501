"""Fetches the embedded Kafka broker with Maven, once, into a cache folder named after the pinned pom.xml."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from deploy.local.errors import LocalStackError

_POM = Path(__file__).with_name("pom.xml")
_CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
_LOCK_POLL_S = 0.2
_MAVEN_PREFIX = "[ERROR]"


def directory() -> Path:
    """Where the jars of the pinned version are, or will be."""
    return _CACHE / hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]


def fetched() -> bool:
    return directory().is_dir()


async def ensure() -> Path:
    """The folder with the jars, fetched first if need be: about 10 s, 45 MB. Safe from several processes at once."""
    if fetched():
        return directory()
    maven = shutil.which("mvn")
    if maven is None:
        raise LocalStackError(
            "Maven is missing, which fetches the embedded Kafka broker once: install it (package `maven`) so that "
            "`mvn` is in the PATH, or use your own Kafka with --kafka HOST:PORT"
        )
    _CACHE.mkdir(parents=True, exist_ok=True)
    async with _locked(_CACHE / "fetch.lock"):
        if not fetched():
            await _fetch(maven)
    return directory()


async def _fetch(maven: str) -> None:
    unfinished = directory().with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    process = await asyncio.create_subprocess_exec(
        *(maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(_POM)),
        *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or not any(unfinished.glob("kafka_*.jar")):
        log = _CACHE / "maven.log"
        log.write_bytes(output)
        said = [line for line in output.decode(errors="replace").splitlines() if line.startswith(_MAVEN_PREFIX)]
        reason = said[0].removeprefix(_MAVEN_PREFIX).strip()[:300] if said else f"exit status {process.returncode}"
        raise LocalStackError(
            f"Maven could not fetch the embedded Kafka broker: {reason} (log: {log}). Check the network and Maven's "
            f"settings and start again, or use your own Kafka with --kafka HOST:PORT"
        )
    unfinished.rename(directory())


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    try:
        asyncio.run(ensure())
    except LocalStackError as error:
        sys.exit(f"turnout: {error}")
