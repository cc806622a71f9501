"""Why a command on a route is refused: errors that several rules share. Pure."""

from typing import Final

from turnout.errors import FailedPrecondition, InvalidInput, Violation
from turnout.routing import Route

PROTECTED_UNTIL: Final = "protected_until"
"""Until when the way back is kept, in the metadata of ROLLBACK_WINDOW; RFC 3339."""


def nothing_to_return_to(route: Route) -> FailedPrecondition:
    """The error of a way back where there is none."""
    return FailedPrecondition(
        "NOTHING_TO_RETURN_TO",
        f"There is no cutover of {route.job} to roll back: v{route.active_version} is its first version, or "
        "the last cutover was rolled back already. To serve another version, cut over to it.",
    )


def way_back_closed(job: str, version: int) -> FailedPrecondition:
    """The error of a way back that leads over a released version."""
    named = f"v{version} of {job}"
    message = (
        f"There is nothing to roll {job} back to any more: the way back leads over v{version}, which is being retired. "
        f"While its table exists, `turnout unretire {job} v{version}` opens it again; or cut over to another version."
    )
    return FailedPrecondition("VERSION_RELEASED", message, violations=(Violation("VERSION_RELEASED", named, message),))


def released_error(job: str, version: int) -> FailedPrecondition:
    """The error of a command that names a released version."""
    message = (
        f"v{version} of {job} is being retired and was released by its routes. Choose another version, or, while its "
        f"table exists, take the retirement back (`turnout unretire {job} v{version}`)."
    )
    named = f"v{version} of {job}"
    return FailedPrecondition("VERSION_RELEASED", message, violations=(Violation("VERSION_RELEASED", named, message),))


def refuse_reused(request_id: str, fingerprint: bytes, before: bytes) -> None:
    """InvalidInput (REQUEST_ID_REUSED) where the request that came with this id before was another one, by its
    fingerprint."""
    if fingerprint != before:
        raise InvalidInput(
            "REQUEST_ID_REUSED",
            f"The request_id {request_id!r} came with another request before; take a new one for each request.",
        )
