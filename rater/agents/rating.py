"""The rating agent: one core a partition, run by the engine; the catalog, followed by every worker.

Thin on purpose. What a record means is the core's; that it counts exactly once is the engine's.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiokafka.partitioner import murmur2

from rater.domain.catalog import Catalog
from rater.domain.core import Core
from rater.domain.rejection import Rejected
from rater.engine.api import Processor, ProcessorFactory, Record, Sink, State
from rater.topics import Topics

log = logging.getLogger(__name__)

#: Records the core is given at a time: few enough that what belongs to them stays in the processor's cache.
SLICE_RECORDS = 512

Barrier = Callable[[], Awaitable[None]]


class RatingProcessor:
    """Rates the batches of one partition."""

    def __init__(self, core: Core, barrier: Barrier) -> None:
        self.core = core
        self._barrier = barrier

    async def process(self, records: Sequence[Record]) -> None:
        """Rate a batch. When a call or command misses something in the catalog, that is brought up to date first."""
        sure = False
        done = 0
        while done < len(records):
            part = records[done : done + SLICE_RECORDS]
            handled = self.core.batch(part, sure)
            done += handled
            if handled < len(part):
                assert not sure, "a core that is sure handles all it is given"
                await self._barrier()
                sure = True
        self.core.flush()


class CatalogFeed:
    """Keeps a catalog as the plan and rate topics have it. A faulty row is reported and left out."""

    def __init__(self, topics: Topics) -> None:
        self.catalog = Catalog()
        self.faults = 0
        self._plan = topics.plan

    def take(self, record: Record) -> None:
        """A record of a catalog topic."""
        put = self.catalog.put_plan if record.topic == self._plan else self.catalog.put_rate
        try:
            put(record.key, record.value)
        except Rejected as rejected:
            self.faults += 1
            log.warning("catalog row left out: %s offset %d: %s", record.topic, record.offset, rejected)


def rating_factory(topics: Topics, catalog: Catalog, barrier: Barrier) -> ProcessorFactory:
    """Makes the processor of each partition."""
    partitions = topics.account_partitions

    def make(partition: int, state: State, sink: Sink) -> Processor:
        def owns(org_id: str) -> bool:
            return partition_of(org_id, partitions) == partition

        return RatingProcessor(Core(topics, catalog, state, sink.emit, owns), barrier)

    return make


def partition_of(org_id: str, partitions: int) -> int:
    """The partition an organization's records belong to: Kafka's default partitioner."""
    return int(murmur2(org_id.encode()) & 0x7FFFFFFF) % partitions
