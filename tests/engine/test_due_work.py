"""Due work on a real broker: done at its time, in separate transactions, exactly once whatever happens to the worker."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rater.engine.app import EngineApp
from rater.engine.run import serve
from rater.settings import Settings
from tests.engine.alarms import alarms_app
from tests.engine.kafka_io import fill, make_topics, read_all
from tests.engine.processes import WorkerProcess

ALARMS = Path(__file__).with_name("alarms.py")
DONE_TIMEOUT_S = 40.0
HOUR_MS = 3_600_000


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self) -> None:
        self.now_ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@asynccontextmanager
async def worker(settings: Settings, clock: Clock) -> AsyncIterator[EngineApp]:
    app = alarms_app(settings, clock)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(app, stop))
    try:
        yield app
    finally:
        stop.set()
        await serving


async def until_gone_off(bootstrap: str, prefix: str, count: int, partitions: int = 1) -> list[Any]:
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while len(found := await read_all(bootstrap, [f"{prefix}rated"], partitions)) < count:
        assert time.monotonic() < deadline_s, f"{len(found)} of {count} alarms went off within {DONE_TIMEOUT_S} s"
        await asyncio.sleep(0.1)
    return found


async def test_an_alarm_goes_off_when_the_clock_reaches_it_and_not_before(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    clock = Clock()
    start_ms = clock.now_ms
    alarms = [(b"k", b"soon", start_ms - 1), (b"k", b"later", start_ms + HOUR_MS // 2)]
    await fill(bootstrap, f"{prefix}calls", 0, alarms)
    async with worker(settings_of(), clock):
        assert [record.key for record in await until_gone_off(bootstrap, prefix, 1)] == [b"soon"]
        clock.now_ms += HOUR_MS
        assert [record.key for record in await until_gone_off(bootstrap, prefix, 2)] == [b"soon", b"later"]


async def test_a_tick_has_the_clocks_time_and_does_not_move_the_input(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    clock = Clock()
    await fill(bootstrap, f"{prefix}calls", 0, [(b"k", b"a", clock.now_ms - HOUR_MS)])
    async with worker(settings_of(), clock) as app:
        (record,) = await until_gone_off(bootstrap, prefix, 1)
        stats = app.engine.stats.task("alarms", 0)
        assert (stats.ticks, stats.records, stats.outputs) == (1, 1, 1)
    assert (record.timestamp, record.value) == (clock.now_ms, b"%d" % (clock.now_ms - HOUR_MS))


async def test_what_fell_due_while_the_worker_was_away_is_done_when_it_is_back(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    clock = Clock()
    await fill(bootstrap, f"{prefix}calls", 0, [(b"k", b"a", clock.now_ms - 1), (b"k", b"b", clock.now_ms + HOUR_MS // 2)])
    async with worker(settings_of(), clock):
        await until_gone_off(bootstrap, prefix, 1)
    clock.now_ms += HOUR_MS
    async with worker(settings_of(), clock):
        assert [record.key for record in await until_gone_off(bootstrap, prefix, 2)] == [b"a", b"b"]


async def test_every_alarm_goes_off_once_though_the_worker_is_killed_again_and_again(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, 2)
    rng = random.Random(6)
    start_ms = time.time_ns() // 1_000_000
    ids = set()
    for partition in range(2):
        alarms = [(b"k", b"%d-%d" % (partition, n), start_ms + rng.randrange(12_000)) for n in range(3000)]
        ids |= {id_ for _, id_, _ in alarms}
        await fill(bootstrap, f"{prefix}calls", partition, alarms)
    settings = settings_of(batch_records_max=200, session_timeout_ms=30_000)
    gone_off = 0
    for _ in range(5):
        process = WorkerProcess(settings, tmp_path / "worker.log", ALARMS)
        try:
            gone_off = len(await until_gone_off(bootstrap, prefix, gone_off + 1, 2))
            await asyncio.sleep(rng.uniform(0.05, 0.5))
        finally:
            process.end()
    last = WorkerProcess(settings, tmp_path / "worker.log", ALARMS)
    try:
        await until_gone_off(bootstrap, prefix, len(ids), 2)
        code, _ = await asyncio.to_thread(last.terminate)
    finally:
        last.end()
    assert code == 0
    found = await read_all(bootstrap, [f"{prefix}rated"], 2)
    assert sorted(record.key for record in found) == sorted(ids)
    assert all(record.timestamp >= int(record.value) for record in found)
