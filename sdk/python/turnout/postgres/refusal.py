"""Why a connection is refused for good, in words that repeat nothing of the URL.

Never in the words of the error: a password with a "/" or "#" in it splits the URL elsewhere, and then the driver and
the server quote pieces of it as a port, a host, or the name of a database.
"""

import asyncpg

from turnout.postgres.away import is_away


def refusal(error: Exception) -> str | None:
    """What to tell a person, as the predicate of a sentence about PostgreSQL; None = it is only away."""
    # An invalid URL first: the driver raises it as an error of its interface, too.
    if isinstance(error, ValueError):
        return (
            "cannot be reached: the connection string is no URL of the form "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE; inside user and password write %2F for /, %23 for #, "
            "%3F for ?, %40 for @ and %25 for %"
        )
    if is_away(error):
        return None
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        kind = "it does not accept the user or the password"
    elif isinstance(error, asyncpg.InvalidCatalogNameError):
        kind = "it has no such database"
    else:
        kind = f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}".rstrip()
    return f"refuses the connection: {kind}"
