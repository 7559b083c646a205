"""The worker as a process: how it starts, refuses to start, and ends."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rater.embedded import EmbeddedKafka
from rater.engine.app import EngineApp
from rater.engine.errors import TopicsError
from rater.engine.run import serve, serve_all
from rater.settings import Settings
from tests.engine.calls import calls, check_rated
from tests.engine.kafka_io import committed, fill, make_topics, read_all
from tests.engine.processes import WorkerProcess
from tests.engine.test_exactly_once import until_committed, until_moving, worker
from tests.engine.toy import toy_app

EXIT_S_MAX = 5.0


@contextmanager
def process(settings: Settings, log: Path) -> Iterator[WorkerProcess]:
    running = WorkerProcess(settings, log)
    try:
        yield running
    finally:
        running.end()


async def test_sigterm_under_load_commits_the_batch_and_ends_with_0(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, 2)
    for partition in range(2):
        await fill(bootstrap, f"{prefix}calls", partition, calls(partition, 100_000))
    settings = settings_of(batch_records_max=2000)
    with process(settings, tmp_path / "log") as running:
        await until_moving(bootstrap, settings, 0.2)
        code, seconds = running.terminate()
    assert code == 0
    assert seconds < EXIT_S_MAX
    done = sum((await committed(bootstrap, settings.app_id)).values())
    assert 0 < done < 200_000
    rated = await read_all(bootstrap, [f"{prefix}rated"], 2)
    assert len(rated) == done
    assert len(await read_all(bootstrap, [f"{prefix}rated"], 2, "read_uncommitted")) == done


async def test_a_killed_worker_that_comes_back_under_its_id_goes_on_at_once(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, 2)
    await fill(bootstrap, f"{prefix}calls", 0, calls(0, 60_000))
    settings = settings_of(batch_records_max=300, session_timeout_ms=30_000)
    with process(settings, tmp_path / "log") as running:
        await until_moving(bootstrap, settings, 0.1)
        running.kill()
    killed_s = time.monotonic()
    with process(settings, tmp_path / "log"):
        await until_moving(bootstrap, settings, 0.0)
    assert time.monotonic() - killed_s < settings.session_timeout_ms / 1000 / 2  # it did not wait for its old session


async def test_a_processor_that_raises_ends_the_worker_with_1_and_one_line(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    await make_topics(bootstrap, prefix, 1)
    await fill(bootstrap, f"{prefix}calls", 0, [*calls(0, 10), (b"k", b"no json", 1)])
    with process(settings_of(), tmp_path / "log") as running:
        assert await asyncio.to_thread(running.wait, 20) == 1
    ends = [line for line in running.log.splitlines() if "CRITICAL" in line]
    assert len(ends) == 1
    assert "sums[0]: the agent raised DecodeError" in ends[0]
    assert await read_all(bootstrap, [f"{prefix}rated"], 1) == []


async def test_a_missing_topic_is_named(bootstrap: str, prefix: str, settings_of: Callable[..., Settings]) -> None:
    with pytest.raises(TopicsError, match=f"no topic {prefix}.*rater topics apply"):
        await serve(toy_app(settings_of()), asyncio.Event())


async def test_topics_of_different_partition_counts_are_refused(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 2)
    odd = settings_of(topic_prefix=f"{prefix}odd.")
    await make_topics(bootstrap, odd.topic_prefix, 3)
    app = toy_app(settings_of())
    group = app.engine.groups[0]
    app.engine.groups[0] = replace(group, changelog=f"{prefix}odd.changelog", outputs=())
    with pytest.raises(TopicsError, match="the same number of partitions"):
        await serve(app, asyncio.Event())


async def test_an_app_that_fails_ends_the_other_apps_of_its_process(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    await fill(bootstrap, f"{prefix}calls", 0, calls(0, 10))
    well = toy_app(settings_of())
    failing = toy_app(settings_of(app_id=f"{prefix}failing", topic_prefix=f"{prefix}missing."))
    async with asyncio.timeout(20):
        with pytest.raises(TopicsError, match=f"{prefix}missing"):
            await serve_all([well, failing], asyncio.Event())
    assert well.engine.failure is None
    assert not well.engine.assigned


async def until_open(app: EngineApp, tasks: int) -> None:
    async with asyncio.timeout(20):
        while sum(task.open for task in app.engine.stats.tasks.values()) < tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_idle_worker_ends_at_once(bootstrap: str, prefix: str, settings_of: Callable[..., Settings]) -> None:
    await make_topics(bootstrap, prefix, 2)
    async with worker(settings_of()) as app:
        await until_open(app, 2)
        assert app.engine.alive()
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 2.0


async def test_work_goes_on_when_the_broker_comes_back(prefix: str, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        await make_topics(kafka.bootstrap, prefix, 2)
        settings = Settings(
            bootstrap=kafka.bootstrap,
            topic_prefix=prefix,
            app_id=f"{prefix}app",
            data_dir=tmp_path / "data",
            batch_records_max=500,
            broker_timeout_ms=3000,
            retry_wait_ms_max=1000,
        )
        given = [record for partition in range(2) for record in calls(partition, 20_000)]
        for partition in range(2):
            await fill(kafka.bootstrap, f"{prefix}calls", partition, calls(partition, 20_000))
        async with worker(settings):
            await until_moving(kafka.bootstrap, settings, 0.2)
            await asyncio.to_thread(kafka.nodes[0].kill)
            await asyncio.sleep(1.0)
            kafka.nodes[0].start()
            await asyncio.to_thread(kafka.nodes[0].wait_until_answering, 30.0)
            await until_committed(kafka.bootstrap, settings, {f"{prefix}calls": len(given), f"{prefix}commands": 0})
        check_rated(await read_all(kafka.bootstrap, [f"{prefix}rated"], 2), given)


def test_a_worker_without_a_broker_says_so_and_ends_with_1(settings_of: Callable[..., Settings], tmp_path: Path) -> None:
    settings = settings_of(bootstrap="127.0.0.1:1", broker_timeout_ms=1000)
    with process(settings, tmp_path / "log") as running:
        try:
            assert running.wait(20) == 1
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker hangs:\n{running.log}")
    ends = [line for line in running.log.splitlines() if "CRITICAL" in line]
    assert len(ends) == 1
    assert "no broker answers at 127.0.0.1:1" in ends[0]
    assert "Traceback" not in running.log


async def test_sigterm_while_no_broker_answers_gives_up_the_batch_and_ends_in_time(prefix: str, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        await make_topics(kafka.bootstrap, prefix, 2)
        settings = Settings(
            bootstrap=kafka.bootstrap,
            topic_prefix=prefix,
            app_id=f"{prefix}app",
            data_dir=tmp_path / "data",
            batch_records_max=200,
            shutdown_ms_max=4500,
        )
        for partition in range(2):
            await fill(kafka.bootstrap, f"{prefix}calls", partition, calls(partition, 50_000))
        with process(settings, tmp_path / "log") as running:
            await until_moving(kafka.bootstrap, settings, 0.2)
            broker = kafka.nodes[0].pid
            assert broker is not None
            os.kill(broker, signal.SIGSTOP)
            try:
                code, seconds = await asyncio.to_thread(running.terminate)
            finally:
                os.kill(broker, signal.SIGCONT)
    assert code == 0, running.log[-2000:]
    assert seconds < EXIT_S_MAX
