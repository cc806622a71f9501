"""TCP ports on 127.0.0.1 that nobody else takes, and who listens on one."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import tempfile
from pathlib import Path

from deploy.local.ports import HOST, is_free
from tests.support.workers import children_of

__all__ = ["HOST", "listens", "own_port"]

# Below the ports that a local stack chooses from, and below those of outgoing connections.
_FIRST, _LAST = 10_000, 19_999
_LOCKS = Path(tempfile.gettempdir()) / f"turnout-test-ports-{os.getuid()}.lock"
_TRIED = 1_000  # of them, before all of them count as taken
_LISTENS = "0A"

_given: set[int] = set()


def own_port() -> int:
    """A port that nobody listens on, and that no other call gives out as long as this process lives, in whichever test
    session: what was killed on it finds it free again, and whoever is not there is nobody."""
    ports = random.SystemRandom()
    for port in ports.sample(range(_FIRST, _LAST + 1), _TRIED):
        if port not in _given and _lock(port):
            _given.add(port)
            if is_free(port):
                return port
    raise RuntimeError(
        f"None of {_TRIED:,} ports from {_FIRST} to {_LAST} was free. End test sessions that were left running; each "
        f"keeps what it was given: see `lslocks` for {_LOCKS}."
    )


def _lock(port: int) -> bool:
    """Whether it is this process's now; not where another one has it. Any other error is the lock file's."""
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system has it
        return False
    return True


@functools.cache
def _locks() -> int:
    """A file of which each byte is a port, locked by whom it was given to, until that process ends."""
    try:
        return os.open(_LOCKS, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RuntimeError(f"{_LOCKS}, by which test sessions share ports, cannot be opened: {error}.") from error


def listens(pid: int, port: int) -> bool:
    """Whether the process, or one that it has started, is the one that listens on the port. On a system without /proc
    nobody can tell, and it counts as the one."""
    try:
        sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    except OSError:
        return True
    return any(sockets & _files_of(one) for one in (pid, *children_of(pid)))


def _listening(port: int) -> list[str]:
    """The inodes of the sockets that listen on it."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError) if table.endswith("6") else contextlib.nullcontext():
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                    found.append(rest[5])
    return found


def _files_of(pid: int) -> set[str]:
    """What its open files are."""
    found = set()
    with contextlib.suppress(OSError):  # it has ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(file))
    return found
