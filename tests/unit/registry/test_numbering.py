"""Which number code gets."""

from dataclasses import replace

import pytest

from services.registry.numbering import Known, Numbered, number
from turnout.errors import FailedPrecondition
from turnout.log_range import LogRange, PartitionOffset

V1, V2, V4 = Known(1, "first", "{}"), Known(2, "digest", "{}"), Known(4, "digest", "{}")


@pytest.mark.parametrize(
    ("registered", "last", "digest", "definition", "numbered"),
    [
        ([], 0, "digest", "{}", Numbered(1, created=True)),
        ([V2], 2, "digest", "{}", Numbered(2, created=False)),
        ([V2, V1], 2, "first", "{}", Numbered(1, created=False)),  # not only the newest
        ([V2, V1], 2, "other", "{}", Numbered(3, created=True)),
        ([V2, V1], 2, "digest", '{"a":1}', Numbered(3, created=True)),
        ([V2], 5, "digest", "{}", Numbered(2, created=False)),  # 3 to 5 are retired or dropped
        ([], 5, "digest", "{}", Numbered(6, created=True)),  # a number is never given twice
        ([V4, V2], 4, "digest", "{}", Numbered(4, created=False)),  # v2 was retired, made anew, and taken back
    ],
)
def test_number(registered: list[Known], last: int, digest: str, definition: str, numbered: Numbered) -> None:
    assert number(registered, last, digest, definition, expected=0) == numbered
    assert number(registered, last, digest, definition, expected=numbered.number) == numbered


HALF = LogRange(end_offsets=(PartitionOffset("flights", 0, 5),))


def test_another_range_is_another_version() -> None:
    half = replace(V2, number=3, log_range=HALF)
    assert number([V2, V1], 2, "digest", "{}", 0, HALF) == Numbered(3, created=True)
    assert number([half, V2, V1], 3, "digest", "{}", 0, HALF) == Numbered(3, created=False)
    assert number([half, V2, V1], 3, "digest", "{}", 0) == Numbered(2, created=False)
    with pytest.raises(FailedPrecondition, match="v2 was expected, but this code has another range of the log than v2"):
        number([V2, V1], 2, "digest", "{}", 2, HALF)


def test_of_two_versions_with_the_code_the_expected_one_is_meant() -> None:
    assert number([V4, V2], 4, "digest", "{}", expected=2) == Numbered(2, created=False)


@pytest.mark.parametrize(
    ("digest", "expected", "words"),
    [
        ("other", 2, "v2 was expected, but this code differs from v2 and would be v4."),
        ("other", 3, "v3 was expected, but v3 is retired or being retired, and this code would be v4."),
        ("first", 2, "v2 was expected, but this code is v1, unchanged."),
        ("other", 7, "v7 was expected, but this code would be v4."),
        ("digest", 3, "v3 was expected, but this code is v2, unchanged."),
    ],
)
def test_another_number_than_expected_is_refused(digest: str, expected: int, words: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        number([V2, V1], 3, digest, "{}", expected)
    assert refused.value.reason == "VERSION_MISMATCH"
    assert refused.value.message.startswith(words)
    assert refused.value.metadata["expected"] == str(expected)
