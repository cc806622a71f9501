"""An artefact as it comes in: pieces, counted and hashed against what the header announced. Pure."""

import hashlib
import re

from turnout.errors import DataLoss, InvalidInput, ResourceExhausted
from turnout.job.artifact import ARTIFACT_BYTES_MAX

PIECE_BYTES_MAX = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Upload:
    """Takes pieces; `content` gives the whole once the last has come."""

    def __init__(self, digest: str) -> None:
        """InvalidInput unless the announced digest has the form of a SHA-256."""
        if _DIGEST.fullmatch(digest) is None:
            raise InvalidInput(
                "INVALID_DIGEST", "artifact_digest is not a SHA-256 in 64 lower-case hexadecimal digits."
            )
        self._digest = digest
        self._hash = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, piece: bytes) -> None:
        """One more piece. InvalidInput for one above 1 MiB, ResourceExhausted above 64 MiB in all."""
        if len(piece) > PIECE_BYTES_MAX:
            raise InvalidInput(
                "PIECE_TOO_LARGE", f"A piece has {len(piece):,} bytes; send at most {PIECE_BYTES_MAX:,} in one message."
            )
        self._size += len(piece)
        if self._size > ARTIFACT_BYTES_MAX:
            raise ResourceExhausted(
                "ARTIFACT_TOO_LARGE",
                f"The artefact has more than {ARTIFACT_BYTES_MAX:,} bytes. Leave data out of it: read it from a topic.",
                metadata={"bytes_max": str(ARTIFACT_BYTES_MAX)},
            )
        self._hash.update(piece)
        self._pieces.append(piece)

    def content(self) -> bytes:
        """The artefact. InvalidInput when it is empty, DataLoss when it is not what the digest says."""
        if not self._size:
            raise InvalidInput("ARTIFACT_EMPTY", "The artefact is empty; send its pieces after the header.")
        if self._hash.hexdigest() != self._digest:
            raise DataLoss(
                "DIGEST_MISMATCH",
                f"The {self._size:,} bytes that arrived are not those that artifact_digest announces; send them again.",
            )
        return b"".join(self._pieces)
