"""The routing table: who answers, and that nothing older ever replaces anything newer."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout import routing
from turnout.errors import DataLoss, NotFound
from turnout.reading.routing import Cause, Committed, Resolution, RoutingTable
from turnout.routing import HASHES, Arm, Interval, Route

HALF = HASHES // 2


def whole(job: str = "j", epoch: int = 1, version: int = 1) -> Route:
    return Route(job, epoch, version, (Arm(version, 10_000),), "salt", (Interval(0, HASHES, version, epoch),))


def split(job: str = "j", epoch: int = 2) -> Route:
    arms = (Arm(1, 5000), Arm(2, 5000))
    return Route(job, epoch, 1, arms, "salt", (Interval(0, HALF, 1, 1), Interval(HALF, HASHES, 2, epoch)))


def commit(route: Route, revision: int | None = None) -> Committed:
    return Committed(route.epoch if revision is None else revision, f"p{route.epoch}", route)


def test_a_job_without_a_route_says_what_to_do() -> None:
    with pytest.raises(NotFound, match=r"no job of that name.*turnout cutover j vN") as caught:
        RoutingTable().resolve("j", "u")
    assert caught.value.reason == "JOB_NOT_ROUTED"


def test_a_pinned_version_needs_no_route() -> None:
    assert RoutingTable().resolve("j", "u", pinned=7) == Resolution(7, 0, Cause.PINNED)


def test_a_pinned_version_goes_before_the_route_and_tells_its_epoch() -> None:
    assert RoutingTable().with_commit(commit(whole(epoch=4))).resolve("j", None, pinned=7) == Resolution(
        7, 4, Cause.PINNED
    )


@pytest.mark.parametrize(
    ("unit", "follow"), [(None, True), (None, False), ("any", False)], ids=["no unit", "no unit, cut off", "cut off"]
)
def test_the_active_version_answers_where_no_split_is_followed(unit: str | None, follow: bool) -> None:
    table = RoutingTable().with_commit(commit(split()))
    assert table.resolve("j", unit, split=follow) == Resolution(1, 2, Cause.ACTIVE)


@given(st.text(max_size=40))
def test_a_unit_reads_the_owner_of_its_hash(unit: str) -> None:
    table = RoutingTable().with_commit(commit(split()))
    expected = 1 if routing.unit_hash("salt", unit) < HALF else 2
    assert table.resolve("j", unit) == Resolution(expected, 2, Cause.ROUTED)


def test_a_change_leaves_the_table_before_it_as_it_was() -> None:
    before = RoutingTable().with_commit(commit(whole(epoch=1)))
    after = before.with_commit(commit(whole(epoch=2, version=2)))
    assert (before.epoch("j"), after.epoch("j")) == (1, 2)
    assert before.resolve("j", "u").version == 1
    assert after.resolve("j", "u").version == 2


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_commits_in_any_order_end_with_the_newest(order: tuple[int, ...]) -> None:
    table = RoutingTable()
    seen = 0
    for epoch in order:
        table = table.with_commit(commit(whole(epoch=epoch, version=epoch)))
        seen = max(seen, epoch)
        assert table.epoch("j") == seen
        assert table.revision == seen
    assert table.resolve("j", "u") == Resolution(3, 3, Cause.ROUTED)


def test_a_commit_that_is_known_changes_nothing() -> None:
    table = RoutingTable().with_commit(commit(whole(epoch=2), revision=5))
    assert table.with_commit(commit(whole(epoch=2), revision=5)) is table
    assert table.with_commit(commit(whole(epoch=1), revision=3)) is table


def test_a_route_that_was_fetched_before_its_commit_came_keeps_its_place_in_the_order() -> None:
    fetched = RoutingTable().with_commit(commit(whole(epoch=2), revision=0))
    table = fetched.with_commit(commit(whole(epoch=2), revision=9))
    assert (table.revision, table.epoch("j")) == (9, 2)


def test_commits_of_other_jobs_do_not_touch_one_another() -> None:
    table = RoutingTable().with_commit(commit(whole("a", 5), revision=1)).with_commit(commit(whole("b", 1), revision=2))
    assert (table.epoch("a"), table.epoch("b"), table.epoch("c")) == (5, 1, 0)


def test_a_snapshot_is_the_whole_truth() -> None:
    table = RoutingTable().with_snapshot(3, [commit(whole("a")), commit(whole("b"))])
    after = table.with_snapshot(4, [commit(whole("b", 2))])
    assert after.route("a") is None
    assert after.epoch("b") == 2


def test_a_snapshot_of_the_same_revision_is_taken() -> None:
    table = RoutingTable().with_snapshot(3, [commit(whole())])
    assert table.with_snapshot(3, [commit(whole())]) == table


def test_an_older_snapshot_is_refused_as_a_whole() -> None:
    table = RoutingTable().with_snapshot(3, [commit(whole())])
    with pytest.raises(DataLoss, match="revision 2, but this front has already served revision 3") as caught:
        table.with_snapshot(2, [commit(whole("other"))])
    assert caught.value.reason == "SNAPSHOT_TOO_OLD"


def test_an_older_epoch_in_a_snapshot_does_not_replace_a_newer_one() -> None:
    fetched = RoutingTable().with_commit(commit(whole(epoch=7), revision=3))
    assert fetched.with_snapshot(3, [commit(whole(epoch=6), revision=3)]).epoch("j") == 7


_steps = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["a", "b"]), st.integers(1, 8), st.integers(1, 8)), max_size=30
)


@given(_steps)
def test_whatever_comes_no_epoch_and_no_revision_goes_back(steps: list[tuple[bool, str, int, int]]) -> None:
    table = RoutingTable()
    for is_snapshot, job, epoch, revision in steps:
        before = table
        message = commit(whole(job, epoch), revision)
        if is_snapshot:
            try:
                # A snapshot that names the job, as a switcher's always does: routes are never taken away.
                others = [one for one in before.committed.values() if one.route.job != job]
                table = table.with_snapshot(revision, [*others, message])
            except DataLoss:
                assert revision < before.revision
        else:
            table = table.with_commit(message)
        assert table.revision >= before.revision
        assert all(table.epoch(one) >= before.epoch(one) for one in ("a", "b"))


def in_group(route: Route, group: int) -> Committed:
    return Committed(group, f"p{group}", route, group)


def test_routes_committed_together_are_there_together() -> None:
    before = RoutingTable().with_commit(commit(whole("a"), 1)).with_commit(commit(whole("b"), 2))
    after = before.with_commit(in_group(whole("a", 2, 2), 3), in_group(whole("b", 2, 2), 3))
    assert [(before.epoch(job), after.epoch(job), after.group(job)) for job in "ab"] == [(1, 2, 3)] * 2
    assert (after.revision, before.group("a"), after.group("never routed")) == (3, 0, 0)
    assert after.with_commit(in_group(whole("a", 2, 2), 3), in_group(whole("b", 2, 2), 3)) is after


def test_of_a_step_that_comes_late_only_what_is_newer_is_taken() -> None:
    known = RoutingTable().with_commit(commit(whole("a", 5, 5), 9))
    late = known.with_commit(in_group(whole("a", 2, 2), 3), in_group(whole("b", 2, 2), 3))
    assert (late.epoch("a"), late.epoch("b"), late.revision) == (5, 2, 9)


def test_what_a_route_was_part_of_is_remembered_when_it_changes_alone() -> None:
    together = RoutingTable().with_commit(in_group(whole("a", 2), 3), in_group(whole("b", 2), 3))
    alone = together.with_commit(commit(whole("a", 3, 2), 4))
    assert (alone.epoch("a"), alone.group("a"), alone.group("b")) == (3, 3, 3)


def test_a_resolution_tells_the_group_of_its_route() -> None:
    table = RoutingTable().with_commit(in_group(whole("a"), 7), in_group(whole("b"), 7))
    assert table.resolve("a", "u") == Resolution(1, 1, Cause.ROUTED, 7)
