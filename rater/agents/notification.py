"""The notification agent: tells people what happened on their accounts, and the accounts what came of it.

A notification becomes one delivery a channel and recipient, a row of the agent's state, in the transaction that moves the input
past it. From then on it is due work: tried until it is taken, refused for good, or three days old, with growing gaps. The
result leaves as a command in the transaction that takes the row away. A process may die between the mail server's answer and
that transaction: the delivery is then made again, under the same Message-ID or webhook-id.

State
    w + name   Waiting   put, deleted when the result is known
    r + name   nothing   appended: a notification that is repeated within `REMEMBERED_DAYS` is not sent again

where name is the notification's id, the channel and the recipient.
"""

import asyncio
import heapq
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
from structlog.contextvars import bound_contextvars

from rater.adapters.notices import Channel, ChannelName, NotNow, Undeliverable
from rater.agents.retry_queue import OldestFirst
from rater.domain import command_records, moments
from rater.domain.outputs import Notification
from rater.engine.api import Metric, Processor, ProcessorFactory, Record, Sink, State
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

#: Longer than the notification topic is kept, so that none can be read again that is not remembered.
REMEMBERED_DAYS = 40
GIVE_UP_MS = 3 * 86_400_000
FIRST_GAP_MS = 5_000
GAP_MS_MAX = 3_600_000
AT_ONCE_MAX = 16

_WAITING = b"w"
_RESULT = b"r"


class Waiting(msgspec.Struct, array_like=True):
    """A delivery that is still to be made; `tries` have been made since `since_ms`."""

    note: Notification
    channel: ChannelName
    recipient: str
    due_ms: int
    since_ms: int
    tries: int = 0


_decode_note = msgspec.json.Decoder(Notification).decode
_decode_row = msgspec.msgpack.Decoder(Waiting).decode
_encode_row = msgspec.msgpack.Encoder().encode


