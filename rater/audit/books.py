"""Checks that an organization's books agree with each other. Pure: records in, discrepancies out.

Checked for each organization:

- The postings of every ledger transaction sum to zero, and no transaction appears twice.
- The wallet's postings add up to every `balance_after`, and at the end to the state's balance, overdraft and lots.
- For every rated call, charge = collected + overdraft if the wallet pays, its lots sum to collected, and the ledger has exactly
  these postings.
- No call is rated twice, and no call is charged without being rated.
- Events are numbered 1, 2, 3 … without a gap, up to the state's seq.

The ledger is kept forever; rated calls and events are not. If retention has removed the oldest of them (`truncated`), they may
be missing at the beginning, but nowhere else.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import msgspec

from rater.domain.money import format_micros, parse_micros
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing in an organization's books that doesn't agree."""

    org_id: str
    message: str

    def __str__(self) -> str:
        return f"{self.org_id}: {self.message}"


@dataclass(slots=True)
class AccountBooks:
    """One organization's records: its rated calls, transactions and events in order, and its latest state."""

    rated: list[Message] = field(default_factory=list)
    ledger: list[Message] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)
    state: Message | None = None


@dataclass(slots=True)
class Books:
    """All organizations' records, by org_id."""

    accounts: dict[str, AccountBooks] = field(default_factory=lambda: defaultdict(AccountBooks))

    @classmethod
    def of(cls, topics: Topics, records: Iterable[LogRecord]) -> "Books":
        """Sort the rater's output records by organization; skips records of other topics."""
        books = cls()
        for record in records:
            if record.value is None or record.topic not in (topics.rated, topics.ledger, topics.event, topics.state):
                continue
            message = msgspec.json.decode(record.value)
            account = books.accounts[message["org_id"]]
            if record.topic == topics.rated:
                account.rated.append(message)
            elif record.topic == topics.ledger:
                account.ledger.append(message)
            elif record.topic == topics.event:
                account.events.append(message)
            else:
                account.state = message
        return books


def audit(books: Books, *, truncated: bool = False) -> list[Discrepancy]:
    """Return every discrepancy, sorted by organization. `truncated`: retention may have removed the oldest calls and events."""
    discrepancies = []
    for org_id, account in sorted(books.accounts.items()):
        messages = (*_ledger(account), *_calls(account, truncated), *_events(account, truncated))
        discrepancies += [Discrepancy(org_id, message) for message in messages]
    return discrepancies


def _ledger(account: AccountBooks) -> Iterable[str]:
    balance = 0
    lots: dict[str | None, int] = defaultdict(int)
    seen = set()
    for transaction in account.ledger:
        name = transaction["transaction_id"]
        if name in seen:
            yield f"transaction {name} appears twice"
        seen.add(name)
        postings = [(p["account"], parse_micros(p["amount"]), p.get("lot_id")) for p in transaction["postings"]]
        if sum(micros for _, micros, _ in postings):
            yield f"transaction {name}: the postings don't sum to zero"
        for ledger_account, micros, lot_id in postings:
            if ledger_account == "wallet":
                balance += micros
                lots[lot_id] += micros
        if balance != parse_micros(transaction["balance_after"]):
            yield f"transaction {name}: balance_after is {transaction['balance_after']}, the postings make {_text(balance)}"
    state = account.state
    if state is None:
        if account.ledger:
            yield "there is no state record"
        return
    if balance != parse_micros(state["balance"]):
        yield f"the state's balance is {state['balance']}, the ledger's is {_text(balance)}"
    overdraft = -lots.pop(None, 0)
    if overdraft != parse_micros(state["overdraft"]):
        yield f"the state's overdraft is {state['overdraft']}, the ledger's is {_text(overdraft)}"
    held = {lot["lot_id"]: parse_micros(lot["remaining"]) for lot in state["lots"]}
    if held != {lot_id: micros for lot_id, micros in lots.items() if micros}:
        yield "the state's lots differ from the ledger's"


def _calls(account: AccountBooks, truncated: bool) -> Iterable[str]:
    charges = _charges(account, truncated)
    rated = set()
    for call in account.rated:
        cdr_id = call["cdr_id"]
        if (cdr_id, call["version"]) in rated:
            yield f"call {cdr_id} is rated twice"
        rated.add((cdr_id, call["version"]))
        charge, collected, overdraft = (parse_micros(call[name]) for name in ("charge", "collected", "overdraft"))
        if sum(parse_micros(lot["amount"]) for lot in call["lots"]) != collected:
            yield f"call {cdr_id}: the lots don't add up to what was collected"
        pays = call["funded_by"] in ("credit", "mixed")
        if collected + overdraft != (charge if pays else 0):
            yield f"call {cdr_id}: charge {call['charge']} is not collected {call['collected']} + overdraft {call['overdraft']}"
        transaction = charges.pop(cdr_id, None)
        if (transaction is not None) != (pays and charge > 0):
            yield f"call {cdr_id}: the ledger has {'a charge too many' if transaction else 'no charge'}"
        elif transaction is not None:
            posted = {p.get("lot_id"): p["amount"] for p in transaction["postings"] if p["account"] == "wallet"}
            wanted = {lot["lot_id"]: "-" + lot["amount"] for lot in call["lots"]}
            if overdraft:
                wanted[None] = "-" + call["overdraft"]
            if posted != wanted:
                yield f"call {cdr_id}: the ledger's postings differ from the call's lots"
    for cdr_id in charges:
        yield f"call {cdr_id} was charged but never rated"


def _charges(account: AccountBooks, truncated: bool) -> dict[str, Message]:
    """The ledger's charges by call, without those whose calls retention has removed."""
    charges = {t["cdr_id"]: t for t in account.ledger if t["kind"] == "charge"}
    if truncated:  # calls are charged and rated in the same order, so the removed ones come first
        rated = {call["cdr_id"] for call in account.rated}
        for cdr_id in list(takewhile(lambda cdr_id: cdr_id not in rated, charges)):
            del charges[cdr_id]
    return charges


def _events(account: AccountBooks, truncated: bool) -> Iterable[str]:
    expected = account.events[0]["seq"] if truncated and account.events else 1
    for event in account.events:
        if event["seq"] != expected:
            yield f"event {expected - 1} is followed by {event['seq']}: events are missing or repeated"
            return
        expected += 1
    known = account.state["seq"] if account.state is not None else expected - 1
    if known != expected - 1 and (account.events or not truncated):
        yield f"the state has counted {known} events, but the last event has number {expected - 1}"


def _text(micros: int) -> str:
    return format_micros(micros, 2)
