"""The one entry of the core: records in; rows and output records out.

A `Core` rates the records of one partition (or, in `rater simulate`, of a whole log) in the order it is given them. It is
a function of its records: it reads no clock and no random number, and gives the same bytes for the same log however the log is
cut into batches.

If an account emitted events for a record, its state record follows them. Other changes of state are published at `flush`.

If `batch` or `flush` raises, discard the core and start a new one from committed rows.
"""

from collections.abc import Callable, Sequence

from rater.domain import moments
from rater.domain.calls import CallRater, ReadCall
from rater.domain.catalog import Catalog, CatalogIntake
from rater.domain.commands.context import CommandContext
from rater.domain.commands.runner import CommandRunner
from rater.domain.counts import Counts, Metric
from rater.domain.dead_letters import dead_letter_of
from rater.domain.encoding import Writer
from rater.domain.event_writer import EventWriter
from rater.domain.idempotency import IdempotencyStore
from rater.domain.loaded_accounts import ACCOUNTS_MAX, LoadedAccounts
from rater.domain.outputs import Emit, Record, TopicNames
from rater.domain.rejection import Rejected
from rater.domain.rows import Rows


class Core:
    """Rates records on rows.

    `owns` says whether an organization's records belong to this core: an account has one writer, and a producer with
    another partitioner must not give it a second. At most `accounts_max` accounts are kept in memory from batch to batch.
    """

    def __init__(
        self,
        names: TopicNames,
        catalog: Catalog,
        rows: Rows,
        emit: Emit,
        owns: Callable[[str], bool] = lambda org_id: True,
        accounts_max: int = ACCOUNTS_MAX,
    ) -> None:
        writer = Writer()
        event_writer = EventWriter(names, emit, writer)
        self._names = names
        self._emit = emit
        self._counts = Counts()
        self._intake = CatalogIntake(names.plan, names.rate, catalog)
        self._idempotency = IdempotencyStore(rows, writer)
        self._accounts = LoadedAccounts(rows, catalog, event_writer, owns, accounts_max)
        self._calls = CallRater(catalog, self._accounts, self._idempotency, event_writer, self._counts)
        self._commands = CommandRunner(CommandContext(catalog, event_writer, self._idempotency), self._accounts, self._counts)

    def batch(self, records: Sequence[Record], catalog_is_current: bool = True) -> int:
        """Handle records in order; returns how many.

        `catalog_is_current`: the catalog is known to be at least as new as the records. Only if it isn't may fewer records be
        handled than given: the next one misses something in the catalog. Bring the catalog up to date and give the rest again.
        """
        read = [self._read(record) for record in records]
        self._idempotency.prefetch([call.key for call in read if isinstance(call, ReadCall) and call.key])
        handled = 0
        for record, call in zip(records, read, strict=True):
            if not self._handle(record, call, catalog_is_current):
                break
            handled += 1
        self._idempotency.forget(self._accounts.newest_us)
        return handled

    def flush(self) -> None:
        """End a batch: write the rows of the accounts it changed, and publish their states if they are not out yet."""
        self._accounts.flush()

    def take_counts(self) -> dict[Metric, int]:
        """What was handled since the last `take_counts`.

        `calls` by service and funding, `dead_letters` by code, `duplicates` by kind, `commands` by type and outcome, `refused`
        by code; in micros, `charged`, `collected`, `overdrawn` and `unfunded` by currency.
        """
        return self._counts.take()

    def gauges(self) -> dict[Metric, int]:
        """The accounts as of the last `flush`: `accounts` by status, `accounts_overdrawn`."""
        return self._accounts.standings.gauges()

    def dead_letter(self, record: Record, rejected: Rejected) -> None:
        """Pass a record on to the dead-letter topic as it came, with the reason."""
        letter = dead_letter_of(record, rejected)
        timestamp_ms = min(max(record.timestamp, 0), moments.INSTANT_US_MAX // 1000)
        self._emit(self._names.dead_letter, letter.key, letter.value, timestamp_ms, letter.headers)
        self._counts.add(("dead_letters", rejected.code))

    def _read(self, record: Record) -> ReadCall | Rejected | None:
        """A CDR as far as it can be read ahead of its turn; None for any other record."""
        if record.topic != self._names.cdr:
            return None
        try:
            return self._calls.read(record)
        except Rejected as rejected:
            return rejected

    def _handle(self, record: Record, call: ReadCall | Rejected | None, catalog_is_current: bool) -> bool:
        """Handle a record; False, with nothing changed, if it needs a newer catalog."""
        try:
            if isinstance(call, ReadCall):
                self._calls.rate(call)
            elif call is not None:
                self.dead_letter(record, call)
            elif record.topic == self._names.command:
                return self._commands.run(record, catalog_is_current)
            else:
                fault = self._intake.take(record)
                if fault is not None:
                    self.dead_letter(record, fault)
        except Rejected as rejected:
            if rejected.code == "no_rate" and not catalog_is_current:
                return False
            self.dead_letter(record, rejected)
        return True
