"""The embedded stack against its promises: data kept, nothing left behind, one clear line when it cannot start."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import stat
import sys
import textwrap
from collections import namedtuple
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from deploy.local import kafka_jars
from deploy.local.errors import LocalStackError
from deploy.local.ports import HOST
from deploy.local.stack import LocalStack
from tests.support.eventually import eventually
from tests.support.topics import Record, Topics

# Starts a stack, says so, and waits to be ended.
_HOLDER = """
    import asyncio, sys
    from pathlib import Path
    from deploy.local.stack import LocalStack

    async def main():
        async with LocalStack(Path(sys.argv[1])) as stack:
            print(*stack.pids.values(), flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for the tests of this module, each of which leaves it stopped: creating data takes longest."""
    return tmp_path_factory.mktemp("local-stack")


@asynccontextmanager
async def _held_by_another_process(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """A process with a running stack on the directory, and the process ids of its parts."""
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(_HOLDER), str(data_dir)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        pids = [int(word) for word in (await holder.stdout.readline()).split()]
        assert len(pids) == 2, "the stack did not start"
        yield holder, pids
    finally:
        if holder.returncode is None:
            holder.kill()
        await holder.wait()


def _running(data_dir: Path) -> list[str]:
    """Command lines of the processes that have to do with the directory, this one left out."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(data_dir) in line and int(entry.parent.name) != os.getpid():
            lines.append(line)
    return lines


async def _nothing_left(data_dir: Path) -> None:
    async def gone() -> bool:
        left = _running(data_dir)
        assert not left, f"still running: {left}"
        return True

    await eventually(gone)


async def _rows(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n serial)")
        await connection.execute("INSERT INTO kept DEFAULT VALUES")
        return [row["n"] for row in await connection.fetch("SELECT n FROM kept ORDER BY n")]
    finally:
        await connection.close()


async def test_data_are_kept_and_nothing_is_left_behind(data_dir: Path) -> None:
    async with LocalStack(data_dir) as stack:
        assert await _rows(stack.postgres) == [1]
        topics = Topics(stack.kafka)
        await topics.create(1, name="kept")
        await topics.produce("kept", [Record(b"x")] * 10)
    await _nothing_left(data_dir)

    async with LocalStack(data_dir) as stack:
        assert await _rows(stack.postgres) == [1, 2]
        topics = Topics(stack.kafka)
        assert await topics.end_offsets("kept") == {0: 10}
        await topics.delete("kept")
    await _nothing_left(data_dir)


async def test_two_stacks_side_by_side(data_dir: Path, fault_stack: LocalStack) -> None:
    async with LocalStack(data_dir) as stack:
        assert stack.kafka != fault_stack.kafka
        assert stack.postgres != fault_stack.postgres
        assert await _rows(stack.postgres)
        assert await _rows(fault_stack.postgres)
        topics, others = Topics(stack.kafka), Topics(fault_stack.kafka)
        await topics.create(1, name="same-name")
        await others.create(1, name="same-name")
        await topics.produce("same-name", [Record(b"x")])
        assert await others.end_offsets("same-name") == {0: 0}
        await topics.delete_all()
        await others.delete_all()


async def test_parent_killed(data_dir: Path) -> None:
    async with _held_by_another_process(data_dir) as (holder, _):
        holder.kill()
        await holder.wait()
        # At once: the start has to wait for the parts of the killed stack, which are just being stopped.
        async with LocalStack(data_dir) as stack:
            assert await _rows(stack.postgres)
    await _nothing_left(data_dir)


async def test_parent_killed_and_no_next_start(data_dir: Path) -> None:
    async with _held_by_another_process(data_dir) as (holder, _):
        holder.kill()
        await holder.wait()
        await _nothing_left(data_dir)
    assert "database system is shut down" in (data_dir / "logs" / "postgres.log").read_text().splitlines()[-1]


async def test_guards_killed_with_the_parent(data_dir: Path) -> None:
    async with _held_by_another_process(data_dir) as (holder, pids):
        guards = [int(Path(f"/proc/{pid}/stat").read_text().split()[3]) for pid in pids]
        for pid in [*guards, holder.pid]:
            os.kill(pid, signal.SIGKILL)
        await holder.wait()
        await _nothing_left(data_dir)


async def test_interrupt_from_the_terminal(data_dir: Path) -> None:
    async with _held_by_another_process(data_dir) as (holder, _):
        os.killpg(holder.pid, signal.SIGINT)  # what Ctrl-C does: the whole foreground group
        await holder.wait()
        assert not _running(data_dir), "stopped before the parent ends"
    assert "database system is shut down" in (data_dir / "logs" / "postgres.log").read_text().splitlines()[-1]


async def test_postgres_comes_back_on_its_port(fault_stack: LocalStack) -> None:
    dsn = fault_stack.postgres
    before = await _rows(dsn)
    for end in (fault_stack.kill_postgres, fault_stack.stop_postgres):
        await end()
        with pytest.raises(OSError):  # refused or reset, as the system likes
            await asyncpg.connect(dsn)
        await fault_stack.start_postgres()
        assert fault_stack.postgres == dsn
    assert len(await _rows(dsn)) == len(before) + 1


async def test_kafka_comes_back_on_its_port(fault_stack: LocalStack) -> None:
    bootstrap = fault_stack.kafka
    topics = Topics(bootstrap)
    topic = await topics.create(1)
    for produced, end in enumerate((fault_stack.kill_kafka, fault_stack.stop_kafka), 1):
        await topics.produce(topic, [Record(b"x")])
        await end()
        await fault_stack.start_kafka()
        assert fault_stack.kafka == bootstrap
        assert await topics.end_offsets(topic) == {0: produced}
    await topics.delete_all()


async def test_a_part_that_ends_by_itself_is_noticed(fault_stack: LocalStack) -> None:
    assert fault_stack.ended is None
    os.kill(fault_stack.pids["postgres"], signal.SIGTERM)

    async def noticed() -> bool:
        return fault_stack.ended is not None and fault_stack.ended.name == "PostgreSQL"

    await eventually(noticed)


async def test_secrets_stay_secret(fault_stack: LocalStack) -> None:
    match = re.search(r"turnout:([^@]+)@", fault_stack.postgres)
    assert match is not None
    password = match.group(1)
    assert len(password) >= 32
    assert password not in repr(fault_stack)
    assert not [line for line in _running(fault_stack.data_dir) if password in line]
    for log in (fault_stack.data_dir / "logs").iterdir():
        assert password not in log.read_text(errors="replace")
    holders = [file for file in fault_stack.data_dir.glob("*/*") if file.is_file() and password in _text(file)]
    assert [file.name for file in holders] == ["password"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(fault_stack.postgres.replace(password, "guess"))


async def test_listens_on_loopback_only(fault_stack: LocalStack) -> None:
    inodes = set()
    for pid in fault_stack.pids.values():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = ""
            with suppress(FileNotFoundError):  # closed meanwhile, as files are all the time
                target = os.readlink(entry)
            if target.startswith("socket:["):
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].rpartition(":")[0])
    assert len(listening) == 3, "PostgreSQL, the broker and its controller"
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert set(listening) <= loopback


