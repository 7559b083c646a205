"""When a task does due work, and what happens to a task that ends unexpectedly."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rater.bootstrap import engine_settings
from rater.engine import task as task_module
from rater.engine.errors import FatalError
from rater.engine.groups import TaskId
from rater.engine.partition_group import PartitionGroup
from rater.engine.stats import EngineStats
from rater.engine.task import Task
from rater.settings import Settings


class Bench:
    """A task with a fake checkpoint, owner and clock. `done` lists what the task did, in order."""

    def __init__(self, due_ms: Sequence[int]) -> None:
        self.now_ms = 1000
        self.due_ms = sorted(due_ms)
        self.dry = True
        self.done: list[tuple[str, int]] = []
        self.failures: list[BaseException] = []
        self.positions: dict[str, int] = {"t": 0}
        self.worked = asyncio.Event()
        self.queues = PartitionGroup(("t",), 100, 10_000, 1.0, lambda _, __: self.dry, lambda: 0.0)
        id_ = TaskId("app", "group", 0, ("t",), "changelog")
        checkpoint: Any = self
        self.opening = asyncio.Semaphore(1)
        self.settings = engine_settings(Settings(retry_wait_ms_max=1000))
        self.task = Task(id_, self.queues, lambda: checkpoint, EngineStats().task("group", 0), self)

    # The checkpoint

    async def open(self) -> dict[str, int]:
        return self.positions

    def next_due_ms(self) -> int | None:
        return self.due_ms[0] if self.due_ms else None

    async def tick(self, now_ms: int) -> None:
        self._did("tick", self.due_ms.pop(0))
        assert now_ms == self.now_ms

    async def run(self, records: Sequence[Any], moved: Mapping[str, int]) -> None:
        self._did("batch", moved["t"])

    async def close(self) -> None:
        pass

    # The engine that owns it

    def clock_ms(self) -> int:
        return self.now_ms

    async def seek(self, task: TaskId, positions: Mapping[str, int]) -> bool:
        return True

    async def is_member(self) -> bool:
        return True

    def has_room(self) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.worked.set()

    def _did(self, what: str, number: int) -> None:
        self.done.append((what, number))
        self.worked.set()

    async def until_open(self) -> None:
        while not self.task.is_open:  # noqa: ASYNC110 - one turn of the loop at a time
            await asyncio.sleep(0)

    async def until_done(self, count: int) -> list[tuple[str, int]]:
        async with asyncio.timeout(5):
            while len(self.done) < count:
                self.worked.clear()
                await self.worked.wait()
        return self.done

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.task.start()
        try:
            yield
        finally:
            await self.task.stop(1.0)
        assert not self.failures


class Rec:
    topic, partition, timestamp, key, value, headers = "t", 0, 1, None, b"x", ()

    def __init__(self, offset: int) -> None:
        self.offset = offset


async def test_due_work_is_done_once_the_clock_has_reached_it() -> None:
    bench = Bench([1000, 5000])
    async with bench.running():
        await bench.until_done(1)
        bench.queues.add("t", [Rec(0)], 1)  # shows that no other tick comes before this batch
        await bench.until_done(2)
        bench.now_ms = 5000
        assert await bench.until_done(3) == [("tick", 1000), ("batch", 1), ("tick", 5000)]


async def test_due_work_waits_for_the_input_to_be_read_to_its_end() -> None:
    bench = Bench([1000])
    bench.dry = False
    async with bench.running():
        await bench.until_open()
        bench.queues.add("t", [Rec(0)], 1)
        assert await bench.until_done(1) == [("batch", 1)]
        bench.dry = True
        assert await bench.until_done(2) == [("batch", 1), ("tick", 1000)]


async def test_due_work_does_not_wait_for_ever_for_the_end_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "_DUE_WAIT_S", 0.05)
    bench = Bench([1000])
    bench.dry = False
    async with bench.running():
        assert await bench.until_done(1) == [("tick", 1000)]


async def test_a_task_without_due_work_only_takes_batches() -> None:
    bench = Bench([])
    async with bench.running():
        await bench.until_open()
        bench.queues.add("t", [Rec(0)], 1)
        assert await bench.until_done(1) == [("batch", 1)]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemError("unheard of")], ids=repr)
async def test_a_task_that_ends_unexpectedly_ends_the_worker(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def close() -> None:
        raise error

    bench = Bench([])
    monkeypatch.setattr(bench, "close", close)
    monkeypatch.setattr(bench, "seek", Raising(TimeoutError()))  # retryable, so that only closing ends the task
    bench.task.start()
    async with asyncio.timeout(5):
        await bench.worked.wait()
    assert [type(failure) for failure in bench.failures] == [FatalError]
    assert repr(error) in str(bench.failures[0])


class Raising:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __call__(self, *_: object) -> bool:
        raise self._error
