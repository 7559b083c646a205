"""The checkpoint on a real broker: what it restores, what it refuses, and what a failure leaves behind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from rater.bootstrap import engine_settings
from rater.engine.aiokafka_broker import AiokafkaBroker
from rater.engine.api import Record
from rater.engine.checkpoint import Checkpoint
from rater.engine.errors import (
    BrokerNotReadyError,
    CommitUnknownError,
    ProcessorFailedError,
    StateLostError,
    TopicsError,
    is_retryable,
)
from rater.engine.groups import TaskId
from rater.engine.output import Outbox
from rater.engine.overlay import META_KEY
from rater.engine.stats import EngineStats
from rater.engine.store import LocalStore, MemoryStore, StoreIdentity, open_store
from rater.settings import Settings
from tests.engine.calls import calls, totals
from tests.engine.inline_agent import InlineAgent
from tests.engine.kafka_io import committed, fill, make_topics, read_all
from tests.engine.toy import Sums

COUNT = 100


class Bench:
    """One task with a filled input partition. The test opens and runs its checkpoints."""

    def __init__(self, settings: Settings, kafka: Any) -> None:
        self.settings = settings
        self.kafka = kafka
        prefix = settings.topic_prefix
        self.task = TaskId(settings.app_id, "sums", 0, (f"{prefix}commands", f"{prefix}calls"), f"{prefix}changelog")
        self.stats = EngineStats().task("sums", 0)
        self.records: Sequence[Any] = ()

    def checkpoint(self, store: LocalStore | None = None, kafka: Any = None, processor: type[Sums] = Sums) -> Checkpoint:
        return Checkpoint(
            self.task,
            kafka or self.kafka,
            lambda: store or MemoryStore(),
            lambda partition, state, sink: processor(self.settings.topic_prefix, partition, state, sink),
            InlineAgent(),
            self.stats,
            replace(engine_settings(self.settings), store_age_ms_max=3_600_000, accept_lost_input=False),
        )

    async def run(self, checkpoint: Checkpoint, start: int, end: int) -> None:
        """Process calls from `start` to before `end` as one batch."""
        await checkpoint.run(self.records[start:end], {self.task.topics[1]: end})

    async def rated(self) -> int:
        return len(await read_all(self.settings.bootstrap, [f"{self.settings.topic_prefix}rated"], 1))


@pytest.fixture
async def bench(bootstrap: str, prefix: str, settings_of: Callable[..., Settings]) -> AsyncIterator[Bench]:
    await make_topics(bootstrap, prefix, 1)
    await fill(bootstrap, f"{prefix}calls", 0, calls(0, COUNT, keys=5))
    settings = settings_of(broker_timeout_ms=5000)
    kafka = AiokafkaBroker(engine_settings(settings))
    await kafka.start()
    made = Bench(settings, kafka)
    made.records = await read_all(bootstrap, [f"{prefix}calls"], 1)
    yield made
    await kafka.stop()


@asynccontextmanager
async def opened(checkpoint: Checkpoint) -> AsyncIterator[Checkpoint]:
    try:
        await checkpoint.open()
        yield checkpoint
    finally:
        await checkpoint.close()


def rows(store: MemoryStore) -> Mapping[bytes, bytes]:
    return dict(store.scan(b""))


async def test_an_empty_store_is_restored_from_the_changelog_to_the_same_rows(bench: Bench) -> None:
    first, second = MemoryStore(), MemoryStore()
    async with opened(bench.checkpoint(first)) as checkpoint:
        await bench.run(checkpoint, 0, 40)
        await bench.run(checkpoint, 40, 70)
    async with opened(bench.checkpoint(second)) as checkpoint:
        assert checkpoint.positions[bench.task.topics[1]] == 70
        assert rows(second) == rows(first)
        await bench.run(checkpoint, 70, COUNT)
    assert await bench.rated() == COUNT
    sums = {key[2:]: value for key, value in rows(second).items() if key.startswith(b"ra")}
    assert {key: int(value.split(b'"total":')[1].split(b",")[0]) for key, value in sums.items()} == totals(
        calls(0, COUNT, keys=5)
    )


async def test_a_changelog_that_ends_in_markers_and_aborted_batches_is_restored_at_once(bench: Bench) -> None:
    async with opened(bench.checkpoint()) as checkpoint:
        await bench.run(checkpoint, 0, 40)
    producer = AIOKafkaProducer(bootstrap_servers=bench.settings.bootstrap, transactional_id=bench.settings.app_id)
    await producer.start()
    for _ in range(3):
        await producer.begin_transaction()
        await producer.send_and_wait(bench.task.changelog, b"\x00" * 300, key=b"rjunk", partition=0)
        await producer.abort_transaction()
    await producer.stop()
    store = MemoryStore()
    checkpoint = bench.checkpoint(store)
    async with asyncio.timeout(2):
        await checkpoint.open()
    await checkpoint.close()
    assert store.get(b"rjunk") is None
    assert checkpoint.positions[bench.task.topics[1]] == 40


async def test_offsets_committed_ahead_of_the_state_are_fatal(bench: Bench) -> None:
    async with opened(bench.checkpoint()) as checkpoint:
        await bench.run(checkpoint, 0, 40)
    await commit_by_hand(bench, 41)
    with pytest.raises(StateLostError, match="41"):
        async with opened(bench.checkpoint()):
            pass


async def test_offsets_committed_without_any_state_are_fatal(bench: Bench) -> None:
    await commit_by_hand(bench, 7)
    with pytest.raises(StateLostError, match="7"):
        async with opened(bench.checkpoint()):
            pass


async def test_offsets_behind_the_state_do_not_make_it_process_anything_twice(bench: Bench) -> None:
    async with opened(bench.checkpoint()) as checkpoint:
        await bench.run(checkpoint, 0, 40)
    await commit_by_hand(bench, 3)
    async with opened(bench.checkpoint()) as checkpoint:
        assert checkpoint.positions[bench.task.topics[1]] == 40


async def commit_by_hand(bench: Bench, offset: int) -> None:
    """Commit an offset without the engine, as some tool might do."""
    producer = AIOKafkaProducer(bootstrap_servers=bench.settings.bootstrap, transactional_id="some-tool")
    await producer.start()
    async with producer.transaction():
        offsets = {TopicPartition(bench.task.topics[1], 0): OffsetAndMetadata(offset, "")}
        await producer.send_offsets_to_transaction(offsets, bench.settings.app_id)
    await producer.stop()


class Failing:
    """A broker whose producers raise `error` at one step, before or `after` the real call. All else is the real broker's."""

    def __init__(self, kafka: AiokafkaBroker, step: str, error: Exception, *, after: bool = False) -> None:
        self._kafka = kafka
        self._step = step
        self._error = error
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kafka, name)

    async def open_producer(self, transactional_id: str) -> Any:
        producer = await self._kafka.open_producer(transactional_id)
        real = getattr(producer, self._step)

        async def fail(*args: Any) -> Any:
            if self._after:
                await real(*args)
            if self._step == "send_batch":
                failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                failed.set_exception(self._error)
                return failed
            raise self._error

        setattr(producer, self._step, fail)
        return producer


