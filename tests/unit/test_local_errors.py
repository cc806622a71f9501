"""What a person reads when a part ends by itself."""

from __future__ import annotations

from pathlib import Path

from deploy.local.errors import part_failure

_LOG = Path("logs/postgres.log")


def test_the_telling_line_is_shown() -> None:
    written = "LOG:  starting\nFATAL:  data directory has wrong ownership\nHINT:  chown it\nLOG:  shut down\n"
    error = part_failure("PostgreSQL", "did not start", written, _LOG)
    assert str(error) == (
        "PostgreSQL did not start: FATAL:  data directory has wrong ownership (log: logs/postgres.log)"
    )


def test_the_last_line_otherwise() -> None:
    assert ": two (log" in str(part_failure("Kafka", "did not start", "one\ntwo\n\n", _LOG))


def test_nothing_written() -> None:
    assert str(part_failure("Kafka", "did not start", "", _LOG)) == "Kafka did not start (log: logs/postgres.log)"


def test_a_full_disk_is_named() -> None:
    error = part_failure("PostgreSQL", "did not start", "PANIC: could not write: No space left on device\n", _LOG)
    assert "the disk is full; free some space" in str(error)
    assert "\n" not in str(error)
