"""The one entry of the core: records in; rows and output records out.

A `Core` rates the records of one partition (or, in `rater simulate`, of a whole log) in the order it is given them. It is
a function of its records: it reads no clock, draws no lots, and gives the same bytes for the same log however the log is
cut into batches.

How a record is handled
- It is read and checked, then decided upon, and only then anything is changed. What is rejected leaves no trace (rule 26).
- A call: ledger transaction, rated call, then events. A command: ledger, then events.
- Whatever an account emitted events for is followed by its state record. Other changes of state are written at `flush`.

After an exception out of `batch` or `flush` the core is spent: throw it away, and start anew from committed rows.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from zlib import adler32, crc32

from rater.domain import moments, recharge
from rater.domain.account import Account
from rater.domain.catalog import Catalog
from rater.domain.commands import COMMAND_TYPES, HANDLERS, CommandContext
from rater.domain.dead_letters import dead_letter_of
from rater.domain.encoding import Writer
from rater.domain.event_writer import EventWriter, Movement
from rater.domain.messages import Cdr, OrganizationPut
from rater.domain.moments import DAY_US, REMEMBER_DAYS
from rater.domain.outputs import Emit, LotAmount, Names, RatedCall, Record
from rater.domain.plans import LOW_PERCENT
from rater.domain.rating import Decision, decide
from rater.domain.reading import read_cdr, read_command, read_envelope
from rater.domain.rejection import Refused, Rejected
from rater.domain.rows import AccountState, Call, Part, Pool, Rows, decode_call
from rater.domain.standings import Metric, Standings
from rater.domain.state_record import state_message
from rater.domain.tracing import trace_of

#: How long a command is known again. A year and a month: longer than any topic keeps one.
COMMAND_DAYS: Final = 396
#: How much later than it may be a remembered call is really forgotten: room for records whose timestamps run behind.
FORGET_MARGIN_DAYS: Final = 7
ACCOUNTS_MAX: Final = 50_000


class Tally:
    """Calls of one service, funding and currency; money in micros."""

    __slots__ = ("calls", "charged", "collected")

    def __init__(self) -> None:
        self.calls = 0
        self.charged = 0
        self.collected = 0


class Core:
    """Rates records on rows.

    `owns` says whether an organization's records belong to this core: an account has one writer, and a producer with
    another partitioner must not give it a second. `catalog_is_current`: whether the catalog is known to be at least as new as
    the records.
    """

    def __init__(
        self,
        names: Names,
        catalog: Catalog,
        rows: Rows,
        emit: Emit,
        owns: Callable[[str], bool] = lambda org_id: True,
        accounts_max: int = ACCOUNTS_MAX,
    ) -> None:
        self._counts: dict[Metric, int] = {}
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._standings = Standings(rows)
        self._names = names
        self._rated = names.rated
        self._catalog = catalog
        self._rows = rows
        self._emit = emit
        self._owns = owns
        self._accounts_max = accounts_max
        self._accounts: dict[str, Account] = {}
        self._dirty: dict[str, Account] = {}
        self._unpublished: dict[str, Account] = {}
        self._known: dict[bytes, bytes | None] = {}  # rows of calls this batch asked for or wrote
        self._writer = Writer()
        self._event_writer = EventWriter(names, emit, self._writer)
        self._context = CommandContext(catalog, self._event_writer, self._recall, self._remember)
        self._newest_us = 0
        self._expired_day = 0

    def batch(self, records: Sequence[Record], catalog_is_current: bool = True) -> int:
        """Handle records in order; gives how many.

        Fewer than given only if not `catalog_is_current`: the next one misses something in the catalog. Bring the catalog up
        to date and give the rest again.
        """
        names = self._names
        read: list[tuple[Cdr, bytes, Account | None] | Rejected | None] = []
        keys = []
        for record in records:
            if record.topic == names.cdr:
                try:
                    cdr = read_cdr(record.value)
                    account = self._accounts.get(cdr.org_id)
                    _check_record(record, cdr.org_id if account is None else account.key)
                    if account is None:
                        account = self._account(cdr.org_id)
                    if account is None:
                        read.append((cdr, b"", None))
                    else:
                        key = account.call_prefix + cdr.cdr_id.encode()
                        keys.append(key)
                        read.append((cdr, key, account))
                except Rejected as rejected:
                    read.append(rejected)
            else:
                read.append(None)
        self._known = dict(zip(keys, self._rows.get_many(keys), strict=True))
        handled = 0
        for record, item in zip(records, read, strict=True):
            if isinstance(item, tuple):
                done = self._cdr(record, item[0], item[1], item[2], catalog_is_current)
            elif item is None:
                done = self._other(record, catalog_is_current)
            else:
                done = self.dead_letter(record, item)
            if not done:
                break
            handled += 1
        day = moments.day_of(self._newest_us) - FORGET_MARGIN_DAYS
        if day > self._expired_day:
            self._expired_day = day
            self._rows.expire(day)
        return handled

    def flush(self) -> None:
        """End a batch: write the rows of the accounts it changed, and their states where they are not out yet."""
        for account in list(self._unpublished.values()):
            self._publish(account)
        for account in self._dirty.values():
            account.save()
            self._standings.note(account)
        self._standings.save()
        self._dirty.clear()
        if len(self._accounts) > self._accounts_max:
            self._accounts.clear()

    def take_counts(self) -> dict[Metric, int]:
        """What was handled since this was asked last: (what, label values …) → how many, or micros.

        `calls` by service and funding, `dead_letters` by code, `duplicates` by kind, `commands` by type and outcome, `refused`
        by code; `charged`, `collected`, `overdrawn`, `unfunded` by currency.
        """
        counts, self._counts = self._counts, {}
        for (service, funded_by, currency), tally in self._tallies.items():
            unpaid = tally.charged - tally.collected
            _add(counts, ("calls", service, funded_by), tally.calls)
            _add(counts, ("charged", currency), tally.charged)
            _add(counts, ("collected", currency), tally.collected)
            _add(counts, ("unfunded" if funded_by == "unfunded" else "overdrawn", currency), unpaid)
        self._tallies = {}
        return counts

    def gauges(self) -> dict[Metric, int]:
        """How the accounts stand after the last `flush`: `accounts` by status, `accounts_overdrawn`."""
        return self._standings.gauges()

    # Calls

    def _cdr(self, record: Record, cdr: Cdr, key: bytes, account: Account | None, catalog_is_current: bool) -> bool:
        if account is None:  # unless the organization came into being within this batch
            account = self._account(cdr.org_id)
            key = b"" if account is None else account.call_prefix + cdr.cdr_id.encode()
        if account is None or not account.state.exists:
            return self.dead_letter(record, Rejected("unknown_organization", f"no organization {cdr.org_id!r}"))
        row = self._recall(key)
        timestamp_ms = record.timestamp
        now_us = timestamp_ms * 1000
        digest = _digest(self._writer.row(cdr))
        if row is not None:
            call = decode_call(row)
            if call.forget_us > now_us:
                if call.digest == digest:
                    self._count(("duplicates", "call"))
                    return True
                return self.dead_letter(record, Rejected("conflicting_duplicate", "cdr_id: rated before with other content"))
        answered_us = moments.to_us(cdr.answered_at)
        month = account.calendar.month_of(answered_us)
        try:
            if month.close_us <= now_us:
                raise Rejected("period_closed", f"{month.name} closed at {moments.to_text(month.close_us)}")
            decision = decide(account, self._catalog, cdr, answered_us, month)
        except Rejected as rejected:
            if rejected.code == "no_rate" and not catalog_is_current:
                return False
            return self.dead_letter(record, rejected)
        trace = trace_of(record.headers) if record.headers else ()
        self._carry_out(timestamp_ms, account, cdr, decision, answered_us, month, key, digest, trace)
        return True

    def _carry_out(
        self,
        timestamp_ms: int,
        account: Account,
        cdr: Cdr,
        decision: Decision,
        answered_us: int,
        month: moments.Month,
        key: bytes,
        digest: int,
        trace: Sequence[tuple[str, bytes]],
    ) -> None:
        event_writer = self._event_writer
        event_writer.open(timestamp_ms)
        now_us = event_writer.now_us
        state = account.state
        wallet = account.wallet
        allowance = decision.allowance
        row = decision.row
        charge = decision.charge
        before = wallet.balance
        events_before = state.seq

        parts: list[Part] = []
        overdrawn = 0
        if charge and decision.payable:
            parts, overdrawn = wallet.spend(charge, answered_us)
            movements: list[Movement] = [("wallet", -part.micros, part.lot_id) for part in parts]
            if overdrawn:
                movements.append(("wallet", -overdrawn, None))
            movements.append(("usage", charge, None))
            event_writer.transaction(account, "charge", cdr.cdr_id, movements, cdr.cdr_id)
        collected = charge - overdrawn if decision.payable else 0

        text = account.text
        zero = account.zero
        charge_text = text(charge) if charge else zero
        rated = RatedCall(
            cdr.cdr_id,
            cdr.org_id,
            cdr.user_id,
            cdr.call_type,
            cdr.caller,
            cdr.callee,
            cdr.answered_at,
            cdr.duration_ms,
            decision.service,
            None if row is None else row.destination,
            None if row is None else row.country,
            None if row is None else row.rate_id,
            None if allowance is None else decision.plan.plan_id,  # type: ignore[union-attr]
            None if allowance is None else allowance.allowance_id,
            decision.billed_s,
            decision.included_minutes,
            decision.priced_s,
            None if row is None else row.rate_text,
            None if row is None else row.fee_text,
            charge_text,
            charge_text if collected == charge else text(collected),
            state.currency,
            decision.funded_by,
            decision.reason,
            [LotAmount(part.lot_id, text(part.micros)) for part in parts],
            text(overdrawn) if overdrawn else zero,
            account.balance_text(),
            1,
            event_writer.now_text,
        )
        self._emit(self._rated, account.key, self._writer.json(rated), timestamp_ms, trace)

        forget_us = now_us + (REMEMBER_DAYS + 1) * DAY_US
        if forget_us < month.close_us:  # once its month is closed it can't be rated again anyway
            forget_us = month.close_us
        included = decision.included_minutes
        voided = False
        pool_key = None
        if allowance is not None:
            pool_key = (decision.plan.plan_id, allowance.allowance_id, month.name)  # type: ignore[union-attr]
            self._take_minutes(account, decision, pool_key, month.close_us)
        call = Call(digest, forget_us, voided, overdrawn, included, pool_key if included else None, parts)
        self._remember(forget_us // DAY_US + 1, key, self._writer.row(call))

        if decision.funded_by == "unfunded":
            data = {
                "cdr_id": cdr.cdr_id,
                "user_id": cdr.user_id,
                "charge": charge_text,
                "currency": state.currency,
                "reason": decision.reason,
            }
            event_writer.event(account, "call.unfunded", data)
        if wallet.balance != before:
            recharge.balance_changed(event_writer, account, before)
        if state.recharging.retry_us:
            recharge.retry_if_due(event_writer, account)
        counted = (decision.service, decision.funded_by, state.currency)
        tally = self._tallies.get(counted)
        if tally is None:
            tally = self._tallies[counted] = Tally()
        tally.calls += 1
        tally.charged += charge
        tally.collected += collected
        self._touch(account, events_before)

    def _take_minutes(self, account: Account, decision: Decision, key: tuple[str, str, str], close_us: int) -> None:
        """Count minutes against their pool, and say when it is low or used up, once a month each (rule 25)."""
        pool = account.pools.get(key)
        if pool is None:
            pool = account.pools[key] = Pool(*key, close_us)
        pool.used += decision.included_minutes
        if pool.noticed_percent == 100:
            return
        assert decision.allowance is not None
        total = decision.allowance.minutes_per_user * account.state.holders[key[0]]
        for percent, event in ((LOW_PERCENT, "allowance.low"), (100, "allowance.exhausted")):
            if pool.noticed_percent < percent and pool.used * 100 >= total * percent:
                pool.noticed_percent = percent
                data: dict[str, Any] = {
                    "plan_id": pool.plan_id,
                    "allowance_id": pool.allowance_id,
                    "month": pool.month,
                    "minutes_total": total,
                    "minutes_used": pool.used,
                }
                self._event_writer.event(account, event, data)

    # Commands and catalog

    def _other(self, record: Record, catalog_is_current: bool) -> bool:
        names = self._names
        try:
            if record.topic == names.command:
                return self._command(record, catalog_is_current)
            if record.topic == names.plan:
                self._catalog.put_plan(record.key, record.value)
            elif record.topic == names.rate:
                self._catalog.put_rate(record.key, record.value)
            else:
                raise ValueError(f"topic {record.topic!r} is none the rater reads")
        except Rejected as rejected:
            return self.dead_letter(record, rejected)
        return True

    def _command(self, record: Record, catalog_is_current: bool) -> bool:
        envelope, payload = read_envelope(record.value)
        _check_record(record, envelope.org_id)
        account = self._account(envelope.org_id)
        if account is None:  # even one nobody knows has its events counted
            account = self._accounts[envelope.org_id] = Account(AccountState(envelope.org_id), self._rows)
        key = account.command_prefix + envelope.command_id.encode()
        row = self._recall(key)
        now_us = record.timestamp * 1000
        digest = _digest(payload)
        if row is not None:
            seen = decode_call(row)
            if seen.forget_us > now_us:
                if seen.digest == digest:
                    self._count(("duplicates", "command"))
                    return True
                raise Rejected("conflicting_duplicate", "command_id: used before with other content")
        self._event_writer.open(record.timestamp)
        events_before = account.state.seq
        try:
            command = read_command(payload)
            if not (account.state.exists or isinstance(command, OrganizationPut)):
                raise Refused("unknown_organization", f"no organization {envelope.org_id!r}")
            HANDLERS[type(command)](self._context, account, command)
        except (Rejected, Refused) as fault:
            if fault.code == "unknown_plan" and not catalog_is_current:
                return False
            data = {
                "command_id": envelope.command_id,
                "command_type": envelope.type,
                "code": fault.code,
                "message": fault.message,
            }
            self._event_writer.event(account, "command.refused", data)
            self._count(("commands", envelope.type if envelope.type in COMMAND_TYPES else "unknown", "refused"))
            self._count(("refused", fault.code))
        else:
            self._count(("commands", envelope.type, "done"))
        recharge.retry_if_due(self._event_writer, account)
        forget_us = now_us + COMMAND_DAYS * DAY_US
        self._remember(moments.day_of(forget_us) + 1, key, self._writer.row(Call(digest, forget_us)))
        self._touch(account, events_before)
        return True

    # What both share

    def _account(self, org_id: str) -> Account | None:
        account = self._accounts.get(org_id)
        if account is None:
            if not self._owns(org_id):
                raise Rejected("invalid_field", "key: in another partition than its hash (murmur2) says")
            account = Account.load(org_id, self._rows)
            if account is not None:
                self._accounts[org_id] = account
        return account

    def _touch(self, account: Account, events_before: int) -> None:
        state = account.state
        state.updated_us = self._event_writer.now_us
        if state.updated_us > self._newest_us:
            self._newest_us = state.updated_us
        self._dirty[state.org_id] = account
        self._unpublished[state.org_id] = account
        if state.seq != events_before:
            self._publish(account)

    def _publish(self, account: Account) -> None:
        del self._unpublished[account.state.org_id]
        if account.state.exists:
            message = state_message(account, self._catalog)
            self._emit(self._names.state, account.key, self._writer.json(message), account.state.updated_us // 1000)

    def dead_letter(self, record: Record, rejected: Rejected) -> bool:
        """Send a record on as it came, with the reason; what no topic would take goes without its content. Always True."""
        letter = dead_letter_of(record, rejected)
        timestamp_ms = min(max(record.timestamp, 0), moments.INSTANT_US_MAX // 1000)
        self._emit(self._names.dead_letter, letter.key, letter.value, timestamp_ms, letter.headers)
        self._count(("dead_letters", rejected.code))
        return True

    def _recall(self, key: bytes) -> bytes | None:
        known = self._known
        return known[key] if key in known else self._rows.get(key)

    def _remember(self, day: int, key: bytes, row: bytes) -> None:
        self._known[key] = row
        self._rows.append(day, key, row)

    def _count(self, what: Metric) -> None:
        _add(self._counts, what, 1)


def _add(counts: dict[Metric, int], what: Metric, more: int) -> None:
    counts[what] = counts.get(what, 0) + more


def _digest(content: bytes) -> int:
    """What content is known again by: 64 bits, of which the upper half tells apart whatever differs in one place only."""
    return crc32(content) << 32 | adler32(content)


def _check_record(record: Record, org: bytes | str) -> None:
    """The key decides which partition, so which writer, an account has: it must be the organization's. Raises `Rejected`."""
    if record.key != (org.encode() if isinstance(org, str) else org):
        raise Rejected("invalid_field", "key: must be the org_id")
    if not 0 <= record.timestamp < moments.INSTANT_US_MAX // 1000:
        raise Rejected("invalid_field", "timestamp: out of range")
