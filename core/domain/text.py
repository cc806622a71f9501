"""Texts from outside: what can be stored at all, and how long each kind may be; and texts for people. Pure."""

from turnout.errors import InvalidInput

ID_MAX = 200  # characters of an id or of a name of somebody, such as request_id and claimed_actor
TEXT_MAX = 4096  # characters of a text for people, such as a description or a reason


def text(value: str, field: str, length_max: int) -> str:
    """The value of the field, which can be stored; InvalidInput (INVALID_TEXT) when it is longer or holds a NUL.

    length_max: in characters. PostgreSQL stores no NUL in a text.
    """
    if len(value) > length_max:
        raise InvalidInput("INVALID_TEXT", f"{field} has {len(value):,} characters; give at most {length_max:,}.")
    if "\0" in value:
        raise InvalidInput("INVALID_TEXT", f"{field} holds a NUL character; leave it out.")
    return value


def sentence(clause: str) -> str:
    """A clause that begins with a word, not with a name, as a sentence; one that is a sentence already as it is."""
    return f"{clause[:1].upper()}{clause[1:]}" + ("" if clause.endswith((".", "?", "!")) else ".")
