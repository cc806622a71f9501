"""Names in SQL."""

from turnout.sql import is_hidden, literal, quoted, serving


def test_names_and_texts_are_quoted() -> None:
    assert quoted('a"b') == '"a""b"'
    assert serving("j__v1") == 'serving."j__v1"'
    assert literal("it's") == "'it''s'"


def test_hidden_columns() -> None:
    assert is_hidden("_deleted")
    assert not is_hidden("deleted_")
