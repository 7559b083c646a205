"""The end of its group membership ends the worker, with or without partitions.

A static member that the group has removed never joins again, because that would remove the member that has its id now.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, UnknownError

from rater.engine.consumer import BatchConsumerThread, BatchRebalanceListener
from rater.engine.errors import FencedError

OWNED = {TopicPartition("t", 0)}


class Thread:
    """The consumer's thread, as the listener sees it. With `put_out_meanwhile`, the group removes the member in `revoke`."""

    def __init__(self, *, put_out: bool = False, put_out_meanwhile: bool = False) -> None:
        self.put_out = put_out
        self.failures: list[BaseException] = []
        self.revoked: list[Any] = []
        self._put_out_meanwhile = put_out_meanwhile
        settings = SimpleNamespace(instance_id="worker-1")
        self.app = SimpleNamespace(fail=self.failures.append, settings=settings, on_rebalance_start=lambda: None)
        self.parent_loop = SimpleNamespace(call_soon_threadsafe=lambda call, error: call(error))

    def interrupt_poll(self) -> None:
        pass

    def is_put_out(self) -> bool:
        return self.put_out

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self.revoked.append(revoked)
        self.put_out = self.put_out or self._put_out_meanwhile


async def revoke(thread: Thread, owned: set[TopicPartition]) -> None:
    listener: Any = BatchRebalanceListener
    await listener(thread).on_partitions_revoked(owned)


async def test_a_member_that_has_not_been_removed_closes_its_tasks_and_joins_again() -> None:
    thread = Thread()
    await revoke(thread, OWNED)
    assert thread.revoked == [OWNED]
    assert thread.failures == []


async def test_a_first_join_is_not_taken_for_a_removal() -> None:
    thread = Thread(put_out=True)
    await revoke(thread, set())
    assert thread.failures == []


@pytest.mark.parametrize("thread", [Thread(put_out=True), Thread(put_out_meanwhile=True)], ids=["before", "meanwhile"])
async def test_one_that_has_been_put_out_ends(thread: Thread) -> None:
    with pytest.raises(asyncio.CancelledError):
        await revoke(thread, OWNED)
    assert [type(failure) for failure in thread.failures] == [FencedError]


async def check(instance_id: str | None, error: Exception | None, *, cancelled: bool = False) -> None:
    """Call `check_membership` while aiokafka keeps an error for the next poll."""

    def check_errors() -> None:
        if error is not None:
            raise error

    coordination = SimpleNamespace(cancelled=lambda: cancelled)
    coordinator = SimpleNamespace(_coordination_task=coordination, check_errors=check_errors)
    consumer = SimpleNamespace(_coordinator=coordinator)
    app = SimpleNamespace(settings=SimpleNamespace(instance_id=instance_id))
    thread: Any = object.__new__(BatchConsumerThread)
    thread._ensure_consumer = lambda: consumer
    thread.app = app
    await BatchConsumerThread.check_membership(thread)


UNKNOWN = KafkaError(repr(UnknownError()))  # what aiokafka's coordinator makes of code 82


async def test_a_valid_membership_is_no_error() -> None:
    await check("worker-1", None)


async def test_a_static_member_that_is_not_let_in_any_more_has_been_fenced() -> None:
    with pytest.raises(FencedError, match="worker-1"):
        await check("worker-1", UNKNOWN)


@pytest.mark.parametrize(("instance_id", "error"), [(None, UNKNOWN), ("worker-1", GroupAuthorizationFailedError("group"))])
async def test_any_other_error_that_ends_a_membership_is_raised_unchanged(instance_id: str | None, error: KafkaError) -> None:
    with pytest.raises(type(error)) as raised:
        await check(instance_id, error)
    assert raised.value is error


async def test_a_membership_ended_by_the_worker_itself_is_not_reported_twice() -> None:
    await check("worker-1", UNKNOWN, cancelled=True)
