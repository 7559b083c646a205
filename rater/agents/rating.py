"""The rating agent: one rating core per partition.

It is thin. What a record means is the core's business (`rater/domain`); that it counts exactly once is the engine's
(`rater/engine`).
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from functools import partial

from rater.agents.catalog import CatalogFeed, FaultReport
from rater.domain.core import Core
from rater.domain.rejection import DEAD_LETTER_CODES
from rater.engine.api import MemoryFactory, Metric, Record, Sink, State
from rater.engine.app import EngineApp
from rater.engine.batches import Batch, BatchChannel, Tick
from rater.engine.stats import MetricDefinition
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import Topics

#: Records the core is given at a time: few enough that what belongs to them stays in the processor's cache.
SLICE_RECORDS = 512

Barrier = Callable[[], Awaitable[None]]

_MICROS = 1_000_000
_counter = partial(MetricDefinition, kind="counter")
_gauge = partial(MetricDefinition, kind="gauge")

METRICS = (
    _counter(key="calls", name="rater_calls_rated", meaning="Calls rated.", labels=("service", "funded_by")),
    _counter(
        key="dead_letters",
        name="rater_dead_letters",
        meaning="Records that could not be rated.",
        labels=("code",),
        begins_at_0=(DEAD_LETTER_CODES,),
    ),
    _counter(
        key="duplicates",
        name="rater_duplicates",
        meaning="Records known already.",
        labels=("kind",),
        begins_at_0=(("call", "command"),),
    ),
    _counter(key="commands", name="rater_commands", meaning="Commands carried out or refused.", labels=("type", "outcome")),
    _counter(key="refused", name="rater_commands_refused", meaning="Commands refused, by why.", labels=("code",)),
    _counter(
        key="charged",
        name="rater_charged_amount",
        meaning="Charges of calls, in units of the currency.",
        labels=("currency",),
        scale=_MICROS,
    ),
    _counter(
        key="collected", name="rater_collected_amount", meaning="Charges paid from lots.", labels=("currency",), scale=_MICROS
    ),
    _counter(
        key="overdrawn",
        name="rater_overdrawn_amount",
        meaning="Charges beyond the balance.",
        labels=("currency",),
        scale=_MICROS,
    ),
    _counter(key="unfunded", name="rater_unfunded_amount", meaning="Charges nobody pays.", labels=("currency",), scale=_MICROS),
    _gauge(key="accounts", name="rater_accounts", meaning="Accounts by how they stand.", labels=("status",)),
    _gauge(key="accounts_overdrawn", name="rater_accounts_overdrawn", meaning="Accounts that owe."),
)

#: Of the catalog, which a process has once.
CATALOG_METRICS = (
    _gauge(key="catalog_rows", name="rater_catalog_rows", meaning="Rows in use.", labels=("kind",)),
    _gauge(key="catalog_faulty_rows", name="rater_catalog_faulty_rows", meaning="Rows left out because of a fault."),
)


def define_rating(app: EngineApp, batches: BatchChannel, bring_catalog_up_to_date: Barrier) -> None:
    """Add the agent to the app. The memory of `batches` is `RatedPartition`."""

    @app.agent(batches, name="rating")
    async def rating(stream: AsyncIterable[Batch]) -> None:
        """Rates calls and carries out commands."""
        async for batch in stream:
            async with batch as transaction:
                partition: RatedPartition = transaction.memory
                if isinstance(batch, Tick):
                    partition.report_catalog_faults()
                else:
                    await rate(partition.core, transaction.records, bring_catalog_up_to_date)


async def rate(core: Core, records: Sequence[Record], bring_catalog_up_to_date: Barrier) -> None:
    """Rate a batch. If a call or command lacks something in the catalog, first make sure that the catalog is current."""
    catalog_is_current = False
    done = 0
    while done < len(records):
        part = records[done : done + SLICE_RECORDS]
        handled = core.batch(part, catalog_is_current)
        done += handled
        if handled < len(part):
            assert not catalog_is_current, "with a current catalog, the core handles all it is given"
            await bring_catalog_up_to_date()
            catalog_is_current = True
    core.flush()


class RatedPartition:
    """What the agent keeps of one partition: its core; and for one partition, the report of faults in the catalog."""

    def __init__(self, core: Core, report: FaultReport | None = None) -> None:
        self.core = core
        self._report = report

    def take_counts(self) -> Mapping[Metric, int]:
        """The core's."""
        return self.core.take_counts()

    def gauges(self) -> Mapping[Metric, float]:
        """The core's."""
        return self.core.gauges()

    def next_due_ms(self) -> int | None:
        """At once, if the catalog has new faults."""
        return 0 if self._report is not None and self._report.is_due() else None

    def report_catalog_faults(self) -> None:
        """Dead-letter the catalog's faults. They carry the time of their own records."""
        assert self._report is not None
        self._report.write()


def rating_memory(topics: Topics, feed: CatalogFeed) -> MemoryFactory:
    """Makes the core of each partition. Partition 0 also reports faults in the catalog."""
    partitions = topics.account_partitions

    def make(partition: int, state: State, sink: Sink) -> RatedPartition:
        def owns(org_id: str) -> bool:
            return partition_of(org_id, partitions) == partition

        core = Core(topics, feed.catalog, state, sink.emit, owns)
        return RatedPartition(core, FaultReport(feed, core, state) if partition == 0 else None)

    return make
