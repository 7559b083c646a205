"""Calls: a CDR is read, checked, decided upon, and only then carried out. What is rejected leaves no trace (rule 26).

A rated call comes out as its ledger transaction, the rated call, then its events.
"""

from typing import Any

from rater.domain import moments, recharge
from rater.domain.account import Account
from rater.domain.catalog import Catalog
from rater.domain.counts import Counts
from rater.domain.event_writer import EventWriter, spending
from rater.domain.idempotency import IdempotencyStore, forget_call_us
from rater.domain.loaded_accounts import LoadedAccounts
from rater.domain.messages import Cdr
from rater.domain.outputs import LotAmount, Record
from rater.domain.plans import LOW_PERCENT, IncludedMinutes
from rater.domain.rated_calls import rated_call
from rater.domain.rating import Decision, decide
from rater.domain.reading import check_key_and_time, read_cdr
from rater.domain.rejection import Rejected
from rater.domain.rows import Handled, Part, Pool
from rater.domain.tracing import trace_of


class ReadCall:
    """A CDR that was read and checked, and what identifies it. `account` is None if the organization has none so far."""

    __slots__ = ("account", "cdr", "digest", "key", "record")

    def __init__(self, record: Record, cdr: Cdr, digest: int, account: Account | None) -> None:
        self.record = record
        self.cdr = cdr
        self.digest = digest
        self.account = account
        self.key = b"" if account is None else account.call_prefix + cdr.cdr_id.encode()


class Payment:
    """How the wallet paid a charge, in micros: `parts` from lots, `collected` in all from lots, `overdrawn` as overdraft."""

    __slots__ = ("collected", "overdrawn", "parts")

    def __init__(self, parts: list[Part], collected: int, overdrawn: int) -> None:
        self.parts = parts
        self.collected = collected
        self.overdrawn = overdrawn


