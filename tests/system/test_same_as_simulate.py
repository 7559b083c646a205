"""The outputs on Kafka are those of `rater simulate`, even if the worker is killed again and again."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from rater.embedded import EmbeddedKafka
from rater.kafka.clients import lag
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate
from tests.system.harness import Worker, assert_same, publish, read_outputs, until_below, until_done
from tests.system.random_log import RandomLog

SEED = 20_261_124
KILLS = 10


@pytest.fixture
def worker(kafka: EmbeddedKafka, topics: Topics, tmp_path: Path) -> Iterator[Worker]:
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    worker = Worker(kafka.bootstrap, topics, prefix, tmp_path)
    yield worker
    worker.close()


def expected(topics: Topics, log: RandomLog) -> list[LogRecord]:
    return list(simulate(topics, [*log.catalog, *log.traffic]))


async def test_50000_calls_with_commands_between_them_come_out_as_simulate_says(
    kafka: EmbeddedKafka, topics: Topics, worker: Worker
) -> None:
    log = RandomLog(topics, SEED, cdrs=50_000, organizations=40)
    await publish(kafka.bootstrap, topics, [*log.catalog, *log.traffic])
    worker.start()
    await until_done(kafka.bootstrap, topics, worker)
    assert worker.stop() == 0
    assert_same(topics, expected(topics, log), await read_outputs(kafka.bootstrap, topics))


async def test_killed_ten_times_the_worker_still_gives_exactly_what_simulate_says(
    kafka: EmbeddedKafka, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    log = RandomLog(topics, SEED + 1, cdrs=40_000, organizations=25)
    await publish(kafka.bootstrap, topics, [*log.catalog, *log.traffic])
    # Small batches mean many commits, so that kills come before, during and after commits.
    worker = Worker(kafka.bootstrap, topics, prefix, tmp_path, RATER_BATCH_RECORDS_MAX="25")
    draw = random.Random(SEED)
    left = await lag(kafka.bootstrap, topics, worker.app_id)
    try:
        for _ in range(KILLS):
            worker.start()
            left = await until_below(left, kafka.bootstrap, topics, worker)
            await asyncio.sleep(draw.random() * 0.3)
            worker.kill()
        assert await lag(kafka.bootstrap, topics, worker.app_id) > 0, "the last kill came after the work was done"
        worker.start()
        await until_done(kafka.bootstrap, topics, worker)
        assert worker.stop() == 0
    finally:
        worker.close()
    assert_same(topics, expected(topics, log), await read_outputs(kafka.bootstrap, topics))
