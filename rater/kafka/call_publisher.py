"""Publishes a stream of CDRs, one per line, to where the rater reads them."""

from asyncio import Future
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from rater.domain.reading import read_cdr
from rater.domain.rejection import Rejected
from rater.kafka.clients import producer, require_topics
from rater.kafka.connection import Brokers

#: Most calls sent but not yet acknowledged, so that a stream of any length takes limited memory.
_UNACKNOWLEDGED_MAX = 5000


class CallPublisher:
    """One run over a stream. Its counts are valid even if the run fails.

    `on_rejected(line_number, rejected)` is called for each line that is not a CDR, `on_progress(read_bytes, acknowledged)` now
    and then and at the end.
    """

    def __init__(
        self,
        stream: BinaryIO,
        on_rejected: Callable[[int, Rejected], None],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.acknowledged = 0
        self.rejected = 0
        self._stream = stream
        self._on_rejected = on_rejected
        self._on_progress = on_progress
        self._read_bytes = 0

    async def run(self, brokers: Brokers, topic: str) -> None:
        """Publish every CDR under its organization's key and return when all are acknowledged.

        Raises TopicAdminError if the topic is missing, KafkaError if Kafka fails.
        """
        unacknowledged: list[Future[Any]] = []
        async with producer(brokers) as out:
            await require_topics(out.client, [topic])
            for key, value in self._calls():
                unacknowledged.append(await out.send(topic, value, key=key))
                if len(unacknowledged) >= _UNACKNOWLEDGED_MAX:
                    await self._settle(unacknowledged)
            await self._settle(unacknowledged)

    async def _settle(self, unacknowledged: list[Future[Any]]) -> None:
        for acknowledgement in unacknowledged:
            await acknowledgement
            self.acknowledged += 1
        unacknowledged.clear()
        self._on_progress(self._read_bytes, self.acknowledged)

    def _calls(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of every line that is a CDR. Skips blank lines."""
        for number, line in enumerate(self._stream, 1):
            self._read_bytes += len(line)
            value = line.strip()
            if not value:
                continue
            try:
                org_id = read_cdr(value).org_id
            except Rejected as rejected:
                self.rejected += 1
                self._on_rejected(number, rejected)
                continue
            yield org_id.encode(), value
