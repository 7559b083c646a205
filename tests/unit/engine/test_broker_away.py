"""If a broker is away or doesn't know the answer yet, it is asked again. The worker doesn't end because of it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, NodeNotReadyError, TopicAuthorizationFailedError

from rater.bootstrap import engine_settings
from rater.engine.aiokafka_broker import AiokafkaBroker
from rater.engine.errors import BrokerNotReadyError, is_retryable
from rater.engine.follower import Follower
from rater.kafka.connection import let_go
from rater.settings import Settings


class Admin:
    """An admin client that raises each of `refusals` before it answers."""

    def __init__(self, refusals: list[Exception]) -> None:
        self.refusals = refusals

    async def describe_topics(self, topics: Sequence[str]) -> list[dict[str, Any]]:
        if self.refusals:
            raise self.refusals.pop(0)
        return [{"topic": topic, "error_code": 0, "partitions": [1, 2, 3]} for topic in topics]


class AwayConsumer:
    """A consumer whose broker doesn't answer."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        raise self.error


def kafka(*refusals: Exception) -> AiokafkaBroker:
    made = AiokafkaBroker(engine_settings(Settings()))
    made._admin = Admin(list(refusals))
    return made


async def test_a_worker_starts_though_the_broker_it_asked_first_is_away() -> None:
    assert await kafka(NodeNotReadyError(), NodeNotReadyError()).partition_counts(["t"]) == {"t": 3}


async def test_a_permanent_refusal_is_raised_at_once() -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        await kafka(TopicAuthorizationFailedError()).partition_counts(["t"])


@pytest.mark.parametrize("error", [TimeoutError(), KafkaTimeoutError(), NodeNotReadyError()], ids=repr)
async def test_a_barrier_that_no_broker_answers_has_the_batch_tried_again(error: Exception) -> None:
    follower = Follower(engine_settings(Settings()), ["catalog"], print)
    follower._ends_consumer = AwayConsumer(error)
    with pytest.raises(BrokerNotReadyError, match="catalog") as raised:
        await follower.barrier()
    assert is_retryable(raised.value)


async def test_a_client_is_let_go_even_if_closing_it_fails_or_hangs() -> None:
    async def stop(error: BaseException | None) -> None:
        if error is not None:
            raise error

    assert await let_go(stop(None))
    assert not await let_go(stop(KafkaTimeoutError()))
    assert not await let_go(stop(asyncio.CancelledError()))  # as from a consumer that waits to repeat a request
    assert not await let_go(asyncio.sleep(60), timeout_s=0.01)
