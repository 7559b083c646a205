"""The rating agent: one core a partition, run by the engine.

Thin on purpose. What a record means is the core's; that it counts exactly once is the engine's.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from rater.agents.catalog import CatalogFeed, FaultReport
from rater.domain.core import Core
from rater.engine.api import Metric, Processor, ProcessorFactory, Record, Sink, State
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import Topics

#: Records the core is given at a time: few enough that what belongs to them stays in the processor's cache.
SLICE_RECORDS = 512

Barrier = Callable[[], Awaitable[None]]


class RatingProcessor:
    """Rates the batches of one partition; the one with a `report` answers for the catalog's faults as well."""

    def __init__(self, core: Core, barrier: Barrier, report: FaultReport | None = None) -> None:
        self.core = core
        self._barrier = barrier
        self._report = report

    async def process(self, records: Sequence[Record]) -> None:
        """Rate a batch. When a call or command misses something in the catalog, that is brought up to date first."""
        catalog_is_current = False
        done = 0
        while done < len(records):
            part = records[done : done + SLICE_RECORDS]
            handled = self.core.batch(part, catalog_is_current)
            done += handled
            if handled < len(part):
                assert not catalog_is_current, "a core that is catalog_is_current handles all it is given"
                await self._barrier()
                catalog_is_current = True
        self.core.flush()

    def take_counts(self) -> Mapping[Metric, int]:
        """The core's."""
        return self.core.take_counts()

    def gauges(self) -> Mapping[Metric, float]:
        """The core's."""
        return self.core.gauges()

    def next_due_ms(self) -> int | None:
        """At once, if the catalog has come across faults."""
        return 0 if self._report is not None and self._report.is_due() else None

    async def tick(self, now_ms: int) -> None:
        """Dead-letter the catalog's faults."""
        del now_ms  # they bear the time of their own records
        assert self._report is not None
        self._report.write()


def rating_factory(topics: Topics, feed: CatalogFeed, barrier: Barrier) -> ProcessorFactory:
    """Makes the processor of each partition."""
    partitions = topics.account_partitions

    def make(partition: int, state: State, sink: Sink) -> Processor:
        def owns(org_id: str) -> bool:
            return partition_of(org_id, partitions) == partition

        core = Core(topics, feed.catalog, state, sink.emit, owns)
        return RatingProcessor(core, barrier, FaultReport(feed, core, state) if partition == 0 else None)

    return make
