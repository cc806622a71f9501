"""Exposures carry what they say, and nobody makes them up."""

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import InvalidInput
from turnout.exposure import CHARACTERS, Exposure, Signer, identity, verified

KEY, OTHER = b"k" * 32, b"o" * 32
U32 = st.integers(0, 2**32 - 1)
exposures = st.builds(Exposure, U32, U32, U32, st.integers(0, 10_000), U32, st.integers(-(2**63), 2**63 - 1))


@given(exposures, st.integers(1, 255))
def test_an_id_gives_back_what_it_was_made_of(exposure: Exposure, number: int) -> None:
    exposure_id = Signer(number, KEY).id_of(exposure)
    assert len(exposure_id) == CHARACTERS
    assert verified({number: KEY, 0: OTHER}, exposure_id) == exposure


@given(exposures, st.integers(0, CHARACTERS - 1), st.characters(codec="ascii"))
def test_an_id_that_was_changed_is_refused(exposure: Exposure, place: int, put: str) -> None:
    exposure_id = Signer(1, KEY).id_of(exposure)
    changed = exposure_id[:place] + put + exposure_id[place + 1 :]
    if changed != exposure_id:
        with pytest.raises(InvalidInput) as caught:
            verified({1: KEY}, changed)
        assert caught.value.reason == "INVALID_EXPOSURE"


@given(st.text(max_size=80))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        verified({1: KEY}, text)


def test_another_key_does_not_sign_for_this_one() -> None:
    exposure_id = Signer(1, OTHER).id_of(Exposure(1, 2, 3, 500, 4, 5))
    with pytest.raises(InvalidInput):
        verified({1: KEY}, exposure_id)
    with pytest.raises(InvalidInput):
        verified({2: OTHER}, exposure_id)


def test_an_id_of_an_earlier_release_is_told_to_be_one() -> None:
    record = b"\x01\x01" + bytes(26)  # form 1, key 1
    earlier = base64.urlsafe_b64encode(record + hmac.digest(KEY, record, "sha256")[:17]).decode()
    with pytest.raises(InvalidInput) as caught:
        verified({1: KEY}, earlier)
    assert "not one of this release" in caught.value.message


def test_what_an_id_is_made_of_is_agreed_on_across_releases() -> None:
    """Whoever changes this gives the id another form."""
    exposure_id = Signer(1, KEY).id_of(Exposure(1, 2, 3, 500, 4, 5))
    assert exposure_id == "AgEAAAABAAAAAgAAAAMB9AAAAAQAAAAAAAAABcav8rKEOtpkYgtET75jEygw"


def test_a_unit_is_somebody_else_in_another_experiment() -> None:
    assert identity("jobs/j/experiments/a", "user-1") == identity("jobs/j/experiments/a", "user-1")
    assert identity("jobs/j/experiments/a", "user-1") != identity("jobs/j/experiments/b", "user-1")
    # It is part of what front and switcher agree on, also across releases.
    assert identity("jobs/j/experiments/a", "user-1") == 6898251056307369035
