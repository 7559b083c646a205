"""A slow broker, a full disk, a missing topic: the worker copes or ends with one clear line, and what it committed is right."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from rater.engine import watchdog
from rater.engine.app import EngineApp
from rater.engine.errors import TopicsError
from rater.engine.run import serve
from rater.settings import Settings
from tests.engine.calls import calls, check_rated
from tests.engine.kafka_io import INPUTS, OUTPUTS, fill, make_topics, read_all
from tests.engine.processes import WorkerProcess
from tests.engine.slow_broker import behind_proxy
from tests.engine.test_exactly_once import until_committed, until_moving, worker
from tests.engine.toy import toy_app

SMALL_DISK = Path(__file__).with_name("small_disk.py")
RECORDS = 2000
BATCH_RECORDS = 100  # so small that there are far more batches than cuts
CUTS = 5


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def test_a_slow_broker_makes_the_work_slow_and_nothing_else(prefix: str, tmp_path: Path) -> None:
    async with behind_proxy(tmp_path / "kafka") as (proxy, bootstrap):
        settings = slow_settings(bootstrap, prefix, tmp_path, broker_timeout_ms=15_000)
        given = await filled(bootstrap, prefix)
        proxy.delay_s, proxy.bytes_per_s = 0.02, 4_000_000
        async with worker(settings) as app:
            await until_committed(bootstrap, settings, {f"{prefix}calls": len(given), f"{prefix}commands": 0})
            assert app.engine.alive()
            assert sum(task.reopens for task in app.engine.stats.tasks.values()) == 0
        proxy.delay_s, proxy.bytes_per_s = 0.0, 0
        check_rated(await read_all(bootstrap, [f"{prefix}rated"], 2), given)


async def test_a_broker_too_slow_for_its_time_limit_is_tried_again_until_it_is_not(prefix: str, tmp_path: Path) -> None:
    async with behind_proxy(tmp_path / "kafka") as (proxy, bootstrap):
        settings = slow_settings(bootstrap, prefix, tmp_path)
        given = await filled(bootstrap, prefix)
        async with worker(settings) as app:
            await until_moving(bootstrap, settings, 0.1)
            proxy.delay_s = settings.broker_timeout_ms / 1000 + 1.0
            await until_reopened(app)
            proxy.delay_s = 0.0
            await until_committed(bootstrap, settings, {f"{prefix}calls": len(given), f"{prefix}commands": 0})
        check_rated(await read_all(bootstrap, [f"{prefix}rated"], 2), given)


async def test_connections_cut_in_mid_stream_lose_and_repeat_nothing(prefix: str, tmp_path: Path) -> None:
    async with behind_proxy(tmp_path / "kafka") as (proxy, bootstrap):
        settings = slow_settings(bootstrap, prefix, tmp_path)
        given = await filled(bootstrap, prefix)
        proxy.delay_s = 0.005  # so that data is in flight at every cut
        async with worker(settings):
            for _ in range(CUTS):
                await until_moving(bootstrap, settings, 0.0)
                proxy.cut()
            await until_committed(bootstrap, settings, {f"{prefix}calls": len(given), f"{prefix}commands": 0})
        check_rated(await read_all(bootstrap, [f"{prefix}rated"], 2), given)


async def test_a_full_disk_ends_the_worker_in_one_line_and_with_room_again_it_goes_on(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_topics(bootstrap, prefix, 1)
    given = calls(0, 20_000)
    await fill(bootstrap, f"{prefix}calls", 0, given)
    monkeypatch.setenv("FILE_BYTES_MAX", str(150_000))
    full = WorkerProcess(settings_of(), tmp_path / "log", SMALL_DISK)
    try:
        assert await asyncio.to_thread(full.wait, 60) == 1
    finally:
        full.end()
    ends = [line for line in full.log.splitlines() if "CRITICAL" in line]
    assert len(ends) == 1
    assert "StoreError: the local store" in ends[0]
    assert "RATER_DATA_DIR" in ends[0]
    async with worker(settings_of()):
        await until_committed(bootstrap, settings_of(), {f"{prefix}calls": len(given), f"{prefix}commands": 0})
    check_rated(await read_all(bootstrap, [f"{prefix}rated"], 1), given)


async def test_a_data_dir_that_is_none_is_named(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"the local store .*file.* can't be opened.*RATER_DATA_DIR"):
        await serve(toy_app(settings_of(data_dir=tmp_path / "file" / "data")), asyncio.Event())


@pytest.mark.parametrize("name", [INPUTS[1], OUTPUTS[0], "changelog"])
async def test_a_topic_that_is_missing_is_named_with_what_makes_it(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], name: str
) -> None:
    await make_topics(bootstrap, prefix, 1)
    async with admin_of(bootstrap) as admin:
        await admin.delete_topics([prefix + name])
        await until_gone(admin, prefix + name)
    with pytest.raises(TopicsError, match=f"no topic {prefix}{name}; `rater topics apply`"):
        await serve(toy_app(settings_of()), asyncio.Event())


async def test_another_number_of_partitions_than_expected_is_refused(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 3)
    with pytest.raises(TopicsError, match="have 3 partitions, but 2 are expected"):
        await serve(expecting(settings_of(), 2), asyncio.Event())


async def test_partitions_that_are_added_while_it_runs_end_the_worker(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_TOPICS_EVERY_S", 0.2)
    await make_topics(bootstrap, prefix, 2)
    app = expecting(settings_of(), 2)
    serving = asyncio.create_task(serve(app, asyncio.Event()))
    await until_assigned(app, 2)
    async with admin_of(bootstrap) as admin:
        await admin.create_partitions({prefix + name: NewPartitions(3) for name in (*INPUTS, *OUTPUTS, "changelog")})
    with pytest.raises(TopicsError, match="but 2 are expected"):
        await asyncio.wait_for(serving, 30)


@pytest.mark.parametrize("name", [INPUTS[1], OUTPUTS[0], "changelog"])
async def test_a_topic_that_is_deleted_while_it_runs_ends_the_worker(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_TOPICS_EVERY_S", 0.2)
    await make_topics(bootstrap, prefix, 1)
    app = toy_app(settings_of())
    serving = asyncio.create_task(serve(app, asyncio.Event()))
    await until_assigned(app, 1)
    async with admin_of(bootstrap) as admin:
        await admin.delete_topics([prefix + name])
    with pytest.raises(TopicsError, match=f"(no topic|assigned without) {prefix}{name}.*rater topics"):
        await asyncio.wait_for(serving, 30)


def slow_settings(bootstrap: str, prefix: str, folder: Path, broker_timeout_ms: int = 2000) -> Settings:
    return Settings(
        bootstrap=bootstrap,
        topic_prefix=prefix,
        app_id=f"{prefix}app",
        data_dir=folder / "data",
        batch_records_max=BATCH_RECORDS,
        broker_timeout_ms=broker_timeout_ms,
        retry_wait_ms_max=500,
    )


async def filled(bootstrap: str, prefix: str) -> list[tuple[bytes, bytes, int]]:
    await make_topics(bootstrap, prefix, 2)
    given = [calls(partition, RECORDS) for partition in range(2)]
    for partition, records in enumerate(given):
        await fill(bootstrap, f"{prefix}calls", partition, records)
    return [record for records in given for record in records]


def expecting(settings: Settings, partitions: int) -> EngineApp:
    app = toy_app(settings)
    (group,) = app.engine.groups
    app.engine.groups[0] = replace(group, partitions=partitions)
    return app


async def until_reopened(app: EngineApp) -> None:
    async with asyncio.timeout(40):
        while not any(task.reopens for task in app.engine.stats.tasks.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_assigned(app: EngineApp, tasks: int) -> None:
    async with asyncio.timeout(30):
        while sum(task.open for task in app.engine.stats.tasks.values()) < tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_gone(admin: AIOKafkaAdminClient, topic: str) -> None:
    async with asyncio.timeout(20):
        while topic in await admin.list_topics():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
