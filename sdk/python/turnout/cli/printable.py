"""Text of unknown origin for a terminal: nothing in it may move the cursor, change colours or hide what stands there.

Records, keys and descriptions come from anybody who can write to a topic; a terminal obeys escape sequences in them.
"""

from __future__ import annotations

import re

# C0 without tab and line feed, DEL, C1, marks that reorder or part lines, and surrogates, which no encoding can write.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LAYOUT = {"\n": "\\n", "\t": "\\t"}


def printable(text: str) -> str:
    r"""The text with its control characters spelt out, such as `\x1b`; lines and tabs stay."""
    return _CONTROL.sub(_spelt_out, text)


def printable_on_one_line(text: str) -> str:
    r"""The same, line feeds and tabs spelt out too, as `\n` and `\t`."""
    return re.sub("[\n\t]", lambda found: _LAYOUT[found[0]], printable(text))


def _spelt_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] == "\r":
        return "\\r"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
