"""Two topics that were filled before the worker started are processed in the order of their timestamps."""

import asyncio
import random
from collections.abc import AsyncIterable, Callable, Sequence

from aiokafka import AIOKafkaProducer

from rater.bootstrap import engine_settings
from rater.engine.api import Record, Sink, State
from rater.engine.app import EngineApp
from rater.engine.batches import Batch
from rater.engine.groups import TaskGroup
from rater.engine.run import serve
from rater.settings import Settings
from tests.engine.kafka_io import fill, make_topics

COMMANDS, CALLS = 300, 20_000


class Recorder:
    """Appends each record to `seen`, as (timestamp, topic, offset), and sets `done` after `total` records."""

    def __init__(self, seen: list[tuple[int, str, int]], done: asyncio.Event, total: int) -> None:
        self._seen = seen
        self._done = done
        self._total = total

    async def process(self, records: Sequence[Record]) -> None:
        self._seen += [(record.timestamp, record.topic, record.offset) for record in records]
        if len(self._seen) >= self._total:
            self._done.set()


async def run_and_record(settings: Settings, total: int) -> list[tuple[int, str, int]]:
    seen: list[tuple[int, str, int]] = []
    done = asyncio.Event()
    prefix = settings.topic_prefix

    def make(partition: int, state: State, sink: Sink) -> Recorder:
        del partition, state, sink
        return Recorder(seen, done, total)

    group = TaskGroup("order", (f"{prefix}commands", f"{prefix}calls"), f"{prefix}changelog", memory=make)
    stop = asyncio.Event()
    app = EngineApp(engine_settings(settings))

    @app.agent(app.batches(group), name="order")
    async def record(stream: AsyncIterable[Batch]) -> None:
        async for batch in stream:
            async with batch as transaction:
                await transaction.memory.process(transaction.records)

    serving = asyncio.create_task(serve(app, stop))
    async with asyncio.timeout(30):
        await done.wait()
    stop.set()
    await serving
    assert app.engine.stats.task("order", 0).merge_waits_given_up == 0
    return seen


async def test_two_full_topics_are_processed_in_the_order_of_their_timestamps(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    rng = random.Random(7)
    # Few distinct timestamps, so that commands and calls often have the same one.
    commands_ms = sorted(rng.randrange(5000) for _ in range(COMMANDS))
    calls_ms = sorted(rng.randrange(5000) for _ in range(CALLS))
    await fill(bootstrap, f"{prefix}calls", 0, [(b"k", b"x" * 100, t) for t in calls_ms])
    await fill(bootstrap, f"{prefix}commands", 0, [(b"k", b"x" * 9000, t) for t in commands_ms])
    seen = await run_and_record(settings_of(fetch_bytes_max=65_536, batch_records_max=700), COMMANDS + CALLS)
    commands = [(t, 0, offset) for offset, t in enumerate(commands_ms)]
    calls = [(t, 1, offset) for offset, t in enumerate(calls_ms)]
    rank = {f"{prefix}commands": 0, f"{prefix}calls": 1}
    assert [(t, rank[topic], offset) for t, topic, offset in seen] == sorted(commands + calls)


async def test_a_topic_that_ends_in_markers_and_aborted_records_does_not_hold_the_other_back(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{prefix}commander")
    await producer.start()
    async with producer.transaction():
        await producer.send(f"{prefix}commands", b"x", key=b"k", partition=0, timestamp_ms=5)
    await producer.begin_transaction()
    await producer.send_and_wait(f"{prefix}commands", b"x", key=b"k", partition=0, timestamp_ms=6)
    await producer.abort_transaction()
    await producer.stop()
    await fill(bootstrap, f"{prefix}calls", 0, [(b"k", b"x", t) for t in range(10)])
    seen = await run_and_record(settings_of(merge_wait_ms_max=30_000), 11)
    assert [t for t, _, _ in seen] == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]
    assert seen[5][1] == f"{prefix}commands"
