"""Fetches pinned jars with Maven, once, into a cache folder named after the pom.xml that pins them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import LocalStackError

_LOCK_POLL_S = 0.2
_MAVEN_PREFIX = "[ERROR]"


@dataclass(frozen=True)
class Jars:
    """The runtime jars of `pom`, copied into a folder of `cache`.

    `marker` is a glob of a jar that must be among them; `what` names them to a person, and `otherwise` ends the
    sentence of an error with what to do instead, if there is something.
    """

    pom: Path
    cache: Path
    marker: str
    what: str
    otherwise: str = ""

    def directory(self) -> Path:
        """Where the jars of the pinned versions are, or will be."""
        return self.cache / hashlib.sha256(self.pom.read_bytes()).hexdigest()[:12]

    def fetched(self) -> bool:
        return self.directory().is_dir()

    async def ensure(self) -> Path:
        """The folder with the jars, fetched first if need be. Safe from several processes at once."""
        if self.fetched():
            return self.directory()
        maven = shutil.which("mvn")
        if maven is None:
            raise LocalStackError(
                f"Maven is missing, which fetches {self.what} once: install it (package `maven`) so that `mvn` is in "
                f"the PATH{self.otherwise}"
            )
        self.cache.mkdir(parents=True, exist_ok=True)
        async with _locked(self.cache / "fetch.lock"):
            if not self.fetched():
                await self._fetch(maven)
        return self.directory()

    async def _fetch(self, maven: str) -> None:
        unfinished = self.directory().with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        process = await asyncio.create_subprocess_exec(
            *(maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(self.pom)),
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
        if process.returncode != 0 or not any(unfinished.glob(self.marker)):
            log = self.cache / "maven.log"
            log.write_bytes(output)
            said = [line for line in output.decode(errors="replace").splitlines() if line.startswith(_MAVEN_PREFIX)]
            reason = said[0].removeprefix(_MAVEN_PREFIX).strip()[:300] if said else f"exit status {process.returncode}"
            raise LocalStackError(
                f"Maven could not fetch {self.what}: {reason} (log: {log}). Check the network and Maven's settings "
                f"and start again{self.otherwise}"
            )
        unfinished.rename(self.directory())


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
