"""The retry queue: what is tried when, what a restart finds, and what is remembered."""

import random

import msgspec
import pytest

from rater.agents.retry_queue import REMEMBERED_DAYS, RetryQueue
from rater.simulation import MemoryRows

FIRST_GAP_MS, GAP_MS_MAX = 1000, 10_000
NOW_MS = 1_759_320_000_000  # 2025-10-01T12:00:00Z
DAY_MS = 86_400_000


class Work(msgspec.Struct, array_like=True):
    """Implements `Waiting`. `since_ms` is the time since when it has waited."""

    due_ms: int
    since_ms: int = NOW_MS
    tries: int = 0


def queue_on(rows: MemoryRows) -> RetryQueue[Work]:
    """A queue on rows that may outlive it."""
    return RetryQueue(rows, msgspec.msgpack.Decoder(Work).decode, lambda work: work.since_ms, FIRST_GAP_MS, GAP_MS_MAX)


@pytest.fixture
def rows() -> MemoryRows:
    return MemoryRows()


@pytest.fixture
def queue(rows: MemoryRows) -> RetryQueue[Work]:
    return queue_on(rows)


@pytest.fixture
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)


def names(taken: list[tuple[bytes, Work]]) -> list[bytes]:
    return [name for name, _ in taken]


def put_off_often(queue: RetryQueue[Work], times: int) -> list[int]:
    """Put one piece of work off again and again, each time when it is due. Returns the gaps in ms."""
    queue.wait(b"a", Work(NOW_MS))
    gaps, now_ms = [], NOW_MS
    for _ in range(times):
        ((name, work),) = queue.take_due(now_ms, 1)
        gaps.append(queue.put_off(name, work, now_ms))
        now_ms += gaps[-1]
        assert queue.next_due_ms() == now_ms
    return gaps


def test_work_is_taken_in_the_order_of_its_due_time(queue: RetryQueue[Work]) -> None:
    for name, due_ms in ((b"late", NOW_MS), (b"early", NOW_MS - 20), (b"middle", NOW_MS - 10)):
        queue.wait(name, Work(due_ms))
    assert names(queue.take_due(NOW_MS, 10)) == [b"early", b"middle", b"late"]


def test_work_is_not_taken_before_it_is_due(queue: RetryQueue[Work]) -> None:
    queue.wait(b"a", Work(NOW_MS))
    assert queue.take_due(NOW_MS - 1, 10) == []
    assert names(queue.take_due(NOW_MS, 10)) == [b"a"]


def test_no_more_work_is_taken_than_asked_for(queue: RetryQueue[Work]) -> None:
    for n in range(3):
        queue.wait(b"%d" % n, Work(NOW_MS + n))
    assert names(queue.take_due(NOW_MS + 10, 2)) == [b"0", b"1"]
    assert names(queue.take_due(NOW_MS + 10, 2)) == [b"2"]


def test_the_next_due_time_is_that_of_the_earliest_work(queue: RetryQueue[Work]) -> None:
    assert queue.next_due_ms() is None
    queue.wait(b"a", Work(NOW_MS + 5))
    queue.wait(b"b", Work(NOW_MS + 3))
    assert queue.next_due_ms() == NOW_MS + 3


@pytest.mark.usefixtures("_no_jitter")
def test_gaps_double_up_to_their_bound(queue: RetryQueue[Work]) -> None:
    assert put_off_often(queue, 6) == [1000, 2000, 4000, 8000, 10_000, 10_000]


@pytest.mark.usefixtures("_no_jitter")
def test_gaps_stay_at_their_bound_after_any_number_of_tries(queue: RetryQueue[Work]) -> None:
    work = Work(NOW_MS, tries=1_000_000)
    queue.wait(b"a", work)
    queue.take_due(NOW_MS, 1)
    assert queue.put_off(b"a", work, NOW_MS) == GAP_MS_MAX


def test_gaps_are_shortened_by_up_to_half_at_random() -> None:
    gaps = [put_off_often(queue_on(MemoryRows()), 1)[0] for _ in range(200)]
    assert FIRST_GAP_MS / 2 <= min(gaps) < max(gaps) <= FIRST_GAP_MS
    assert len(set(gaps)) > 100


def test_work_that_is_put_off_counts_its_tries(queue: RetryQueue[Work]) -> None:
    put_off_often(queue, 3)
    ((_, work),) = queue.take_due(NOW_MS + DAY_MS, 1)
    assert work.tries == 3


