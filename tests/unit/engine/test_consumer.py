"""The consumer's thread, on a stand-in for aiokafka's consumer that moves as the real one does."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from rater.engine.consumer import BatchConsumerThread, Polled

ONE, OTHER = TopicPartition("t", 1), TopicPartition("t", 2)


class Stub:
    """Finds a transaction marker in `ONE`, moves over it and waits for records, which don't come."""

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
    """Without the thread."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._sought_ms = {}

    def _ensure_consumer(self) -> Any:
        return self._stub

    def _state(self, tp: TopicPartition, *, positioned: bool = True) -> Any:
        return SimpleNamespace(position=self._stub.positions[tp])

    async def check_membership(self) -> None: ...


async def test_a_poll_that_is_interrupted_after_it_moved_over_a_marker_leaves_the_position_where_it_was() -> None:
    stub = Stub()
    thread = Thread(stub)
    polling = asyncio.create_task(thread.poll({ONE: 19}, 10.0, 100))
    await stub.moved.wait()
    assert await thread.seek_to({OTHER: 7})
    assert await polling == Polled({}, {})
    assert stub.positions == {ONE: 19, OTHER: 7}


async def test_a_poll_that_was_not_interrupted_moves_nothing_back() -> None:
    stub = Stub()
    thread = Thread(stub)
    stub.positions[ONE] = 25
    assert await thread.seek_to({OTHER: 7})
    assert stub.positions == {ONE: 25, OTHER: 7}


async def test_what_a_poll_of_before_knew_moves_nothing_that_has_been_sought_since() -> None:
    """Two tasks that open at once seek one after the other, before the poll they interrupt has come to its end."""
    stub = Stub()
    thread = Thread(stub)
    polling = asyncio.create_task(thread.poll({ONE: 19}, 10.0, 100))
    await stub.moved.wait()
    assert await thread.seek_to({ONE: 12})
    assert await thread.seek_to({OTHER: 7})
    assert await polling == Polled({}, {})
    assert stub.positions == {ONE: 12, OTHER: 7}


async def test_a_poll_of_before_an_assignment_has_no_say_after_it() -> None:
    stub = Stub()
    thread = Thread(stub)
    polling = asyncio.create_task(thread.poll({ONE: 19}, 10.0, 100))
    await stub.moved.wait()
    thread.hold([ONE, OTHER])
    stub.positions[ONE] = 12
    assert await thread.seek_to({OTHER: 7})
    assert await polling == Polled({}, {})
    assert stub.positions == {ONE: 12, OTHER: 7}
