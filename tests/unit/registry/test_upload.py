"""An artefact in pieces."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.upload import PIECE_BYTES_MAX, Upload
from turnout.errors import DataLoss, InvalidInput, ResourceExhausted
from turnout.job.artifact import ARTIFACT_BYTES_MAX


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@given(st.lists(st.binary()))
def test_pieces_make_the_whole(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    upload = Upload(_digest(content))
    for piece in pieces:
        upload.take(piece)
    if content:
        assert upload.content() == content
    else:
        with pytest.raises(InvalidInput, match="empty"):
            upload.content()


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "A" * 64, "a" * 64 + "\n"])
def test_digest_has_a_form(digest: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Upload(digest)
    assert refused.value.reason == "INVALID_DIGEST"


def test_other_bytes_than_announced_are_refused() -> None:
    upload = Upload(_digest(b"abc"))
    upload.take(b"abd")
    with pytest.raises(DataLoss) as refused:
        upload.content()
    assert refused.value.reason == "DIGEST_MISMATCH"


def test_limits() -> None:
    upload = Upload("0" * 64)
    with pytest.raises(InvalidInput, match="at most"):
        upload.take(b"x" * (PIECE_BYTES_MAX + 1))
    piece = b"x" * PIECE_BYTES_MAX
    for _ in range(ARTIFACT_BYTES_MAX // PIECE_BYTES_MAX):
        upload.take(piece)
    with pytest.raises(ResourceExhausted, match="67,108,864 bytes"):
        upload.take(b"x")