class CallRater:
    """Rates calls in two steps, `read` and `rate`, so that a batch can look up all its calls at once in between."""

    __slots__ = ("_accounts", "_catalog", "_counts", "_event_writer", "_idempotency")

    def __init__(
        self,
        catalog: Catalog,
        accounts: LoadedAccounts,
        idempotency: IdempotencyStore,
        event_writer: EventWriter,
        counts: Counts,
    ) -> None:
        self._catalog = catalog
        self._accounts = accounts
        self._idempotency = idempotency
        self._event_writer = event_writer
        self._counts = counts

    def read(self, record: Record) -> ReadCall:
        """Read and check a CDR. Raises `Rejected`."""
        cdr = read_cdr(record.value)
        account = self._accounts.in_memory(cdr.org_id)
        check_key_and_time(record, cdr.org_id.encode() if account is None else account.key)
        if account is None:
            account = self._accounts.load(cdr.org_id)
        return ReadCall(record, cdr, self._idempotency.digest(cdr), account)

    def rate(self, call: ReadCall) -> None:
        """Rate a call, unless it is a repeat. Raises `Rejected`."""
        record, cdr, account = call.record, call.cdr, call.account
        if account is None:  # unless the batch itself has created the organization in the meantime
            account = self._accounts.load(cdr.org_id)
            call = ReadCall(record, cdr, call.digest, account)
        if account is None or not account.state.exists:
            raise Rejected("unknown_organization", f"no organization {cdr.org_id!r}")
        now_us = record.timestamp * 1000
        if self._idempotency.is_repeat(call.key, call.digest, now_us, "cdr_id: rated before with other content"):
            self._counts.add(("duplicates", "call"))
            return
        answered_us = moments.to_us(cdr.answered_at)
        month = account.calendar.month_of(answered_us)
        if month.close_us <= now_us:
            raise Rejected("period_closed", f"{month.name} closed at {moments.to_text(month.close_us)}")
        decision = decide(account, self._catalog, cdr, answered_us, month)
        self._carry_out(call, account, decision, answered_us, month)

    def _carry_out(self, call: ReadCall, account: Account, decision: Decision, answered_us: int, month: moments.Month) -> None:
        """Change the account as decided, and write the output records."""
        event_writer = self._event_writer
        event_writer.open(call.record.timestamp)
        state, wallet = account.state, account.wallet
        balance_before, events_before = wallet.balance, state.seq
        payment = self._collect(call.cdr, account, decision, answered_us)
        self._write_rated_call(call, account, decision, payment)
        if decision.included is not None:
            self._take_minutes(account, decision.included, month)
        self._remember(call, decision, payment, month)
        if decision.funded_by == "unfunded":
            data = {
                "cdr_id": call.cdr.cdr_id,
                "user_id": call.cdr.user_id,
                "charge": account.text(decision.charge),
                "currency": state.currency,
                "reason": decision.reason,
            }
            event_writer.event(account, "call.unfunded", data)
        if wallet.balance != balance_before:
            recharge.balance_changed(event_writer, account, balance_before)
        if state.recharging.retry_us:
            recharge.retry_if_due(event_writer, account)
        self._counts.add_call(decision.service, decision.funded_by, state.currency, decision.charge, payment.collected)
        self._accounts.changed(account, event_writer.now_us, events_before)

    def _collect(self, cdr: Cdr, account: Account, decision: Decision, answered_us: int) -> Payment:
        """Take the charge from the wallet, as one ledger transaction (rules 16, 17); nothing if it is unfunded."""
        charge = decision.charge
        if charge == 0 or not decision.is_payable:
            return Payment([], 0, 0)
        parts, overdrawn = account.wallet.spend(charge, answered_us)
        movements = spending(parts, overdrawn)
        movements.append(("usage", charge, None))
        self._event_writer.transaction(account, "charge", cdr.cdr_id, movements, cdr.cdr_id)
        return Payment(parts, charge - overdrawn, overdrawn)

    def _write_rated_call(self, call: ReadCall, account: Account, decision: Decision, payment: Payment) -> None:
        """One record with everything the charge was computed from."""
        cdr, row, included = call.cdr, decision.row, decision.included
        text = account.text
        charge, collected, overdrawn = decision.charge, payment.collected, payment.overdrawn
        charge_text = text(charge) if charge else account.zero
        rated = rated_call(
            cdr_id=cdr.cdr_id,
            org_id=cdr.org_id,
            user_id=cdr.user_id,
            call_type=cdr.call_type,
            caller=cdr.caller,
            callee=cdr.callee,
            answered_at=cdr.answered_at,
            duration_ms=cdr.duration_ms,
            service=decision.service,
            destination=None if row is None else row.destination,
            destination_country=None if row is None else row.country,
            rate_id=None if row is None else row.rate_id,
            plan_id=None if included is None else included.plan_id,
            allowance_id=None if included is None else included.allowance.allowance_id,
            billed_s=decision.billed_s,
            included_minutes=0 if included is None else included.minutes,
            priced_s=decision.priced_s,
            rate_per_minute=None if row is None else row.rate_text,
            connection_fee=None if row is None else row.fee_text,
            charge=charge_text,
            collected=charge_text if collected == charge else text(collected),
            currency=account.state.currency,
            funded_by=decision.funded_by,
            reason=decision.reason,
            lots=[LotAmount(part.lot_id, text(part.micros)) for part in payment.parts],
            overdraft=text(overdrawn) if overdrawn else account.zero,
            balance_after=account.balance_text(),
            version=1,
            rated_at=self._event_writer.now_text,
        )
        headers = call.record.headers
        self._event_writer.rated_call(account, rated, trace_of(headers) if headers else ())

    def _take_minutes(self, account: Account, included: IncludedMinutes, month: moments.Month) -> None:
        """Count minutes against their pool, and say when it is low or used up, once a month each (rule 25)."""
        plan_id, allowance = included.plan_id, included.allowance
        key = (plan_id, allowance.allowance_id, month.name)
        pool = account.pools.get(key)
        if pool is None:
            pool = account.pools[key] = Pool(plan_id, allowance.allowance_id, month.name, month.close_us)
        pool.used += included.minutes
        if pool.noticed_percent == 100:
            return
        total = allowance.minutes_per_user * account.state.holders[plan_id]
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

    def _remember(self, call: ReadCall, decision: Decision, payment: Payment, month: moments.Month) -> None:
        """Remember the call, so that a repeat is recognized and a void can give back what it took."""
        included = decision.included
        pool = None
        minutes = 0
        if included is not None and included.minutes:
            pool = (included.plan_id, included.allowance.allowance_id, month.name)
            minutes = included.minutes
        forget_us = forget_call_us(self._event_writer.now_us, month.close_us)
        handled = Handled(
            call.digest,
            forget_us,
            overdrawn=payment.overdrawn,
            included_minutes=minutes,
            pool=pool,
            parts=payment.parts,
        )
        self._idempotency.remember(call.key, handled)