@pytest.mark.usefixtures("_no_jitter")
def test_a_restart_finds_what_waits_with_its_tries_and_its_due_time(rows: MemoryRows, queue: RetryQueue[Work]) -> None:
    put_off_often(queue, 2)
    queue.wait(b"b", Work(NOW_MS + 1))
    restarted = queue_on(rows)
    assert restarted.next_due_ms() == NOW_MS + 1
    taken = restarted.take_due(NOW_MS + DAY_MS, 10)
    assert [(name, work.due_ms, work.tries) for name, work in taken] == [(b"b", NOW_MS + 1, 0), (b"a", NOW_MS + 3000, 2)]


def test_a_restart_finds_work_that_was_taken_and_neither_put_off_nor_settled(rows: MemoryRows, queue: RetryQueue[Work]) -> None:
    queue.wait(b"a", Work(NOW_MS))
    queue.take_due(NOW_MS, 1)
    assert names(queue_on(rows).take_due(NOW_MS, 1)) == [b"a"]


def test_work_waits_until_it_is_settled(queue: RetryQueue[Work]) -> None:
    assert not queue.is_waiting(b"a")
    queue.wait(b"a", Work(NOW_MS))
    assert queue.is_waiting(b"a")
    assert queue.result(b"a") is None
    queue.take_due(NOW_MS, 1)
    assert queue.is_waiting(b"a")


def test_settled_work_is_remembered_and_no_longer_waits(rows: MemoryRows, queue: RetryQueue[Work]) -> None:
    queue.wait(b"a", Work(NOW_MS))
    queue.take_due(NOW_MS, 1)
    queue.settle(b"a", b"result", NOW_MS)
    for each in (queue, queue_on(rows)):
        assert not each.is_waiting(b"a")
        assert each.next_due_ms() is None
        assert each.result(b"a") == b"result"


def test_an_empty_result_is_remembered_too(queue: RetryQueue[Work]) -> None:
    queue.wait(b"a", Work(NOW_MS))
    queue.take_due(NOW_MS, 1)
    queue.settle(b"a", b"", NOW_MS)
    assert queue.result(b"a") == b""


def test_a_result_is_forgotten_after_the_last_of_its_days(queue: RetryQueue[Work]) -> None:
    queue.wait(b"a", Work(NOW_MS))
    queue.take_due(NOW_MS, 1)
    queue.settle(b"a", b"result", NOW_MS)
    queue.forget(NOW_MS + REMEMBERED_DAYS * DAY_MS)
    assert queue.result(b"a") == b"result"
    queue.forget(NOW_MS + (REMEMBERED_DAYS + 1) * DAY_MS)
    assert queue.result(b"a") is None


def test_an_empty_queue_has_no_oldest_work(queue: RetryQueue[Work]) -> None:
    assert queue.gauges("pending") == {("pending",): 0}


def test_gauges_show_how_much_waits_and_since_when_the_oldest(queue: RetryQueue[Work]) -> None:
    queue.wait(b"new", Work(NOW_MS, since_ms=NOW_MS))
    queue.wait(b"old", Work(NOW_MS, since_ms=NOW_MS - 5000))
    assert queue.gauges("pending") == {("pending",): 2, ("pending_oldest_timestamp_seconds",): (NOW_MS - 5000) / 1000}


def test_gauges_count_work_that_is_put_off_once_and_with_its_full_age(queue: RetryQueue[Work]) -> None:
    put_off_often(queue, 3)
    assert queue.gauges("pending") == {("pending",): 1, ("pending_oldest_timestamp_seconds",): NOW_MS / 1000}


def test_gauges_leave_out_settled_work(queue: RetryQueue[Work]) -> None:
    queue.wait(b"old", Work(NOW_MS - 1, since_ms=NOW_MS - 5000))
    queue.wait(b"new", Work(NOW_MS, since_ms=NOW_MS))
    queue.take_due(NOW_MS - 1, 1)
    queue.settle(b"old", b"result", NOW_MS)
    assert queue.gauges("pending") == {("pending",): 1, ("pending_oldest_timestamp_seconds",): NOW_MS / 1000}


def test_gauges_are_the_same_after_a_restart(rows: MemoryRows, queue: RetryQueue[Work]) -> None:
    put_off_often(queue, 2)
    queue.wait(b"old", Work(NOW_MS, since_ms=NOW_MS - 5000))
    assert queue_on(rows).gauges("pending") == queue.gauges("pending")
