"""A batch between engine and agent: who learns of an error, and what happens to a batch that is given up."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rater.bootstrap import engine_settings
from rater.engine.app import EngineApp
from rater.engine.batches import Batch, BatchChannel, BatchTransaction, Tick
from rater.engine.groups import TaskGroup
from rater.settings import Settings


class Rec:
    topic, partition, timestamp, key, value, headers = "t", 0, 1, None, b"x", ()

    def __init__(self, offset: int) -> None:
        self.offset = offset


class Nothing:
    """Stands in for state and sink, which these tests don't use."""

    def emit(self, *_: Any) -> None: ...


class Agency:
    """An app with one agent. It calls the transaction's memory, if there is one, and records the batches it has finished."""

    def __init__(self, folder: Path) -> None:
        self.app = EngineApp(engine_settings(Settings(data_dir=folder)))
        self.channel: BatchChannel = self.app.batches(TaskGroup("g", ("t",), "changelog"))
        self.finished: list[Any] = []
        self.entered = asyncio.Event()

        @self.app.agent(self.channel, name="agent")
        async def agent(stream: AsyncIterable[Batch]) -> None:
            async for batch in stream:
                async with batch as transaction:
                    self.entered.set()
                    await self._work(batch, transaction)
                self.finished.append(getattr(batch, "now_ms", None) or batch.offset)

    async def _work(self, batch: Batch, transaction: BatchTransaction) -> None:
        if transaction.memory is not None:
            await transaction.memory()

    async def give(self, work: Any = None, offset: int = 7) -> Batch:
        """Have a batch processed, then settle it."""
        batch = Batch(BatchTransaction(0, Nothing(), Nothing(), work, [Rec(offset)]))  # type: ignore[arg-type]
        try:
            await batch.run(self.channel)
        finally:
            batch.settle()
        return batch


@pytest.fixture
async def agency(tmp_path: Path) -> AsyncIterator[Agency]:
    made = Agency(tmp_path)
    await made.app.start_agents(2)
    yield made
    made.app.closing.set()
    await made.app.agents.stop()
    assert made.app.failure.error is None


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def raise_value_error() -> None:
    raise ValueError("boom")


async def test_the_engine_gets_the_agents_exception_and_the_agent_lives_on(agency: Agency) -> None:
    with pytest.raises(ValueError, match="boom"):
        await agency.give(raise_value_error)
    await agency.give(offset=8)
    await turns()
    assert agency.finished[-1] == 8


async def test_the_agent_stays_in_the_block_until_the_transaction_is_settled(agency: Agency) -> None:
    batch = Batch(BatchTransaction(0, Nothing(), Nothing(), None, [Rec(1)]))  # type: ignore[arg-type]
    await batch.run(agency.channel)
    await turns()
    assert agency.finished == []
    batch.settle()
    await turns()
    assert agency.finished == [1]


async def test_a_tick_is_an_event_of_its_own(agency: Agency) -> None:
    tick = Tick(BatchTransaction(0, Nothing(), Nothing(), None), 12345)  # type: ignore[arg-type]
    await tick.run(agency.channel)
    tick.settle()
    await turns()
    assert agency.finished == [12345]


async def test_batches_of_two_tasks_run_side_by_side(agency: Agency) -> None:
    meeting = asyncio.Barrier(2)
    async with asyncio.timeout(5):
        await asyncio.gather(agency.give(meeting.wait), agency.give(meeting.wait))


async def test_a_batch_that_is_given_up_cancels_the_block_and_the_agent_takes_the_next(agency: Agency) -> None:
    cancelled = []

    async def for_ever() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    giving = asyncio.create_task(agency.give(for_ever))
    await agency.entered.wait()
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving
    assert cancelled == [True], "the engine continued before the agent had left the block"
    for offset in range(4):  # both actors still work
        await agency.give(offset=offset)
    await turns()
    assert agency.finished[-4:] == [0, 1, 2, 3]


async def test_a_batch_given_up_before_the_agent_took_it_has_no_effect(agency: Agency) -> None:
    done = []

    async def reach_out() -> None:
        await asyncio.sleep(0)
        done.append("sent")

    giving = asyncio.create_task(agency.give(reach_out))
    await asyncio.sleep(0)  # now it is in the channel
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving
    await turns()
    assert done == []
    await agency.give(offset=9)
    await turns()
    assert agency.finished[-1] == 9


async def test_a_batch_releases_its_records_when_it_ends(agency: Agency) -> None:
    batch = Batch(BatchTransaction(0, Nothing(), Nothing(), None, [Rec(1)]))  # type: ignore[arg-type]
    transaction = batch._transaction
    await batch.run(agency.channel)
    batch.settle()
    await turns()
    assert transaction is not None
    assert transaction.records == ()
