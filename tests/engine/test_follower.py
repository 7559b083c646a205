"""The follower: it reads compacted topics to their ends, and then everything published before a barrier."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from rater.bootstrap import engine_settings
from rater.engine.api import Record
from rater.engine.errors import TopicsError
from rater.engine.follower import Follower
from rater.settings import Settings
from tests.engine.kafka_io import fill, make_topics


@asynccontextmanager
async def following(
    settings: Settings, topics: list[str], on_record: Callable[[Record], None], failures: list[BaseException]
) -> AsyncIterator[Follower]:
    follower = Follower(engine_settings(settings), topics, on_record)
    try:
        await follower.start(failures.append)
        yield follower
    finally:
        await follower.stop()


async def test_it_is_ready_once_it_has_read_everything_and_a_barrier_waits_for_new_records(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 2)
    topic = f"{prefix}changelog"
    for partition in range(2):
        await fill(bootstrap, topic, partition, [(b"k%d" % n, b"v", n) for n in range(300)])
    seen: list[tuple[int, int]] = []
    failures: list[BaseException] = []
    async with following(
        settings_of(), [topic], lambda record: seen.append((record.partition, record.offset)), failures
    ) as follower:
        assert sorted(seen) == [(partition, n) for partition in range(2) for n in range(300)]
        assert [n for partition, n in seen if partition == 1] == list(range(300))
        for n in range(5):
            await fill(bootstrap, topic, 0, [(b"new", b"v", n)])
            await follower.barrier()
            assert (0, 300 + n) in seen
    assert failures == []


async def test_an_empty_topic_is_ready_at_once(bootstrap: str, prefix: str, settings_of: Callable[..., Settings]) -> None:
    await make_topics(bootstrap, prefix, 1)
    async with asyncio.timeout(5), following(settings_of(), [f"{prefix}changelog"], print, []) as follower:
        assert follower.ready


async def test_a_callback_that_raises_ends_the_worker(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    failures: list[BaseException] = []

    def refuse(record: Record) -> None:
        raise KeyError(record.offset)

    async with following(settings_of(), [f"{prefix}changelog"], refuse, failures) as follower:
        await fill(bootstrap, f"{prefix}changelog", 0, [(b"k", b"v", 1)])
        with pytest.raises(Exception, match="no longer followed"):
            await follower.barrier()
    assert "KeyError" in str(failures[0])


async def test_a_missing_topic_is_refused(settings_of: Callable[..., Settings], prefix: str) -> None:
    with pytest.raises(TopicsError, match=f"{prefix}nothing"):
        async with following(settings_of(broker_timeout_ms=2000), [f"{prefix}nothing"], print, []):
            pass