class NotificationProcessor:
    """The notifications of one partition."""

    def __init__(
        self, command_topic: str, channels: Mapping[ChannelName, Channel], state: State, sink: Sink, clock_ms: Callable[[], int]
    ) -> None:
        self._command_topic = command_topic
        self._channels = channels
        self._state = state
        self._sink = sink
        self._clock_ms = clock_ms
        self._counts: Counter[Metric] = Counter()
        self._queue: list[tuple[int, bytes]] = []
        self._since = OldestFirst()
        for key, row in state.scan(_WAITING):
            waiting = _decode_row(row)
            self._since.add(key[1:], waiting.since_ms)
            heapq.heappush(self._queue, (waiting.due_ms, key[1:]))

    async def process(self, records: Sequence[Record]) -> None:
        """Take notifications in; what has been delivered, or waits already, is passed over."""
        now_ms = self._clock_ms()
        for record in records:
            note = _read(record)
            for channel in () if note is None else self._channels.values():
                assert note is not None
                for recipient in channel.recipients(note):
                    name = f"{note.notification_id}\n{channel.name}\n{recipient}".encode()
                    if self._state.get(_RESULT + name) is None and self._state.get(_WAITING + name) is None:
                        self._wait(name, Waiting(note, channel.name, recipient, now_ms, now_ms))

    def next_due_ms(self) -> int | None:
        """When the first of those that wait is to be tried."""
        return self._queue[0][0] if self._queue else None

    async def tick(self, now_ms: int) -> None:
        """Try what is due, a few at once."""
        due: list[tuple[bytes, Waiting]] = []
        while self._queue and len(due) < AT_ONCE_MAX and self._queue[0][0] <= now_ms:
            name = heapq.heappop(self._queue)[1]
            row = self._state.get(_WAITING + name)
            assert row is not None, name
            due.append((name, _decode_row(row)))
        faults = await asyncio.gather(*(self._deliver(waiting) for _, waiting in due))
        for (name, waiting), fault in zip(due, faults, strict=True):
            if isinstance(fault, NotNow) and now_ms - waiting.since_ms < GIVE_UP_MS:
                self._put_off(name, waiting, fault, now_ms)
            else:
                self._settle(name, waiting, fault, now_ms)
        self._state.expire(moments.day_of(now_ms * 1000) - REMEMBERED_DAYS)

    def take_counts(self) -> Mapping[Metric, int]:
        """`notifications` by channel and outcome, and `notification_retries` by channel."""
        counts, self._counts = self._counts, Counter()
        return counts

    def gauges(self) -> Mapping[Metric, float]:
        """`notifications_pending`, and since when the oldest of them is."""
        return self._since.gauges("notifications_pending")

    async def _deliver(self, waiting: Waiting) -> NotNow | Undeliverable | None:
        channel = self._channels.get(waiting.channel)
        if channel is None:
            return Undeliverable("this way of telling has been switched off")
        try:
            with bound_contextvars(org_id=waiting.note.org_id, notification_id=waiting.note.notification_id):
                await channel.deliver(waiting.note, waiting.recipient)
        except (NotNow, Undeliverable) as fault:
            return fault
        except Exception as error:
            # A template at fault, or a fault of ours: it keeps nobody else's from being sent, and a mended one sends this.
            log.exception("%s by %s", waiting.note.notification_id, waiting.channel)
            return NotNow(repr(error))
        return None

    def _settle(self, name: bytes, waiting: Waiting, fault: NotNow | Undeliverable | None, now_ms: int) -> None:
        note = waiting.note
        now_us = now_ms * 1000
        if fault is None:
            command = command_records.notification_sent(note, waiting.channel, waiting.recipient, now_us)
        else:
            log.warning("%s is not delivered by %s: %s", note.notification_id, waiting.channel, fault)
            command = command_records.notification_failed(note, waiting.channel, waiting.recipient, str(fault), now_us)
        self._sink.emit(self._command_topic, note.org_id.encode(), command, now_ms)
        self._counts["notifications", waiting.channel, "sent" if fault is None else "failed"] += 1
        self._since.remove(name)
        self._state.delete(_WAITING + name)
        self._state.append(moments.day_of(now_ms * 1000), _RESULT + name, b"")

    def _put_off(self, name: bytes, waiting: Waiting, why: NotNow, now_ms: int) -> None:
        gap_ms = min(FIRST_GAP_MS << min(waiting.tries, 20), GAP_MS_MAX)
        gap_ms = round(gap_ms * random.uniform(0.5, 1.0))  # noqa: S311 - jitter: those put off together don't come together
        log.warning("%s by %s: again in %d ms: %s", waiting.note.notification_id, waiting.channel, gap_ms, why)
        waiting.due_ms = now_ms + gap_ms
        waiting.tries += 1
        self._counts["notification_retries", waiting.channel] += 1
        self._wait(name, waiting)

    def _wait(self, name: bytes, waiting: Waiting) -> None:
        self._state.put(_WAITING + name, _encode_row(waiting))
        self._since.add(name, waiting.since_ms)
        heapq.heappush(self._queue, (waiting.due_ms, name))


class Closing:
    """Closes the channels with the agent."""

    def __init__(self, channels: Mapping[ChannelName, Channel]) -> None:
        self._channels = channels

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        """They connect when they are first used."""

    async def stop(self) -> None:
        """Let go of all."""
        for channel in self._channels.values():
            await channel.close()


def notification_factory(
    topics: Topics, channels: Mapping[ChannelName, Channel], clock_ms: Callable[[], int]
) -> ProcessorFactory:
    """Makes the processor of each partition."""

    def make(partition: int, state: State, sink: Sink) -> Processor:
        del partition
        return NotificationProcessor(topics.command, channels, state, sink, clock_ms)

    return make


def _read(record: Record) -> Notification | None:
    """A notification; None where somebody else has written: what the rater writes is whole and keyed by its organization."""
    try:
        note = _decode_note(record.value or b"")
        datetime.fromisoformat(note.at)
    except ValueError as error:
        log.error("no notification at %s %d: %s", record.topic, record.offset, error)
        return None
    if record.key != note.org_id.encode():
        log.error("no notification at %s %d: its key is not its organization", record.topic, record.offset)
        return None
    return note
