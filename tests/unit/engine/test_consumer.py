"""The consumer's thread, with a fake of aiokafka's consumer whose positions move as the real ones do."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownError

from rater.engine.consumer import BatchConsumerThread, Polled
from rater.engine.errors import FencedError

ONE, OTHER = TopicPartition("t", 1), TopicPartition("t", 2)


class Stub:
    """Skips a transaction marker in `ONE`, then waits for records that never come."""

    def __init__(self) -> None:
        self.positions = {ONE: 19, OTHER: 0}
        self.moved = asyncio.Event()

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
        self.positions[ONE] = 20
        self.moved.set()
        await asyncio.Event().wait()
        return {}

    def seek(self, tp: TopicPartition, position: int) -> None:
        self.positions[tp] = position

    def pause(self, *partitions: TopicPartition) -> None: ...

    def resume(self, *partitions: TopicPartition) -> None: ...


class Thread(BatchConsumerThread):
    """The class under test, without a real thread."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._sought_ms = {}

    def _ensure_consumer(self) -> Any:
        return self._stub

    def _state(self, tp: TopicPartition, *, positioned: bool = True) -> Any:
        return SimpleNamespace(position=self._stub.positions[tp])

    async def check_membership(self) -> None: ...


async def test_after_an_interrupted_poll_the_position_is_where_it_was_before() -> None:
    stub = Stub()
    thread = Thread(stub)
    polling = asyncio.create_task(thread.poll({ONE: 19}, 10.0, 100))
    await stub.moved.wait()
    assert await thread.seek_to({OTHER: 7})
    assert await polling == Polled({}, {})
    assert stub.positions == {ONE: 19, OTHER: 7}


async def test_a_seek_without_a_poll_in_flight_leaves_other_positions_alone() -> None:
    stub = Stub()
    thread = Thread(stub)
    stub.positions[ONE] = 25
    assert await thread.seek_to({OTHER: 7})
    assert stub.positions == {ONE: 25, OTHER: 7}


async def test_an_interrupted_poll_does_not_undo_an_earlier_seek() -> None:
    """Two tasks that open at the same time seek one after the other, before the poll that they interrupt has ended."""
    stub = Stub()
    thread = Thread(stub)
    polling = asyncio.create_task(thread.poll({ONE: 19}, 10.0, 100))
    await stub.moved.wait()
    assert await thread.seek_to({ONE: 12})
    assert await thread.seek_to({OTHER: 7})
    assert await polling == Polled({}, {})
    assert stub.positions == {ONE: 12, OTHER: 7}


async def test_the_positions_of_a_poll_from_before_an_assignment_are_forgotten() -> None:
    stub = Stub()
    thread = Thread(stub)
    polling = asyncio.create_task(thread.poll({ONE: 19}, 10.0, 100))
    await stub.moved.wait()
    thread.hold([ONE, OTHER])
    stub.positions[ONE] = 12
    assert await thread.seek_to({OTHER: 7})
    assert await polling == Polled({}, {})
    assert stub.positions == {ONE: 12, OTHER: 7}


async def test_a_static_member_that_is_refused_while_a_poll_waits_has_been_fenced() -> None:
    class Refused(Stub):
        async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, Any]:
            raise KafkaError(repr(UnknownError()))  # as aiokafka passes on code 82

    thread = Thread(Refused())
    thread.app = SimpleNamespace(settings=SimpleNamespace(instance_id="worker-1"))
    with pytest.raises(FencedError, match="worker-1"):
        await thread.poll({ONE: 19}, 10.0, 100)