async def test_directory_in_use(fault_stack: LocalStack) -> None:
    with pytest.raises(LocalStackError, match=rf"in use by another running stack \(process {os.getpid()}\)"):
        await LocalStack(fault_stack.data_dir).__aenter__()
    assert await _rows(fault_stack.postgres), "the running stack is not disturbed"


@pytest.mark.parametrize(("part", "option"), [("Kafka", "kafka_port"), ("PostgreSQL", "postgres_port")])
async def test_port_taken(data_dir: Path, part: str, option: str) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"port {port} for {part} is taken by another process: stop"):
            await LocalStack(data_dir, **{option: port}).__aenter__()
    await _nothing_left(data_dir)


async def test_maven_missing(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_jars, "_CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalStackError, match=r"Maven is missing.*install it.*--kafka HOST:PORT"):
        await LocalStack(data_dir).__aenter__()
    await _nothing_left(data_dir)


async def test_maven_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_jars, "_CACHE", tmp_path / "cache")
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] Could not transfer artifact'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(LocalStackError, match=r"Could not transfer artifact \(log: .*maven.log\)"):
        await kafka_jars.ensure()
    assert not kafka_jars.fetched()


async def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40, 5 * 2**20))
    with pytest.raises(LocalStackError, match=r"only 5 MiB are free .* free some space"):
        await LocalStack(tmp_path / "data").__aenter__()


async def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalStackError, match=r"cannot use .*file/data for data"):
        await LocalStack(tmp_path / "file" / "data").__aenter__()


async def test_data_of_another_postgres(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(LocalStackError, match="made by PostgreSQL 15, this is 18: move the directory away"):
        await LocalStack(tmp_path, with_kafka=False).__aenter__()


async def test_damaged_data_say_what_postgres_said(tmp_path: Path) -> None:
    async with LocalStack(tmp_path, with_kafka=False):
        pass
    (tmp_path / "postgres" / "data" / "global" / "pg_control").unlink()
    with pytest.raises(LocalStackError, match=r"PostgreSQL did not start: .*(log: .*postgres.log)"):
        await LocalStack(tmp_path, with_kafka=False).__aenter__()


def _text(file: Path) -> str:
    return file.read_text(errors="replace")
