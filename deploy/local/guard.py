"""Runs one child process and never leaves it behind. Standard library only; started as a script of its own.

    python -I -S guard.py --lock FILE --stop-signal NAME --grace-s SECONDS [--account NAME] -- COMMAND...

Theory of operation. Between the stack and PostgreSQL (or Kafka, or the services) stands this small process:

- Its standard input is a pipe held by the stack. The end of that pipe, however it comes about (a clean stop, or the
  stack killed with SIGKILL), means: stop the child with its own stop signal, and after the grace kill it.
  The byte ``K`` means: kill it now, as a crash would.
- It leads a session of its own, so that Ctrl-C in a terminal reaches the stack alone, which then stops the parts.
- FILE is locked (flock) by the guard, and the lock is inherited by the child and its children. The lock is free
  exactly when nothing of them is left: the next start on the same data directory relies on it.
- On Linux the guard adopts orphans (PostgreSQL's backends put themselves into sessions of their own), so that
  its end means the end of all of them, and the child is told to stop should the guard itself be killed.
- PostgreSQL refuses to run as root. A root guard runs it as the account given, with the one capability to pass
  directories that only root may enter (a checkout under a private home), rather than by opening them to everyone.

Its standard output carries one line, the child's process id. Its exit status is the child's; 125 means that the child
could not be started, with the reason on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path

_LINUX = sys.platform == "linux"
_EXIT_NOT_STARTED = 125

# <linux/prctl.h> and <linux/capability.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def _prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)][:4]
    if libc.prctl(option, *padded) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def _become(account: str) -> None:
    """Change this process to the account; on Linux keep CAP_DAC_OVERRIDE alone, across exec."""
    import pwd

    entry = pwd.getpwnam(account)
    if _LINUX:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([entry.pw_gid])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if not _LINUX:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    mask = 1 << _CAP_DAC_OVERRIDE
    sets = struct.pack("IIIIII", mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; low, high word
    if libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(sets)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"capset: {os.strerror(error)}")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE)


def _exec_child(command: list[str], account: str | None, stop_signal: signal.Signals) -> None:
    """In the forked child: become what it shall be and never return."""
    try:
        guard = os.getppid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if account is not None:
            _become(account)
        if _LINUX:
            _prctl(_PR_SET_PDEATHSIG, stop_signal)  # after the change of account, which would clear it
            if os.getppid() != guard:
                os._exit(_EXIT_NOT_STARTED)
        quiet = os.open(os.devnull, os.O_RDWR)
        os.dup2(quiet, 0)
        os.dup2(2, 1)  # standard output was the guard's report line; the log is standard error
        os.execvp(command[0], command)  # noqa: S606  # the command is the stack's own
    except BaseException as error:
        os.write(2, f"cannot start {command[0]}: {error}\n".encode())
        os._exit(_EXIT_NOT_STARTED)


def _lock(path: Path) -> int:
    """Take the lock that everything started from here inherits. Its content names the guard, for a later start."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write(f"{path} is locked: an earlier process is still running\n")
        sys.exit(_EXIT_NOT_STARTED)
    os.set_inheritable(lock, True)
    return lock


class _Child:
    """The child and whatever it leaves behind."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def reap(self) -> bool:
        """Collect what has ended; True when nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.pid:
                self.status = status

    def signal(self, number: int) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_all(self) -> None:
        self.signal(signal.SIGKILL)
        if not _LINUX:
            return
        with contextlib.suppress(OSError):
            for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def _watch(child: _Child, wakeup: int, stop_signal: signal.Signals, grace_s: float) -> None:
    """Until nothing is left: pass on the end of standard input as a stop, kill what outlives the grace."""
    inputs = [0, wakeup]
    kill_at: float | None = None
    while not child.reap():
        now = time.monotonic()
        if child.status is not None and kill_at is None:
            kill_at = now + 1.0  # the child is gone; its children (backends) get a moment to notice
        if kill_at is not None and now >= kill_at:
            child.kill_all()
            kill_at = now + 1.0
        ready, _, _ = select.select(inputs, [], [], None if kill_at is None else max(0.0, kill_at - now))
        if wakeup in ready:
            for number in os.read(wakeup, 64):
                if number in (signal.SIGTERM, signal.SIGINT):
                    child.signal(stop_signal)
                    kill_at = time.monotonic() + grace_s
        if 0 in ready:
            command = os.read(0, 1)
            if command == b"K":
                child.kill_all()
                kill_at = time.monotonic()
            elif not command:
                inputs.remove(0)
                if kill_at is None:
                    child.signal(stop_signal)
                    kill_at = time.monotonic() + grace_s


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one child process and never leave it behind.")
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--stop-signal", type=lambda name: signal.Signals[name], required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--account")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    lock = _lock(options.lock)
    if _LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # delivered through the wake-up pipe
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)

    pid = os.fork()
    if pid == 0:
        _exec_child(options.command, options.account, options.stop_signal)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {pid}\n".encode(), 0)
    print(pid, flush=True)
    child = _Child(pid)
    _watch(child, wakeup, options.stop_signal, options.grace_s)
    status = child.status
    if status is None:
        return _EXIT_NOT_STARTED
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.exit(main())
