"""How values of PostgreSQL's types travel in the contract: one rule for reads and for comparisons. Pure."""

from enum import Enum


class Kind(Enum):
    """How values of a column travel. The value is what people are told."""

    INT64 = "a whole number (int64_value)"
    DOUBLE = "a floating-point number (double_value)"
    BOOL = "true or false (bool_value)"
    STRING = "text (string_value)"
    BYTES = "bytes (bytes_value)"
    DATE = "a date (date_days)"
    TIMESTAMP = "a point in time (timestamp_value)"
    DECIMAL = "a decimal number (decimal_value)"
    UUID = "a UUID (uuid_value)"
    JSON = "JSON (json_value)"
    OTHER = "text (string_value), as PostgreSQL writes it"
    """A derived column may have any type of PostgreSQL; one that the contract has no value for is sent as text."""

    @property
    def selected_as_text(self) -> bool:
        """Whether a statement has to select such a column as text, so that PostgreSQL writes it and not the driver."""
        return self in (Kind.JSON, Kind.OTHER)


_KINDS = {
    "smallint": Kind.INT64,
    "integer": Kind.INT64,
    "bigint": Kind.INT64,
    "real": Kind.DOUBLE,
    "double precision": Kind.DOUBLE,
    "boolean": Kind.BOOL,
    "text": Kind.STRING,
    "character varying": Kind.STRING,
    "bytea": Kind.BYTES,
    "date": Kind.DATE,
    "timestamp with time zone": Kind.TIMESTAMP,
    "numeric": Kind.DECIMAL,
    "uuid": Kind.UUID,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
}


def kind_of(postgres: str) -> Kind:
    """The kind of a type as `format_type(oid, null)` names it."""
    return _KINDS.get(postgres, Kind.OTHER)
