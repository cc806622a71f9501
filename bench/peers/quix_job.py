"""Runs in .venv-quix: the application that the variable JOB holds as JSON (see quix.py). Needs quixstreams alone."""

import json
import os
from typing import Any

from quixstreams import Application
from quixstreams.sinks.community.postgresql import PostgreSQLSink

COLUMNS = ("order_id", "user_id", "amount_cents", "country", "ts")


def columns_of(order: dict[str, Any]) -> dict[str, Any]:
    return {column: order[column] for column in COLUMNS}


def main() -> None:
    spec = json.loads(os.environ["JOB"])
    database = spec["database"]
    sink = PostgreSQLSink(
        host=database["host"],
        port=database["port"],
        dbname=database["name"],
        user=database["user"],
        password=database["password"],
        sslmode=database["sslmode"],
        table_name=spec["table"],
        schema_auto_update=False,
        on_conflict_do_nothing=True,
        include_metadata=False,
    )
    application = Application(**spec["application"])
    application.dataframe(application.topic(spec["topic"], value_deserializer="json")).apply(columns_of).sink(sink)
    application.run()


if __name__ == "__main__":
    main()
