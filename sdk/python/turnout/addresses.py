"""Where the services are, unless told otherwise: where `turnout dev` runs them. Pure."""

from typing import Final

DEFAULT_PORT: Final = 7400
DEFAULT_TARGET: Final = f"127.0.0.1:{DEFAULT_PORT}"
PORT_MAX: Final = 65_535
