"""What text can be stored."""

import pytest

from core.domain.text import text
from turnout.errors import InvalidInput


@pytest.mark.parametrize("value", ["", "ann@desk", "ünï © 🛤", "x" * 20, "\n\t"])
def test_what_can_be_stored_is_the_value(value: str) -> None:
    assert text(value, "reason", 20) == value


@pytest.mark.parametrize(
    ("value", "words"), [("x" * 21, "reason has 21 characters; give at most 20"), ("a\0b", "reason holds a NUL")]
)
def test_what_cannot_be_stored_is_named(value: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        text(value, "reason", 20)
    assert refused.value.reason == "INVALID_TEXT"
