"""The watchdog: a worker that makes no progress is not alive; one that only seems to stand still is."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rater.engine.aiokafka_broker import AiokafkaBroker, AiokafkaChangelogReader
from rater.engine.app import EngineApp
from rater.engine.consumer import BatchConsumer, Polled
from rater.engine.run import serve
from rater.settings import Settings
from tests.engine.calls import calls
from tests.engine.kafka_io import fill, make_topics
from tests.engine.toy import toy_app

RECORDS = 5000


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[EngineApp]:
    app, stop = toy_app(settings), asyncio.Event()
    running = asyncio.create_task(serve(app, stop))
    try:
        yield app
    finally:
        stop.set()
        await running


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - the test is about values that change by themselves
            await asyncio.sleep(0.02)


async def test_a_worker_that_reads_nothing_though_there_are_records_is_not_alive(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its consumer doesn't know of the records; the watchdog asks the broker separately."""
    await make_topics(bootstrap, prefix, 1)
    async with serving(settings_of(stall_ms_max=1000)) as app:
        await until(lambda: not app.engine.missing())

        async def find_nothing(self: BatchConsumer, wanted: Any, timeout_s: float, records_max: int) -> Polled:
            await asyncio.sleep(timeout_s)
            return Polled({}, wanted)

        monkeypatch.setattr(BatchConsumer, "poll", find_nothing)
        await asyncio.sleep(0.6)  # longer than the poll in flight
        await fill(bootstrap, f"{prefix}calls", 0, calls(0, 10))
        await until(lambda: not app.engine.alive())
        stats = app.engine.stats.task("sums", 0)
        assert stats.lag[f"{prefix}calls"].records == 10
        assert stats.stalled_s > 1
        assert app.engine.troubles() == ["sums[0] (lag 10, restoring 0) makes no progress"]
        monkeypatch.undo()
        await until(app.engine.alive)
        await until(lambda: stats.records == 10)


async def test_a_worker_without_work_is_alive(bootstrap: str, prefix: str, settings_of: Callable[..., Settings]) -> None:
    await make_topics(bootstrap, prefix, 1)
    async with serving(settings_of(stall_ms_max=1000)) as app:
        await until(lambda: not app.engine.missing())
        await asyncio.sleep(2.5)
        assert app.engine.alive()
        assert app.engine.stats.task("sums", 0).stalled_s == 0


async def test_a_long_restore_is_no_stall_and_not_ready(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_topics(bootstrap, prefix, 1)
    await fill(bootstrap, f"{prefix}calls", 0, calls(0, RECORDS))
    async with serving(settings_of(batch_records_max=50)) as app:
        await until(lambda: app.engine.stats.records == RECORDS)
    await fill(bootstrap, f"{prefix}calls", 0, calls(0, 10))

    read = AiokafkaChangelogReader.read

    async def read_slowly(self: AiokafkaChangelogReader, start: int, end: int) -> AsyncIterator[tuple[Sequence[Any], int]]:
        async for records, position in read(self, start, end):
            for at in range(0, len(records), len(records) // 8 + 1):
                part = records[at : at + len(records) // 8 + 1]
                await asyncio.sleep(0.3)
                yield part, part[-1].offset + 1
            yield (), position

    monkeypatch.setattr(AiokafkaChangelogReader, "read", read_slowly)
    settings = settings_of(stall_ms_max=1000, data_dir=settings_of().data_dir / "empty")
    async with serving(settings) as app:
        stats = app.engine.stats.task("sums", 0)
        await until(lambda: stats.restore_remaining > 0)
        assert "to restore" in app.engine.missing()[0]
        started_s = time.monotonic()
        while app.engine.missing():
            assert app.engine.alive()
            await asyncio.sleep(0.05)
        assert time.monotonic() - started_s > 1  # longer than `stall_ms_max`
        assert stats.restore_remaining == 0
        await until(lambda: stats.records == 10)


async def test_while_no_broker_answers_a_worker_that_stands_still_is_alive(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarting it wouldn't help."""
    await make_topics(bootstrap, prefix, 1)
    async with serving(settings_of(stall_ms_max=1000)) as app:
        await until(lambda: not app.engine.missing())

        async def find_nothing(self: BatchConsumer, wanted: Any, timeout_s: float, records_max: int) -> Polled:
            await asyncio.sleep(timeout_s)
            return Polled({}, wanted)

        async def not_answer(self: AiokafkaBroker, partitions: Any) -> dict[Any, int]:
            raise TimeoutError

        monkeypatch.setattr(BatchConsumer, "poll", find_nothing)
        await asyncio.sleep(0.6)
        await fill(bootstrap, f"{prefix}calls", 0, calls(0, 10))
        await until(lambda: app.engine.stats.lag_records == 10)
        monkeypatch.setattr(AiokafkaBroker, "ends", not_answer)
        monkeypatch.setattr("rater.engine.watchdog._ENDS_AGE_S_MAX", 0.5)
        await until(lambda: app.engine.stats.task("sums", 0).stalled_s > 3)
        assert app.engine.alive()
