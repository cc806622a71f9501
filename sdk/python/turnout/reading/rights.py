"""What a user of PostgreSQL needs to read the output tables, and how one that lacks it is told. Pure."""

from turnout.errors import FailedPrecondition
from turnout.sql import quoted


def denied(role: str, owner: str, what: str, said: str) -> FailedPrecondition:
    """The error of a user that may not read `what`; owner: of the tables. FailedPrecondition (POSTGRES_DENIED)."""
    return FailedPrecondition(
        "POSTGRES_DENIED",
        f"The PostgreSQL user {role} may not read {what}: {said}. Let {owner}, whose tables they are, grant it what "
        f"every reader needs: `{'; '.join(grants(role, owner))}`.",
        metadata={"role": role, "owner": owner},
    )


def denied_at_a_front(version: str) -> FailedPrecondition:
    """The same for who reads through a front, whose user it is not. FailedPrecondition (POSTGRES_DENIED)."""
    return FailedPrecondition(
        "POSTGRES_DENIED",
        f"This front lacks the right to read the table of {version}. Its log says which rights, and how they are "
        "granted: tell its operator.",
    )


def grants(role: str, owner: str) -> tuple[str, ...]:
    """The statements that let a user read every output table, those still to come among them."""
    reader = quoted(role)
    return (
        f"grant usage on schema serving to {reader}",
        f"grant select on all tables in schema serving to {reader}",
        f"alter default privileges for role {quoted(owner)} in schema serving grant select on tables to {reader}",
    )
