"""The record queues of a task, and how batches are cut from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rater.engine.api import Headers
from rater.engine.partition_group import InputSlice, PartitionGroup


@dataclass(frozen=True)
class Rec:
    topic: str
    offset: int
    timestamp: int
    value: bytes | None = b"12345"
    partition: int = 0
    key: bytes | None = None
    headers: Headers = field(default=())


class GroupBench:
    """The partition group of topics "a" and "b". The test sets which of them is dry, and the clock."""

    def __init__(self, records_max: int = 100, bytes_max: int = 10_000) -> None:
        self.now_s = 0.0
        self.dry = {"a": False, "b": False}
        self.group = PartitionGroup(
            ("a", "b"), records_max, bytes_max, 1.0, lambda topic, _: self.dry[topic], lambda: self.now_s
        )
        self.group.reset({"a": 0, "b": 0})

    def add(self, topic: str, *timestamps: int, position: int | None = None) -> None:
        start = self.group.wanted()[topic]
        records = [Rec(topic, start + n, t) for n, t in enumerate(timestamps)]
        self.group.add(topic, records, start + len(records) if position is None else position)

    def take(self) -> list[int] | None:
        batch = self.group.take()
        return None if batch is None else times(batch.records)


def times(records: Sequence[object]) -> list[int]:
    return [record.timestamp for record in records if isinstance(record, Rec)]


def test_an_empty_topic_that_may_have_records_holds_the_other_back() -> None:
    given = GroupBench()
    given.add("b", 1, 2)
    assert given.take() is None
    given.dry["a"] = True
    assert given.take() == [1, 2]


def test_a_topic_never_holds_the_other_back_for_longer_than_the_limit() -> None:
    given = GroupBench()
    given.add("b", 1, 2)
    assert given.take() is None
    given.now_s = 0.99
    assert given.take() is None
    given.now_s = 1.0
    assert given.take() == [1, 2]
    given.add("b", 3)
    assert given.take() == [3]
    assert given.group.waits_given_up == 1


def test_a_topic_that_was_given_up_holds_the_other_back_again_once_it_has_had_records() -> None:
    given = GroupBench()
    given.add("b", 1, 5)
    given.take()
    given.now_s = 1.0
    assert given.take() == [1, 5]
    given.add("a", 2)
    given.add("b", 6)
    assert given.take() == [2]
    assert given.take() is None


def test_positions_go_past_markers_once_the_records_before_them_are_taken() -> None:
    given = GroupBench(records_max=2)
    given.dry["a"] = True
    given.add("b", 1, 2, 3, position=5)
    assert given.group.take() == InputSlice([Rec("b", 0, 1), Rec("b", 1, 2)], {"a": 0, "b": 2})
    batch = given.group.take()
    assert batch is not None
    assert batch.positions == {"a": 0, "b": 5}


def test_a_batch_is_no_larger_in_bytes_than_its_limit() -> None:
    given = GroupBench(bytes_max=12)
    given.dry["a"] = True
    given.add("b", 1, 2, 3, 4, 5)
    assert [given.take(), given.take(), given.take(), given.take()] == [[1, 2], [3, 4], [5], None]


def test_a_single_record_larger_than_the_limit_is_a_batch() -> None:
    given = GroupBench(bytes_max=3)
    given.dry["a"] = True
    given.add("b", 1, 2)
    assert given.take() == [1]


def test_a_topic_whose_queue_is_full_is_not_fetched() -> None:
    given = GroupBench(records_max=2)
    given.add("b", 1, 2)
    assert given.group.wanted() == {"a": 0}
    given.dry["a"] = True
    given.take()
    assert given.group.wanted() == {"a": 0, "b": 2}


def test_a_group_is_drained_when_it_has_no_records_and_no_topic_has_more() -> None:
    given = GroupBench()
    given.dry = {"a": True, "b": True}
    assert given.group.is_drained()
    given.add("b", 1)
    assert not given.group.is_drained()
    assert given.take() == [1]
    assert given.group.is_drained()
    given.dry["a"] = False
    assert not given.group.is_drained()
