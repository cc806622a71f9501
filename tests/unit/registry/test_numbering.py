"""Which number code gets."""

import pytest

from core.domain.errors import FailedPrecondition
from services.registry.numbering import Known, Numbered, number

LIVE = Known(2, "digest", "{}")


@pytest.mark.parametrize(
    ("live", "last", "digest", "definition", "numbered"),
    [
        (None, 0, "digest", "{}", Numbered(1, created=True)),
        (LIVE, 2, "digest", "{}", Numbered(2, created=False)),
        (LIVE, 2, "other", "{}", Numbered(3, created=True)),
        (LIVE, 2, "digest", '{"a":1}', Numbered(3, created=True)),
        (LIVE, 5, "digest", "{}", Numbered(2, created=False)),  # 3 to 5 are retired or dropped
        (None, 5, "digest", "{}", Numbered(6, created=True)),  # a number is never given twice
    ],
)
def test_number(live: Known | None, last: int, digest: str, definition: str, numbered: Numbered) -> None:
    assert number(live, last, digest, definition, expected=0) == numbered
    assert number(live, last, digest, definition, expected=numbered.number) == numbered


@pytest.mark.parametrize(
    ("digest", "expected", "words"),
    [
        ("other", 2, "v2 was expected, but this code differs from v2 and would be v3."),
        ("other", 1, "v1 was expected, but this code differs from v1 and would be v3."),
        ("other", 7, "v7 was expected, but this code would be v3."),
        ("digest", 3, "v3 was expected, but this code is v2, unchanged."),
    ],
)
def test_another_number_than_expected_is_refused(digest: str, expected: int, words: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        number(LIVE, 2, digest, "{}", expected)
    assert refused.value.reason == "VERSION_MISMATCH"
    assert refused.value.message.startswith(words)
    assert refused.value.metadata["expected"] == str(expected)