@pytest.mark.parametrize("step", ["send_batch", "send_offsets"])
async def test_a_step_that_fails_before_the_commit_leaves_nothing_behind(bench: Bench, step: str) -> None:
    store = MemoryStore()
    checkpoint = bench.checkpoint(store, Failing(bench.kafka, step, ConnectionError("broken"), after=True))
    async with opened(checkpoint):
        with pytest.raises(ConnectionError):
            await bench.run(checkpoint, 0, 40)
    assert bench.stats.aborts == 1
    assert rows(store) == {}
    assert await bench.rated() == 0
    assert await committed(bench.settings.bootstrap, bench.settings.app_id) == {}
    async with opened(bench.checkpoint()) as checkpoint:
        assert checkpoint.positions[bench.task.topics[1]] == 0
        await bench.run(checkpoint, 0, COUNT)
    assert await bench.rated() == COUNT


@pytest.mark.parametrize(("happened", "position"), [(True, 40), (False, 0)])
async def test_a_commit_without_an_answer_is_settled_by_the_next_opening(bench: Bench, happened: bool, position: int) -> None:
    store = MemoryStore()
    checkpoint = bench.checkpoint(store, Failing(bench.kafka, "commit", TimeoutError(), after=happened))
    async with opened(checkpoint):
        with pytest.raises(CommitUnknownError):
            await bench.run(checkpoint, 0, 40)
    assert rows(store) == {}
    async with opened(bench.checkpoint(store)) as checkpoint:
        assert checkpoint.positions[bench.task.topics[1]] == position
        await bench.run(checkpoint, position, COUNT)
    assert await bench.rated() == COUNT


async def test_a_processor_that_raises_commits_nothing(bench: Bench) -> None:
    async with opened(bench.checkpoint()) as checkpoint:
        broken = [*bench.records[:20], BrokenRecord(bench.records[20])]
        with pytest.raises(ProcessorFailedError, match="sums"):
            await checkpoint.run(broken, {bench.task.topics[1]: 21})
    assert await bench.rated() == 0


async def test_an_agent_that_gets_no_answer_from_the_broker_raises_a_retryable_error(bench: Bench) -> None:
    class Waiting(Sums):
        async def process(self, records: Sequence[Record]) -> None:
            await super().process(records)
            raise BrokerNotReadyError("no answer")

    async with opened(bench.checkpoint(processor=Waiting)) as checkpoint:
        with pytest.raises(BrokerNotReadyError) as raised:
            await bench.run(checkpoint, 0, 40)
    assert is_retryable(raised.value)
    assert await bench.rated() == 0


