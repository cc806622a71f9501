"""Page sizes and tokens."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.paging import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, from_token, page_size, to_token
from turnout.errors import InvalidInput


@pytest.mark.parametrize(
    ("asked", "given"), [(0, PAGE_SIZE_DEFAULT), (1, 1), (PAGE_SIZE_MAX, PAGE_SIZE_MAX), (10**9, PAGE_SIZE_MAX)]
)
def test_size(asked: int, given: int) -> None:
    assert page_size(asked) == given


def test_negative_size_is_refused() -> None:
    with pytest.raises(InvalidInput, match="page_size is -1"):
        page_size(-1)


@given(st.text(), st.text())
def test_token_comes_back(collection: str, after: str) -> None:
    assert from_token(to_token(collection, after), collection) == after


def test_no_token_is_the_first_page() -> None:
    assert from_token("", "jobs") is None


@pytest.mark.parametrize("token", ["x", "!!!!", "é", "bnVsbA==", "WzFd", to_token("jobs/other", "3"), "W251bGwsIDFd"])
def test_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        from_token(token, "jobs")
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


@given(st.text(min_size=1))
def test_any_text_is_a_token_or_refused(token: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert isinstance(from_token(token, "jobs"), str)
