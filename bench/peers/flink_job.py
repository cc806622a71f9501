"""Runs in .venv-flink: the SQL job that the variable JOB holds as JSON (see flink.py). Needs pyflink alone."""

import json
import os

from pyflink.common import Configuration
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import udf


def same_cents(cents: int) -> int:
    """The cheapest function that there is: what is measured is the way to Python and back."""
    return cents


def main() -> None:
    spec = json.loads(os.environ["JOB"])
    configuration = Configuration()
    for name, value in spec["config"].items():
        configuration.set_string(name, value)
    tables = TableEnvironment.create(EnvironmentSettings.new_instance().with_configuration(configuration).build())
    if spec["python_function"] is not None:
        tables.create_temporary_function(spec["python_function"], udf(same_cents, result_type=DataTypes.BIGINT()))
    for statement in spec["tables"]:
        tables.execute_sql(statement)
    tables.execute_sql(spec["insert"]).wait()


if __name__ == "__main__":
    main()
