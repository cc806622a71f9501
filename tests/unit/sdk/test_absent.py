"""What is advised where no Turnout answers leads to one at the very address that was asked."""

import pytest

from deploy.local.dev import parse
from turnout.addresses import DEFAULT_PORT
from turnout.client import absent


@pytest.mark.parametrize(
    "target", [f"127.0.0.1:{DEFAULT_PORT}", "localhost:7400", "127.0.0.1:7512", "localhost:07512", "localhost:65535"]
)
def test_a_local_stack_is_started_at_the_port_that_was_asked(target: str) -> None:
    told = absent.not_running(target)
    _, command, _ = told.split("`")
    assert told == f"There is no Turnout at {target}; `{command}` starts one there."
    turnout, dev, *options = command.split()
    assert (turnout, dev) == ("turnout", "dev")
    assert parse(options).port == int(target.rpartition(":")[2])
    assert command in absent.stopped(target)


@pytest.mark.parametrize(
    "target", ["turnout.example.org:7400", "[::1]:7400", "unix:/run/turnout", "localhost:0", "localhost:99999"]
)
def test_elsewhere_no_local_stack_would_do(target: str) -> None:
    assert absent.not_running(target).endswith("See that its services run there, and that the address is right.")
    assert "turnout dev" not in absent.stopped(target)
