"""Merging topics by timestamp."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rater.engine.api import Headers
from rater.engine.merge import merge


@dataclass(frozen=True)
class Rec:
    timestamp: int
    topic: str = "t"
    offset: int = 0
    partition: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = field(default=())


def queue(rank: int, *timestamps: int) -> list[Rec]:
    return [Rec(timestamp, f"{rank}", offset) for offset, timestamp in enumerate(timestamps)]


def order(records: list[Rec]) -> list[tuple[int, str]]:
    return [(record.timestamp, record.topic) for record in records]


def test_records_come_by_timestamp_and_the_lower_rank_first_on_a_tie() -> None:
    merged, taken = merge([queue(0, 2, 5), queue(1, 1, 2, 2, 6)], [False, False], 100)
    assert order(merged) == [(1, "1"), (2, "0"), (2, "1"), (2, "1"), (5, "0"), (6, "1")]
    assert taken == [2, 4]


def test_the_order_within_a_topic_is_kept_whatever_its_timestamps() -> None:
    merged, _ = merge([queue(0, 5, 1), queue(1, 2, 9, 3)], [False, False], 100)
    assert order(merged) == [(2, "1"), (5, "0"), (1, "0"), (9, "1"), (3, "1")]


def test_a_topic_that_is_empty_and_may_have_more_holds_everything_back() -> None:
    assert merge([queue(0), queue(1, 1, 2)], [True, False], 100) == ([], [0, 0])


def test_a_topic_that_is_empty_and_at_its_end_holds_nothing_back() -> None:
    merged, taken = merge([queue(0), queue(1, 1, 2)], [False, True], 100)
    assert order(merged) == [(1, "1"), (2, "1")]
    assert taken == [0, 2]


def test_a_topic_that_runs_dry_and_may_have_more_ends_the_batch() -> None:
    merged, taken = merge([queue(0, 3), queue(1, 1, 2, 4, 5)], [True, True], 100)
    assert order(merged) == [(1, "1"), (2, "1"), (3, "0")]
    assert taken == [1, 2]


def test_no_more_than_the_limit_is_taken() -> None:
    merged, taken = merge([queue(0, 1, 4), queue(1, 2, 3)], [False, False], 3)
    assert order(merged) == [(1, "0"), (2, "1"), (3, "1")]
    assert taken == [1, 2]


@pytest.mark.parametrize("limit", [1, 7])
@given(queues=st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=3), cut=st.integers(0, 12))
def test_the_order_does_not_depend_on_how_the_input_is_cut(limit: int, queues: list[list[int]], cut: int) -> None:
    full = [queue(rank, *timestamps) for rank, timestamps in enumerate(queues)]
    whole, _ = merge(full, [False] * len(full), 10_000)
    seen: list[Rec] = []
    rest = full
    while any(rest):
        # A fetch returns only the first records of each topic.
        fetched = [records[: max(1, cut)] for records in rest]
        more = [len(part) < len(records) for part, records in zip(fetched, rest, strict=True)]
        merged, taken = merge(fetched, more, limit)
        assert merged
        seen += merged
        rest = [records[count:] for records, count in zip(rest, taken, strict=True)]
    assert seen == whole
