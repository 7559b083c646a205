"""The notification agent: sends mails and webhooks about events, and reports to the account whether they were delivered.

A notification becomes one delivery per channel and recipient, each a row of the agent's state (`retry_queue`), in the
transaction that moves the input past it. From then on it is due work: it is tried with growing gaps until it is accepted,
refused for good, or three days old. The result leaves as a command, in the transaction that removes the row. If a process dies
between the mail server's answer and that transaction, the delivery is made again, under the same Message-ID or webhook-id.

A delivery is named by the notification's id, the channel and the recipient. The remembered result is empty: it only says that
the delivery has been settled.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from datetime import datetime

import msgspec
from structlog.contextvars import bound_contextvars

from rater.adapters.notices import Channel, ChannelName, NotNow, Undeliverable
from rater.agents.retry_queue import RetryQueue
from rater.domain import command_records
from rater.domain.outputs import Notification
from rater.engine.api import MemoryFactory, Metric, Record, Sink, State
from rater.engine.app import EngineApp
from rater.engine.batches import Batch, BatchChannel, Tick
from rater.engine.stats import MetricDefinition
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

GIVE_UP_MS = 3 * 86_400_000
FIRST_GAP_MS = 5_000
GAP_MS_MAX = 3_600_000
AT_ONCE_MAX = 16

_CHANNELS = ("mail", "webhook")

METRICS = (
    MetricDefinition(
        key="notifications",
        name="rater_notifications",
        meaning="Deliveries that ended.",
        kind="counter",
        labels=("channel", "outcome"),
        begins_at_0=(_CHANNELS, ("sent", "failed")),
    ),
    MetricDefinition(
        key="notification_retries",
        name="rater_notification_retries",
        meaning="Deliveries put off.",
        kind="counter",
        labels=("channel",),
        begins_at_0=(_CHANNELS,),
    ),
    MetricDefinition(
        key="notifications_pending", name="rater_notifications_pending", meaning="Deliveries not made yet.", kind="gauge"
    ),
    MetricDefinition(
        key="notifications_pending_oldest_timestamp_seconds",
        name="rater_notifications_pending_oldest_timestamp_seconds",
        meaning="When the oldest of them came in.",
        kind="gauge",
    ),
)


class WaitingDelivery(msgspec.Struct, array_like=True):
    """A delivery that is still to be made; `tries` have been made since `since_ms`."""

    note: Notification
    channel: ChannelName
    recipient: str
    due_ms: int
    since_ms: int
    tries: int = 0


_decode_note = msgspec.json.Decoder(Notification).decode
_decode_row = msgspec.msgpack.Decoder(WaitingDelivery).decode


def define_notification(app: EngineApp, batches: BatchChannel) -> None:
    """Add the agent to the app. The memory of `batches` is `PartitionDeliveries`."""

    @app.agent(batches, name="notification")
    async def notification(stream: AsyncIterable[Batch]) -> None:
        """Sends mails and webhooks about events."""
        async for batch in stream:
            async with batch as transaction:
                partition: PartitionDeliveries = transaction.memory
                if isinstance(batch, Tick):
                    await partition.deliver_due(batch.now_ms)
                else:
                    partition.accept(transaction.records)


class PartitionDeliveries:
    """The deliveries of one partition."""

    def __init__(
        self, command_topic: str, channels: Mapping[ChannelName, Channel], state: State, sink: Sink, clock_ms: Callable[[], int]
    ) -> None:
        self._command_topic = command_topic
        self._channels = channels
        self._sink = sink
        self._clock_ms = clock_ms
        self._counts: Counter[Metric] = Counter()
        self._queue = RetryQueue(state, _decode_row, lambda waiting: waiting.since_ms, FIRST_GAP_MS, GAP_MS_MAX)

    def accept(self, records: Sequence[Record]) -> None:
        """Accept notifications; skip deliveries that have been settled or are waiting already."""
        now_ms = self._clock_ms()
        for record in records:
            note = _read(record)
            for channel in () if note is None else self._channels.values():
                assert note is not None
                for recipient in channel.recipients(note):
                    name = f"{note.notification_id}\n{channel.name}\n{recipient}".encode()
                    if self._queue.result(name) is None and not self._queue.is_waiting(name):
                        self._queue.wait(name, WaitingDelivery(note, channel.name, recipient, now_ms, now_ms))

    def next_due_ms(self) -> int | None:
        """When the next try is due, in ms since the epoch."""
        return self._queue.next_due_ms()

    async def deliver_due(self, now_ms: int) -> None:
        """Try what is due, a few at once."""
        due = self._queue.take_due(now_ms, AT_ONCE_MAX)
        faults = await asyncio.gather(*(self._deliver(waiting) for _, waiting in due))
        for (name, waiting), fault in zip(due, faults, strict=True):
            if isinstance(fault, NotNow) and now_ms - waiting.since_ms < GIVE_UP_MS:
                self._put_off(name, waiting, fault, now_ms)
            else:
                self._settle(name, waiting, fault, now_ms)
        self._queue.forget(now_ms)

    def take_counts(self) -> Mapping[Metric, int]:
        """`notifications` by channel and outcome, and `notification_retries` by channel."""
        counts, self._counts = self._counts, Counter()
        return counts

    def gauges(self) -> Mapping[Metric, float]:
        """`notifications_pending`, and since when the oldest of them is."""
        return self._queue.gauges("notifications_pending")

    async def _deliver(self, waiting: WaitingDelivery) -> NotNow | Undeliverable | None:
        channel = self._channels.get(waiting.channel)
        if channel is None:
            return Undeliverable("this way of telling has been switched off")
        try:
            with bound_contextvars(org_id=waiting.note.org_id, notification_id=waiting.note.notification_id):
                await channel.deliver(waiting.note, waiting.recipient)
        except (NotNow, Undeliverable) as fault:
            return fault
        except Exception as error:
            # A faulty template, or a bug: it stops no other delivery, and once it is fixed this one is sent.
            log.exception("%s by %s", waiting.note.notification_id, waiting.channel)
            return NotNow(repr(error))
        return None

    def _settle(self, name: bytes, waiting: WaitingDelivery, fault: NotNow | Undeliverable | None, now_ms: int) -> None:
        note = waiting.note
        now_us = now_ms * 1000
        if fault is None:
            command = command_records.notification_sent(note, waiting.channel, waiting.recipient, now_us)
        else:
            log.warning("%s is not delivered by %s: %s", note.notification_id, waiting.channel, fault)
            command = command_records.notification_failed(note, waiting.channel, waiting.recipient, str(fault), now_us)
        self._sink.emit(self._command_topic, note.org_id.encode(), command, now_ms)
        self._counts["notifications", waiting.channel, "sent" if fault is None else "failed"] += 1
        self._queue.settle(name, b"", now_ms)

    def _put_off(self, name: bytes, waiting: WaitingDelivery, why: NotNow, now_ms: int) -> None:
        gap_ms = self._queue.put_off(name, waiting, now_ms)
        log.warning("%s by %s: next try in %d ms: %s", waiting.note.notification_id, waiting.channel, gap_ms, why)
        self._counts["notification_retries", waiting.channel] += 1


class OpenChannels:
    """The channels as a background service: they connect when they are first used, and are closed with the agent."""

    def __init__(self, channels: Mapping[ChannelName, Channel]) -> None:
        self._channels = channels

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        """Nothing to do yet."""

    async def stop(self) -> None:
        """Close all connections."""
        for channel in self._channels.values():
            await channel.close()


def notification_memory(topics: Topics, channels: Mapping[ChannelName, Channel], clock_ms: Callable[[], int]) -> MemoryFactory:
    """Makes the deliveries of each partition."""

    def make(partition: int, state: State, sink: Sink) -> PartitionDeliveries:
        del partition
        return PartitionDeliveries(topics.command, channels, state, sink, clock_ms)

    return make


def _read(record: Record) -> Notification | None:
    """The notification; None if the rater did not write it: what it writes is complete and keyed by its organization."""
    try:
        note = _decode_note(record.value or b"")
        datetime.fromisoformat(note.at)
    except ValueError as error:
        log.error("%s offset %d is not a notification, ignored: %s", record.topic, record.offset, error)
        return None
    if record.key != note.org_id.encode():
        log.error("%s offset %d is not a notification, ignored: its key is not its organization", record.topic, record.offset)
        return None
    return note
