"""The catalog as the topics have it, and what organizations and users make of it.

Plan and rate topics are read whole, as a worker reads them. Who holds a plan is in the directory; which rate card an
organization has, in the events of its changes, which are kept for 30 days; its currency, in its state.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rater.doctor.asking import Cluster, View
from rater.doctor.findings import Finding, fault, listed, note, warning
from rater.doctor.plans import LICENSED, Holders, judge_plans
from rater.doctor.rates import judge_rates
from rater.domain.catalog import Catalog, CatalogIntake, FaultyRow
from rater.domain.deck import PricedRow
from rater.kafka.topics import Topics

CATALOG_S = 20.0
_ACCOUNTS_S = 6.0
_LOAD = "rater load rates FILE.csv"

Record = Any  # aiokafka's


class _Licences(msgspec.Struct):
    calling_plan: str | None = None
    audio_conferencing: str | None = None


class _Entry(msgspec.Struct):
    entry: str
    org_id: str
    change: str
    user_id: str | None = None
    licences: _Licences | None = None


class _State(msgspec.Struct):
    org_id: str
    currency: str


class _Changed(msgspec.Struct):
    currency: str | None = None
    rate_card: str | None = None


class _Event(msgspec.Struct):
    org_id: str
    type: str
    data: msgspec.Raw


@dataclass(slots=True)
class Accounts:
    """Organizations' currencies and rate cards, users' plans; as far as they could be read."""

    currencies: dict[str, str] = field(default_factory=dict)
    cards: dict[str, tuple[str, str]] = field(default_factory=dict)
    licences: dict[tuple[str, str], _Licences] = field(default_factory=dict)
    is_whole: bool = True

    def take_state(self, record: Record) -> None:
        if record.value is not None:
            state = _STATE.decode(record.value)
            self.currencies[state.org_id] = state.currency

    def take_event(self, record: Record) -> None:
        if record.value is None or b'"organization.changed"' not in record.value:
            return
        event = _EVENT.decode(record.value)
        changed = _CHANGED.decode(event.data) if event.type == "organization.changed" else _Changed()
        if changed.currency is not None:  # else a change of a number
            self.cards[event.org_id] = (changed.rate_card or "default", changed.currency)

    def take_entry(self, record: Record) -> None:
        entry = _ENTRY.decode(record.value)
        if entry.entry != "user" or entry.user_id is None:
            return
        if entry.change == "put" and entry.licences is not None:
            self.licences[entry.org_id, entry.user_id] = entry.licences
        else:
            self.licences.pop((entry.org_id, entry.user_id), None)

    def holders(self) -> Holders:
        """Users by licence and plan."""
        held = (
            (licence, plan_id)
            for licences in self.licences.values()
            for licence in LICENSED
            if (plan_id := getattr(licences, licence)) is not None
        )
        return Holders(Counter(held), self.is_whole)


_STATE = msgspec.json.Decoder(_State)
_EVENT = msgspec.json.Decoder(_Event)
_CHANGED = msgspec.json.Decoder(_Changed)
_ENTRY = msgspec.json.Decoder(_Entry)


async def look(cluster: Cluster, topics: Topics, view: View) -> list[Finding]:
    """Read the catalog whole, and of the accounts what a few seconds suffice for."""
    unreadable = view.unreadable([topics.plan, topics.rate])
    if unreadable:
        what = f"nothing can be said of the catalog without reading {listed(unreadable)}"
        return [note("catalog.unreadable", what, "see the areas topics and acl")]
    intake = CatalogIntake(topics.plan, topics.rate, Catalog())
    if not await _read(cluster, view, [topics.plan, topics.rate], intake.take, CATALOG_S):
        what = f"the catalog could not be read within {CATALOG_S:.0f} s"
        return [fault("catalog.unread", what, "a worker could not start in that time either: is a broker overloaded?")]
    accounts = Accounts()
    reads = [(topics.state, accounts.take_state), (topics.event, accounts.take_event), (topics.directory, accounts.take_entry)]
    whole = [not view.unreadable([topic]) and await _read(cluster, view, [topic], take, _ACCOUNTS_S) for topic, take in reads]
    accounts.is_whole = all(whole)
    now_us = time.time_ns() // 1000
    found = intake.catalog.deck.rows()
    return [
        *judge_faulty(intake.faulty),
        *judge_rates(found, now_us),
        *judge_plans(intake.catalog.plans, found, accounts.holders(), now_us),
        *judge_organizations(accounts, found, now_us),
        *(
            []
            if accounts.is_whole
            else [note("catalog.accounts_in_part", "not all accounts could be read: too many, or not allowed")]
        ),
    ]


def judge_faulty(faulty: Mapping[tuple[str, bytes | None], FaultyRow]) -> list[Finding]:
    """Rows that every worker leaves out."""
    if not faulty:
        return []
    rows = [f"{topic} {(key or b'').decode(errors='replace')[:80]!r}: {row.rejected}" for (topic, key), row in faulty.items()]
    todo = "publish them again as they should be (rater load checks first); a null value removes a key"
    return [fault("catalog.faulty_rows", f"{len(rows)} rows are faulty and left out: {listed(rows)}", todo)]


def judge_organizations(accounts: Accounts, rows: list[PricedRow], now_us: int) -> list[Finding]:
    """Organizations whose calls no rate can price: their card has none in their currency (rules 2, 8)."""
    if not rows:
        return []  # said already
    valid = [row for row in rows if row.to_us > now_us]
    currencies = {row.currency for row in valid}
    cards = {(row.rate_card, row.currency) for row in valid}
    findings = []
    poor = {org: currency for org, currency in sorted(accounts.currencies.items()) if currency not in currencies}
    if poor:
        what = f"no rate is in the currency of {listed([f'{org} ({currency})' for org, currency in poor.items()])}"
        findings.append(warning("catalog.currency_without_rates", what, f"{_LOAD} --currency …"))
    bare = {org: card for org, card in sorted(accounts.cards.items()) if card not in cards and org not in poor}
    if bare:
        shown = listed([f"{org} ({card} {currency})" for org, (card, currency) in bare.items()])
        todo = f"{_LOAD} --rate-card …, or rater organization set with another card"
        findings.append(warning("catalog.card_without_rates", f"the rate card has no rate for {shown}", todo))
    return findings


async def _read(cluster: Cluster, view: View, topics: list[str], take: Any, within_s: float) -> bool:
    return await cluster.read(await cluster.bounds(view.partitions(topics)), take, within_s)
