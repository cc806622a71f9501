"""`turnout produce`: a file of records into a topic."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from turnout.cli.arguments import COUNT_MAX, PARTITIONS_MAX
from turnout.cli.commands.parameters import KafkaConfigOption, KafkaOption
from turnout.cli.exits import CommandError
from turnout.cli.invocation import command
from turnout.cli.kafka import Sender, ensure_topic
from turnout.cli.quantities import plural, rate
from turnout.cli.session import Session
from turnout.cli.source_file import MALFORMED, Reading, source_file

PARTITIONS = 4
_SHOW_EVERY_RECORDS = 2000


def register(app: typer.Typer) -> None:
    command(app, "produce")(produce)


def produce(
    session: Session,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic; created when missing.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="JSON lines (.jsonl, .ndjson, .json) or .csv with a header; also .gz.",
        ),
    ],
    key: Annotated[str, typer.Option("--key", metavar="FIELD", help="Field whose value is the record's key.")] = "",
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            min=1,
            max=PARTITIONS_MAX,
            metavar="N",
            help=f"Partitions of a new topic; {PARTITIONS} unless told.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--rate", min=1, max=COUNT_MAX, metavar="N", help="Limit in records a second.")
    ] = None,
    from_line: Annotated[
        int, typer.Option("--from-line", min=1, metavar="N", help="Leave out the lines before; they were sent before.")
    ] = 1,
    kafka_address: KafkaOption = "",
    kafka_config: KafkaConfigOption = None,
) -> None:
    """Send the records of a file to a Kafka topic, in the file's order, with the present time."""
    source = source_file(file)
    client = session.kafka(kafka_address, kafka_config)
    reading = Reading(source, key, from_line)
    with _bar(session, source.bytes_total, "looked at") as bar:
        _look_at_all(reading, bar)
    count, created = ensure_topic(client, topic, partitions, PARTITIONS)
    if created:
        session.output.say(Text(f"Created the topic {topic}: {plural(count, 'partition')}, records are kept."))
    sender = Sender(client, topic)
    started = time.monotonic()
    try:
        with _bar(session, source.bytes_total, "produced") as bar:
            _send_all(sender, reading, limit, bar)
    except KeyboardInterrupt:
        sender.finish()
        session.output.note(f"Stopped; {_so_far(sender)}.")
        raise
    except CommandError as error:
        if error.reason == MALFORMED:  # it was not when it was looked at
            sender.finish()
            error.next_step = f"The file has changed meanwhile; {_so_far(sender)}."
        raise
    spent_s = time.monotonic() - started
    per_s = sender.acknowledged / spent_s if spent_s > 0 else 0.0
    session.output.answer(
        {
            "topic": topic,
            "brokers": client.brokers,
            "created": created,
            "partitions": count,
            "records": sender.acknowledged,
            "records_by_partition": {str(one): sender.by_partition[one] for one in sorted(sender.by_partition)},
            "seconds": round(spent_s, 3),
            "records_per_s": round(per_s, 1),
        },
        Text(
            f"Produced {plural(sender.acknowledged, 'record')} to {topic} at {client.brokers} in {spent_s:.1f} s "
            f"({rate(per_s)})."
        ),
    )


class _Bar:
    """Progress by the share of the file that has been read."""

    def __init__(self, progress: Progress, task: TaskID, done: str) -> None:
        self._progress = progress
        self._task = task
        self._done = done

    def show(self, bytes_read: int, records: int) -> None:
        self._progress.update(self._task, completed=bytes_read, records=f"{plural(records, 'record')} {self._done}")


def _look_at_all(reading: Reading, bar: _Bar | None) -> None:
    """A line that cannot be sent is found before any is: what was sent before it would be sent twice."""
    for number, _ in enumerate(reading, 1):
        if bar is not None and number % _SHOW_EVERY_RECORDS == 0:
            bar.show(reading.bytes_read, number)


def _so_far(sender: Sender) -> str:
    """What was sent, and how to go on behind it."""
    if not sender.last_line:
        return "nothing was produced"
    return (
        f"{plural(sender.acknowledged, 'record')} were produced, up to line {sender.last_line:,}: "
        f"--from-line {sender.last_line + 1} goes on"
    )


def _send_all(sender: Sender, reading: Reading, per_s: int | None, bar: _Bar | None) -> None:
    started = time.monotonic()
    for record in reading:
        sender.send(record.key, record.value, record.line)
        if per_s is not None:
            ahead_s = sender.sent / per_s - (time.monotonic() - started)
            if ahead_s > 0.01:
                sender.wait(ahead_s)
        if bar is not None and sender.sent % _SHOW_EVERY_RECORDS == 0:
            bar.show(reading.bytes_read, sender.sent)
    sender.finish()


class _Drawn(AbstractContextManager[_Bar]):
    def __init__(self, session: Session, bytes_total: int, done: str) -> None:
        self._done = done
        self._progress = Progress(
            TextColumn("{task.fields[records]}"),
            BarColumn(30),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=session.output.console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=bytes_total, records="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return _Bar(self._progress, self._task, self._done)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _bar(session: Session, bytes_total: int, done: str) -> AbstractContextManager[_Bar | None]:
    return _Drawn(session, bytes_total, done) if session.output.interactive else nullcontext()
