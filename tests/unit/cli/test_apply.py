"""What `turnout apply` says of options that a run which exists does not take."""

from dataclasses import replace

from tests.unit.cli import samples
from tests.unit.cli.samples import JOB
from turnout.cli.commands.apply import not_applied

RUN = replace(samples.RUN, workers=2, rate_limit=500, priority=3)


def test_what_a_run_that_exists_does_not_take_is_said() -> None:
    assert not_applied(RUN, 4, 900, -7) == [
        "--workers is not applied to a run that exists: it keeps its 2.",
        f"--rate is not applied to a run that exists: `turnout run rate {JOB} v2 900`.",
        f"--priority is not applied to a run that exists: `turnout run priority {JOB} v2 -7` while it is queued.",
    ]


def test_what_it_has_already_or_nobody_asked_for_is_not() -> None:
    assert not_applied(RUN, 2, 500, 3) == []
    assert not_applied(RUN, None, None, None) == []
