"""Findings about the agents' lag and dead letters."""

from aiokafka import TopicPartition

from rater.doctor.check_lag import DeadLetterCounts, GroupLag, PartitionBacklog, judge_dead_letters, judge_lag
from rater.doctor.cluster_views import GroupView
from rater.doctor.findings import DoctorFinding

NOW_MS = 1_764_000_000_000
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
CDR = TopicPartition("cdr", 0)
ONE = GroupView("Stable", members=1, owned=frozenset({CDR}))
NONE = GroupView("Empty")


def lag(
    group: GroupView,
    waiting: dict[TopicPartition, PartitionBacklog] | None = None,
    unowned: frozenset[TopicPartition] = frozenset(),
    *,
    is_set_up: bool = True,
) -> GroupLag:
    return GroupLag("rating", group, partitions=4, is_set_up=is_set_up, waiting=waiting or {}, unowned=unowned)


def not_set_up(group: GroupView, waiting: dict[TopicPartition, PartitionBacklog] | None = None) -> GroupLag:
    return lag(group, waiting, is_set_up=False)


def said(lag: GroupLag) -> dict[str, DoctorFinding]:
    return {f.code: f for f in judge_lag(lag, {"cdr": 7 * DAY_MS}, NOW_MS)}


def waiting(age_ms: int, lost: int = 0) -> dict[TopicPartition, PartitionBacklog]:
    return {CDR: PartitionBacklog(5, NOW_MS - age_ms, lost)}


def test_a_worker_with_nothing_to_do_is_in_order() -> None:
    assert said(lag(ONE))["lag.group"].what == "rating: 1 worker, nothing waits"


def test_records_that_wait_a_moment_are_in_order() -> None:
    assert said(lag(ONE, waiting(2000)))["lag.group"].severity == "ok"


def test_records_that_wait_for_minutes_are_a_warning_and_for_an_hour_a_fault() -> None:
    assert said(lag(ONE, waiting(6 * MINUTE_MS)))["lag.behind"].severity == "warning"
    assert said(lag(ONE, waiting(61 * MINUTE_MS)))["lag.behind"].severity == "fault"


def test_records_that_wait_with_no_worker_there_are_a_fault() -> None:
    finding = said(lag(NONE, waiting(1000)))["lag.no_worker"]
    assert (finding.severity, finding.todo) == ("fault", "rater worker")


def test_waiting_records_of_an_agent_that_is_not_set_up_here_are_a_warning() -> None:
    assert said(not_set_up(NONE, waiting(1000)))["lag.no_worker"].severity == "warning"


def test_no_worker_and_nothing_to_do_is_a_note() -> None:
    assert said(lag(NONE))["lag.idle"].severity == "note"
    assert said(not_set_up(NONE)) == {}


def test_a_partition_without_a_worker_is_a_fault() -> None:
    assert "cdr[0]" in said(lag(ONE, {}, frozenset({CDR})))["lag.unowned"].what


def test_a_rebalance_is_only_a_note() -> None:
    moving = GroupView("PreparingRebalance", members=1)
    assert "lag.unowned" not in said(lag(moving, {}, frozenset({CDR})))
    assert said(lag(moving))["lag.rebalancing"].severity == "note"


def test_records_lost_to_retention_are_a_fault() -> None:
    assert "3 records of cdr[0]" in said(lag(ONE, waiting(1000, lost=3)))["lag.lost"].what


def test_records_that_wait_for_half_the_retention_time_are_a_fault() -> None:
    assert "lag.retention" not in said(lag(ONE, waiting(3 * DAY_MS)))
    assert said(lag(ONE, waiting(4 * DAY_MS)))["lag.retention"].severity == "fault"


def test_records_kept_for_ever_can_wait() -> None:
    assert "lag.retention" not in {f.code for f in judge_lag(lag(ONE, waiting(99 * DAY_MS)), {}, NOW_MS)}


def test_several_workers_without_instance_ids_are_a_note() -> None:
    assert "lag.no_instance_id" in said(lag(GroupView("Stable", members=2, static=1)))
    assert "lag.no_instance_id" not in said(lag(GroupView("Stable", members=2, static=2)))
    assert "lag.no_instance_id" not in said(lag(ONE))


def test_more_workers_than_partitions_are_a_note() -> None:
    assert "lag.too_many_workers" in said(lag(GroupView("Stable", members=5, static=5)))


def test_retryable_dead_letters_are_reported_apart_from_the_others() -> None:
    letters = DeadLetterCounts()
    letters.retryable["no_rate"] += 2
    letters.others["bad_number"] += 1
    found = {f.code: f for f in judge_dead_letters(letters, is_whole=False)}
    assert found["lag.retryable_letters"].what.startswith("at least 2 no_rate")
    assert "rater replay" in str(found["lag.retryable_letters"].todo)
    assert found["lag.dead_letters"].severity == "note"


def test_no_dead_letters_is_ok_only_if_all_were_read() -> None:
    assert [f.severity for f in judge_dead_letters(DeadLetterCounts(), is_whole=True)] == ["ok"]
    assert judge_dead_letters(DeadLetterCounts(), is_whole=False) == []
