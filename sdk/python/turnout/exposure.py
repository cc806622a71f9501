"""Exposures: the id by which a client says later what became of an answer.

The id *is* the record: who was exposed to what, by which design, signed. A front gives it out without storing anything,
and whoever receives an outcome need not look the arm up again, which may have moved meanwhile.

    0   1  form, 2; form 1 was signed by HMAC-SHA-256
    1   1  number of the key
    2   4  number of the experiment, which stands for its job
    6   4  epoch of the route
    10  4  version that answered
    14  2  propensity: the version's designed share among the units that count, in basis points
    16  4  time of the answer, seconds since 1970
    20  8  the unit's identity: 64 bits of MurmurHash3 of the experiment and the unit
    28  17 BLAKE2s of the bytes before, keyed, of 17 bytes

All of it big-endian and in URL-safe base64: 60 characters. The signature is no secret's keeper, it keeps outcomes from
being made up: whoever holds an id may report on it.
"""

import base64
import binascii
from collections.abc import Mapping
from hashlib import blake2s
from hmac import compare_digest
from struct import Struct
from typing import Final, NamedTuple

import mmh3

from turnout.errors import InvalidInput

CHARACTERS: Final = 60
KEY_BYTES: Final = 32
LEFT_OUT_MAX: Final = 100
"""Experiments of which a front tells how many reads they did not count because of their unit; the newest ones."""
_FORM: Final = 2
_LAYOUT: Final = Struct(">BBIIIHIq")
_MAC_BYTES: Final = 17
_SIGNED_BYTES: Final = _LAYOUT.size + _MAC_BYTES


class Exposure(NamedTuple):
    """An answer that a unit got within an experiment. One is made for every read of it, hence a tuple."""

    experiment: int
    epoch: int
    version: int
    propensity: int
    time_s: int
    unit: int
    """The unit's identity, signed, 64 bits."""


def identity(experiment: str, unit: str) -> int:
    """Who a unit is within one experiment; another number in every other one. 64 bits, signed.

    The 32 bits that the route splits by would make one of some ten thousand units another's twin.
    """
    return mmh3.hash64(f"{experiment}\0{unit}".encode())[0]  # type: ignore[no-any-return, unused-ignore]


class Signer:
    """Makes the ids of exposures, with one key."""

    __slots__ = ("_keyed", "_number")

    def __init__(self, key_number: int, key: bytes) -> None:
        self._number = key_number
        self._keyed = blake2s(key=key, digest_size=_MAC_BYTES)

    def id_of(self, exposure: Exposure) -> str:
        """The exposure's id."""
        record = _LAYOUT.pack(_FORM, self._number, *exposure)
        mac = self._keyed.copy()  # the key is in it already
        mac.update(record)
        return base64.urlsafe_b64encode(record + mac.digest()).decode()


def verified(keys: Mapping[int, bytes], exposure_id: str) -> Exposure:
    """The exposure that an id holds. InvalidInput (INVALID_EXPOSURE) unless it was signed with one of the keys."""
    try:
        content = base64.urlsafe_b64decode(exposure_id.encode("ascii"))
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise _invalid("it is not one") from None
    if len(content) != _SIGNED_BYTES or len(exposure_id) != CHARACTERS or content[0] != _FORM:
        raise _invalid("it is not one of this release")
    key = keys.get(content[1])
    if key is None or not compare_digest(content[_LAYOUT.size :], _mac(key, content[: _LAYOUT.size])):
        raise _invalid("it was not signed here")
    return Exposure(*_LAYOUT.unpack_from(content)[2:])


def _mac(key: bytes, record: bytes) -> bytes:
    return blake2s(record, key=key, digest_size=_MAC_BYTES).digest()


def _invalid(why: str) -> InvalidInput:
    return InvalidInput(
        "INVALID_EXPOSURE",
        f"An outcome is reported by the exposure id of an answer, as it came; {why}.",
    )
