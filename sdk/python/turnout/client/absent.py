"""What to do where no Turnout answers at an address. Pure."""

from __future__ import annotations

from typing import Final

from turnout.addresses import DEFAULT_PORT, PORT_MAX

_HERE: Final = ("127.0.0.1", "localhost")
"""By which a stack of `turnout dev` is reached: it listens on 127.0.0.1 alone."""
_DIGITS_MAX: Final = len(str(PORT_MAX))


def not_running(target: str) -> str:
    """That nothing has ever answered there, and what would."""
    command = _dev(target)
    if command is None:
        return f"There is no Turnout at {target}. See that its services run there, and that the address is right."
    return f"There is no Turnout at {target}; `{command}` starts one there."


def stopped(target: str) -> str:
    """That what has answered there does so no more."""
    command = _dev(target)
    again = f"start it again (if it was `{command}`, by that)" if command else "see that its services run"
    return f"Turnout at {target} has stopped answering. Look at its log, or {again}."


def _dev(target: str) -> str | None:
    """The command that starts a local stack at this very address; None where none can."""
    host, _, port = target.rpartition(":")
    if host not in _HERE or not port.isdecimal() or len(port) > _DIGITS_MAX or not 0 < int(port) <= PORT_MAX:
        return None
    return "turnout dev" if int(port) == DEFAULT_PORT else f"turnout dev --port {int(port)}"
