"""The how-to's example, run as documented on a real Kafka, shows what is allowed as it changes."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rater.embedded import EmbeddedKafka
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.resources import resource
from tests.builders import Desk
from tests.system.harness import Worker, publish, until_done

LINE_TIMEOUT_S = 30.0
OFF = "toll_free_inbound=False credit_calls=False"
ON = "toll_free_inbound=True credit_calls=True"


@pytest.fixture
def worker(kafka: EmbeddedKafka, topics: Topics, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(kafka.bootstrap, topics, topics.cdr.removesuffix("telephony.cdr.v1"), tmp_path)
    worker.start()
    yield worker
    worker.close()


@asynccontextmanager
async def example(bootstrap: str, topic: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run the example, and give its output."""
    script = str(resource("samples", "read_entitlement.py"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, script, "--bootstrap", bootstrap, "--topic", topic), env=os.environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def line(lines: asyncio.StreamReader) -> str:
    async with asyncio.timeout(LINE_TIMEOUT_S):
        return (await lines.readline()).decode().strip()


async def test_a_switch_sees_service_stop_at_zero_and_return_with_new_funds(
    kafka: EmbeddedKafka, topics: Topics, worker: Worker
) -> None:
    async def give(records: list[LogRecord]) -> None:
        await publish(kafka.bootstrap, topics, records)
        await until_done(kafka.bootstrap, topics, worker)

    await give(funded(topics))
    async with example(kafka.bootstrap, topics.state) as lines:
        assert await line(lines) == f"contoso status=active {ON}"
        assert await line(lines) == f"fabrikam status=active {ON}"
        await give(depleting(topics))
        assert await line(lines) == f"contoso status=suspended {OFF}"
        await give(funded_again(topics))
        assert await line(lines) == f"contoso status=active {ON}"


async def test_at_start_all_earlier_states_are_read_and_the_current_ones_shown(
    kafka: EmbeddedKafka, topics: Topics, worker: Worker
) -> None:
    await publish(kafka.bootstrap, topics, [*funded(topics), *depleting(topics)])
    await until_done(kafka.bootstrap, topics, worker)
    async with example(kafka.bootstrap, topics.state) as lines:
        assert await line(lines) == f"contoso status=suspended {OFF}"
        assert await line(lines) == f"fabrikam status=active {ON}"


def funded(topics: Topics) -> list[LogRecord]:
    desk = Desk()
    for org_id in ("contoso", "fabrikam"):
        desk.organization(org_id)
        desk.funds("20.00", org_id)
    return moved(topics, desk, "1")


def depleting(topics: Topics) -> list[LogRecord]:
    desk = Desk()
    desk.command("funds.adjust", amount="-20.00", reason="used elsewhere")
    return moved(topics, desk, "2")


def funded_again(topics: Topics) -> list[LogRecord]:
    desk = Desk()
    desk.funds("5.00")
    return moved(topics, desk, "3")


def moved(topics: Topics, desk: Desk, step: str) -> list[LogRecord]:
    """The desk's commands with the current time, for this test's topics, with ids unique to this step."""
    now_ms = time.time_ns() // 1_000_000
    return [
        LogRecord(
            topics.command,
            now_ms,
            record.key,
            (record.value or b"").replace(b'"command_id":"c', b'"command_id":"' + step.encode()),
        )
        for record in desk.records
    ]
