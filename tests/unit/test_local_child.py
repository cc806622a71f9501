"""A guarded child process: ended with its guard's owner, killed whole, recognised when left over."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from deploy.local import child as child_module
from deploy.local.child import Child
from deploy.local.errors import LocalStackError
from tests.support.eventually import eventually

_ENVIRONMENT = {"PATH": os.environ["PATH"]}

# Says "up" when it is ready to be signalled; arguments are not used, they make it recognisable.
_SLEEPER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
_STUBBORN = [
    sys.executable,
    "-c",
    "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: signal.pause()",
]
_WITH_CHILDREN = [
    sys.executable,
    "-c",
    "import os, signal\n"
    "for _ in range(2):\n"
    "    if os.fork() == 0:\n"
    "        os.setsid()\n"
    "        print(os.getpid(), flush=True)\n"
    "        signal.pause()\n"
    "print('up', flush=True)\n"
    "signal.pause()",
]


def _child(run_dir: Path, grace_s: float = 20.0) -> Child:
    return Child("Part", run_dir=run_dir, log=run_dir / "part.log", stop_signal=signal.SIGTERM, grace_s=grace_s)


async def _up(child: Child, command: list[str], lines: int = 1) -> list[str]:
    await child.start([*command, child.log.parent], environment=_ENVIRONMENT)

    async def said() -> list[str]:
        said = child.log_since_start().split()
        return said if len(said) == lines else []

    return await eventually(said)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # gone, or going as it is read
        return False


async def _gone(*pids: int) -> None:
    async def gone() -> bool:
        return not any(map(_runs, pids))

    await eventually(gone)


async def test_exit_status_and_output(tmp_path: Path) -> None:
    child = _child(tmp_path)
    status = await child.run([sys.executable, "-c", "print('out'); raise SystemExit(7)"], environment=_ENVIRONMENT)
    assert status == 7
    assert child.log_since_start() == "out\n"
    assert not child.running
    assert await child.run([sys.executable, "-c", "print('again')"], environment=_ENVIRONMENT) == 0
    assert child.log_since_start() == "again\n", "only what it wrote since its last start"
    assert child.log.read_text() == "out\nagain\n", "the file keeps everything"


async def test_command_that_does_not_exist(tmp_path: Path) -> None:
    child = _child(tmp_path)
    assert await child.run([tmp_path / "nothing"], environment=_ENVIRONMENT) == 125
    assert "cannot start" in child.log_since_start()


async def test_only_the_given_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    child = _child(tmp_path)
    show = [sys.executable, "-c", "import os; print('PGPORT' in os.environ, os.environ['SECRET'])"]
    assert await child.run(show, environment={**_ENVIRONMENT, "SECRET": "s"}) == 0
    assert child.log_since_start() == "False s\n"


async def test_stop(tmp_path: Path) -> None:
    child = _child(tmp_path)
    await _up(child, _SLEEPER)
    pid = child.pid
    assert pid is not None
    assert _runs(pid)
    await child.stop()
    assert not _runs(pid)
    assert not child.running
    assert child.pid is None
    assert not child.ended_by_itself
    await child.stop()
    await child.kill()


async def test_stop_of_one_that_does_not_listen(tmp_path: Path) -> None:
    child = _child(tmp_path, grace_s=0.1)
    await _up(child, _STUBBORN)
    pid = child.pid
    assert pid is not None
    await child.stop()
    assert not _runs(pid)


async def test_kill_takes_the_whole_family(tmp_path: Path) -> None:
    child = _child(tmp_path)
    said = await _up(child, _WITH_CHILDREN, lines=3)
    family = [int(word) for word in said if word != "up"]
    await child.kill()
    assert not any(map(_runs, family))


async def test_the_family_of_a_crashed_child_ends_too(tmp_path: Path) -> None:
    child = _child(tmp_path)
    said = await _up(child, _WITH_CHILDREN, lines=3)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert await child.wait() == 128 + signal.SIGKILL
    assert not any(_runs(int(word)) for word in said if word != "up")


async def test_end_by_itself_is_seen(tmp_path: Path) -> None:
    child = _child(tmp_path)
    await _up(child, _SLEEPER)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGTERM)

    async def ended() -> bool:
        return child.ended_by_itself

    await eventually(ended)
    assert not child.running
    assert child.killed_by is signal.SIGTERM
    await child.stop()


async def test_an_end_of_its_own_is_no_signal(tmp_path: Path) -> None:
    child = _child(tmp_path)
    await child.start([sys.executable, "-c", "raise SystemExit(7)"], environment=_ENVIRONMENT)
    assert child.killed_by is None, "not known while it runs"

    async def ended() -> bool:
        return child.ended_by_itself

    await eventually(ended)
    assert child.killed_by is None
    assert await child.wait() == 7


async def test_a_stop_that_is_cancelled_is_a_stop_all_the_same(tmp_path: Path) -> None:
    child = _child(tmp_path, grace_s=0.5)
    await _up(child, _STUBBORN)
    pid = child.pid
    assert pid is not None
    stop = asyncio.ensure_future(child.stop())
    await asyncio.sleep(0)
    for _ in range(2):
        stop.cancel()
        await asyncio.sleep(0)
    assert not stop.done()
    with pytest.raises(asyncio.CancelledError):
        await stop
    assert not _runs(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signal for a parent's death")
async def test_guard_killed(tmp_path: Path) -> None:
    child = _child(tmp_path)
    await _up(child, _SLEEPER)
    pid = child.pid
    assert pid is not None
    os.kill(int((tmp_path / "part.lock").read_text().split()[0]), signal.SIGKILL)
    await _gone(pid)
    await child.stop()


async def test_leftover_is_ended_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_LEFTOVER_GRACE_S", 0.1)
    crashed = _child(tmp_path)
    await _up(crashed, _STUBBORN)
    pid = crashed.pid
    assert pid is not None
    os.kill(int((tmp_path / "part.lock").read_text().split()[0]), signal.SIGKILL)
    await crashed.wait()
    assert _runs(pid), "it does not listen to the stop signal"

    following = _child(tmp_path)
    await _up(following, _SLEEPER)
    assert not _runs(pid)
    await following.stop()


async def test_leftover_that_is_not_ours_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is held, but the process ids on file belong to somebody else by now."""
    monkeypatch.setattr(child_module, "_LEFTOVER_GRACE_S", 0.1)
    holder = _child(tmp_path)
    await _up(holder, _SLEEPER)
    bystander = await asyncio.create_subprocess_exec(*_SLEEPER, stdout=asyncio.subprocess.DEVNULL)
    (tmp_path / "part.lock").write_text(f"{bystander.pid}\n")
    with pytest.raises(LocalStackError, match=r"does not end: end what holds part.lock"):
        await _child(tmp_path).start(_SLEEPER, environment=_ENVIRONMENT)
    assert bystander.returncode is None
    bystander.kill()
    await bystander.wait()
    await holder.stop()


async def test_the_lock_outlives_the_guard(tmp_path: Path) -> None:
    """So that a second PostgreSQL can never be started beside the backends of the first."""
    child = _child(tmp_path)
    await _up(child, _STUBBORN)
    assert child.pid is not None
    os.kill(int((tmp_path / "part.lock").read_text().split()[0]), signal.SIGKILL)
    pid = child.pid
    await child.wait()
    guard = Path(child_module.__file__).with_name("guard.py")
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, guard, "--lock", tmp_path / "part.lock", "--stop-signal", "SIGTERM", "--grace-s", "1"),
        *("--", "true"),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await second.communicate()
    assert second.returncode == 125
    assert b"an earlier process is still running" in said
    os.kill(pid, signal.SIGKILL)
    await _gone(pid)


async def test_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_LOG_BYTES_MAX", 3)
    child = _child(tmp_path)
    for word in ("first", "second", "third"):
        await child.run([sys.executable, "-c", f"print('{word}')"], environment=_ENVIRONMENT)
    assert child.log.read_text() == "third\n"
    assert (tmp_path / "part.log.1").read_text() == "second\n"