async def test_due_work_that_raises_commits_nothing(bench: Bench) -> None:
    class Raising(Sums):
        def next_due_ms(self) -> int | None:
            return 0

        async def tick(self, now_ms: int) -> None:
            self._sink.emit(f"{bench.settings.topic_prefix}rated", b"k", b"v", now_ms)
            raise ValueError("no")

    store = MemoryStore()
    checkpoint = bench.checkpoint(store, processor=Raising)
    async with opened(checkpoint):
        assert checkpoint.next_due_ms() == 0
        with pytest.raises(ProcessorFailedError, match="ValueError"):
            await checkpoint.tick(1)
    assert rows(store) == {}
    assert await bench.rated() == 0


class BrokenRecord:
    """A record that the toy agent can't read."""

    value = b"no json"

    def __init__(self, record: Any) -> None:
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)


async def test_an_older_owner_of_the_task_can_commit_nothing_more(bench: Bench) -> None:
    older, newer = bench.checkpoint(), bench.checkpoint()
    async with opened(older):
        await bench.run(older, 0, 10)
        async with opened(newer):
            assert newer.positions[bench.task.topics[1]] == 10
            with pytest.raises(ProducerFenced):
                await bench.run(older, 10, 20)
            await bench.run(newer, 10, 20)
    assert await bench.rated() == 20


async def test_a_record_larger_than_a_record_batch_is_sent_in_its_own_batch(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    roomy = {"max.message.bytes": "4000000"}
    await make_topics(bootstrap, prefix, 1, {"rated": roomy})
    settings = settings_of(output_batch_bytes_max=20_000)
    kafka = AiokafkaBroker(engine_settings(settings))
    await kafka.start()
    producer = await kafka.open_producer("large")
    try:
        outbox = Outbox(producer, 0)
        sizes = [100, 1_000_000, 100, 19_000, 19_000, 500_000]
        for size in sizes:
            outbox.emit(f"{prefix}rated", b"k", b"z" * size, 1)
        await producer.begin()
        sends = await outbox.queue(f"{prefix}changelog", [(b"k", b"v")])
        await sends.acknowledged()
        await producer.commit()
    finally:
        await producer.close()
        await kafka.stop()
    assert [len(r.value) for r in await read_all(bootstrap, [f"{prefix}rated"], 1)] == sizes


async def test_a_local_store_is_brought_forward_and_a_foreign_one_rebuilt(bench: Bench) -> None:
    folder = bench.settings.data_dir / "0"
    identity = StoreIdentity("app", "sums", bench.task.changelog, 0)
    async with opened(bench.checkpoint(open_store(folder, identity, 1 << 20))) as checkpoint:
        await bench.run(checkpoint, 0, 40)
    async with opened(bench.checkpoint()) as checkpoint:
        await bench.run(checkpoint, 40, 60)
    bench.stats.restored_records = 0
    async with opened(bench.checkpoint(open_store(folder, identity, 1 << 20))) as checkpoint:
        assert checkpoint.positions[bench.task.topics[1]] == 60
        brought_forward = bench.stats.restored_records
    bench.stats.restored_records = 0
    foreign = StoreIdentity("another app", "sums", bench.task.changelog, 0)
    async with opened(bench.checkpoint(open_store(folder, foreign, 1 << 20))) as checkpoint:
        assert checkpoint.positions[bench.task.topics[1]] == 60
        assert 0 < brought_forward < bench.stats.restored_records


async def test_a_store_beyond_the_changelogs_end_is_rebuilt(bench: Bench) -> None:
    async with opened(bench.checkpoint()) as checkpoint:
        await bench.run(checkpoint, 0, 40)
    store = MemoryStore()
    store.write({b"rstray": b"\x00x", META_KEY: b"{}"}, 10_000)
    async with opened(bench.checkpoint(store)) as checkpoint:
        assert checkpoint.positions[bench.task.topics[1]] == 40
        assert store.get(b"rstray") is None


async def test_a_state_made_with_another_number_of_partitions_is_refused(bench: Bench) -> None:
    bench.task = replace(bench.task, partitions=2)
    async with opened(bench.checkpoint()) as checkpoint:
        await bench.run(checkpoint, 0, 10)
    async with opened(bench.checkpoint()) as checkpoint:
        await bench.run(checkpoint, 10, 20)
    bench.task = replace(bench.task, partitions=3)
    with pytest.raises(TopicsError, match="made with 2 partitions, and now there are 3"):
        async with opened(bench.checkpoint()):
            pass
