"""Exactly-once processing on a real broker, whatever happens to the worker."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from rater.engine.app import EngineApp
from rater.engine.run import serve
from rater.settings import Settings
from tests.engine.calls import InputRecord, calls, check_rated
from tests.engine.kafka_io import committed, fill, make_topics, read_all
from tests.engine.processes import WorkerProcess
from tests.engine.toy import toy_app

PARTITIONS = 3
DONE_TIMEOUT_S = 40.0


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[EngineApp]:
    """The toy worker in this process. At the end of the block it ends as after SIGTERM."""
    app = toy_app(settings)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(app, stop))
    try:
        yield app
    finally:
        stop.set()
        await serving


async def until_committed(bootstrap: str, settings: Settings, counts: dict[str, int]) -> None:
    """Wait until the group has committed `counts` (topic → offset, summed over the partitions).

    The input must not have transaction markers, so that offsets count records.
    """
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        done = await committed(bootstrap, settings.app_id)
        by_topic = dict.fromkeys(counts, 0)
        for tp, offset in done.items():
            by_topic[tp.topic] += offset
        if by_topic == counts:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"committed {by_topic} of {counts} within {DONE_TIMEOUT_S} s")


async def test_every_record_counts_once_though_the_worker_is_killed_again_and_again(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, PARTITIONS)
    given: list[InputRecord] = []
    for partition in range(PARTITIONS):
        part = calls(partition, 20_000)
        given += part
        await fill(bootstrap, f"{prefix}calls", partition, part)
    settings = settings_of(batch_records_max=500)
    rng = random.Random(4)
    for round_number in range(6):
        process = WorkerProcess(settings, tmp_path / "worker.log")
        try:
            await until_moving(bootstrap, settings, seconds=rng.uniform(0.05, 0.5))
        finally:
            process.end()
        if round_number % 3 == 2:
            shutil.rmtree(settings.data_dir)
    async with worker(settings):
        await until_committed(bootstrap, settings, {f"{prefix}calls": len(given), f"{prefix}commands": 0})
    check_rated(await read_all(bootstrap, [f"{prefix}rated"], PARTITIONS), given)


async def until_moving(bootstrap: str, settings: Settings, seconds: float) -> None:
    """Return `seconds` after the group has committed more than at the start of this call."""
    before = await committed(bootstrap, settings.app_id)
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while await committed(bootstrap, settings.app_id) == before:
        assert time.monotonic() < deadline_s, "the worker makes no progress"
        await asyncio.sleep(0.02)
    await asyncio.sleep(seconds)


async def test_two_workers_share_the_partitions_and_hand_them_over_when_one_leaves(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, PARTITIONS)
    given = [record for partition in range(PARTITIONS) for record in calls(partition, 6000)]
    feeding = asyncio.create_task(feed_slowly(bootstrap, prefix))
    first = settings_of(instance_id=None, data_dir=tmp_path / "1")
    second = settings_of(instance_id=None, data_dir=tmp_path / "2")
    async with worker(first) as one:
        await until_moving(bootstrap, first, 0.3)
        async with worker(second) as two:
            await until_sharing(one, two)
            await asyncio.sleep(0.5)
            shared = sorted([*one.engine.assigned, *two.engine.assigned])
            assert shared == [("sums", partition) for partition in range(PARTITIONS)]
        await feeding
        await until_committed(bootstrap, first, {f"{prefix}calls": len(given), f"{prefix}commands": 0})
    check_rated(await read_all(bootstrap, [f"{prefix}rated"], PARTITIONS), given)


async def feed_slowly(bootstrap: str, prefix: str) -> None:
    for start in range(0, 6000, 500):
        for partition in range(PARTITIONS):
            await fill(bootstrap, f"{prefix}calls", partition, calls(partition, 6000)[start : start + 500])
        await asyncio.sleep(0.2)


async def until_sharing(one: EngineApp, two: EngineApp) -> None:
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while not (one.engine.assigned and two.engine.assigned):
        assert time.monotonic() < deadline_s, "the workers do not share the partitions"
        await asyncio.sleep(0.05)


async def test_a_worker_stopped_longer_than_its_session_is_fenced_and_ends(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, 1)
    settings = settings_of(batch_records_max=200)
    zombie = WorkerProcess(settings, tmp_path / "zombie.log")
    try:
        given = calls(0, 15_000)
        await fill(bootstrap, f"{prefix}calls", 0, given)
        await until_moving(bootstrap, settings, 0.1)
        zombie.pause()
        # Its successor has the same instance id and the same data folder, which the zombie still has locked.
        async with worker(settings) as successor:
            deadline_s = time.monotonic() + DONE_TIMEOUT_S
            while not successor.engine.stats.records:
                assert time.monotonic() < deadline_s, "the successor makes no progress"
                await asyncio.sleep(0.05)
            zombie.resume()
            assert await asyncio.to_thread(zombie.wait, 20) == 1
            await until_committed(bootstrap, settings, {f"{prefix}calls": len(given), f"{prefix}commands": 0})
        assert "FencedError" in zombie.log
    finally:
        zombie.end()
    check_rated(await read_all(bootstrap, [f"{prefix}rated"], 1), given)


async def test_outputs_keep_the_timestamp_and_the_partition_of_their_input(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, PARTITIONS)
    for partition in range(PARTITIONS):
        await fill(bootstrap, f"{prefix}calls", partition, calls(partition, 10))
    settings = settings_of()
    async with worker(settings):
        await until_committed(bootstrap, settings, {f"{prefix}calls": 30, f"{prefix}commands": 0})
    rated = await read_all(bootstrap, [f"{prefix}rated"], PARTITIONS)
    expected = [(p, t) for p in range(PARTITIONS) for _, _, t in calls(p, 10)]
    assert [(record.partition, record.timestamp) for record in rated] == expected
