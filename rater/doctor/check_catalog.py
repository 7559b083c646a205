"""The catalog in the topics, and how organizations and users use it.

The plan and rate topics are read completely, as a worker reads them. The directory tells which users hold which plan, the state
topic each organization's currency, and the event topic its rate card. Events are kept for 30 days, so only rate cards changed
since then are known.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rater.doctor.check_plans import LICENSED, Holders, judge_plans
from rater.doctor.check_rates import judge_rates
from rater.doctor.cluster_reader import ClusterReader
from rater.doctor.cluster_views import ClusterView
from rater.doctor.findings import DoctorFinding, counted, fault, listed, note, warning
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


class _DirectoryEntry(msgspec.Struct):
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
    """Currencies and rate cards of organizations, and plans of users. `is_whole`: whether all could be read.

    `currencies`: organization → currency. `cards`: organization → (rate card, currency). `licences`: (organization, user) →
    plans.
    """

    currencies: dict[str, str] = field(default_factory=dict)
    cards: dict[str, tuple[str, str]] = field(default_factory=dict)
    licences: dict[tuple[str, str], _Licences] = field(default_factory=dict)
    is_whole: bool = True

    def take_state(self, record: Record) -> None:
        """Take a record of the state topic."""
        if record.value is not None:
            state = _STATE.decode(record.value)
            self.currencies[state.org_id] = state.currency

    def take_event(self, record: Record) -> None:
        """Take a record of the event topic; only `organization.changed` matters."""
        if record.value is None or b'"organization.changed"' not in record.value:
            return
        event = _EVENT.decode(record.value)
        changed = _CHANGED.decode(event.data) if event.type == "organization.changed" else _Changed()
        if changed.currency is not None:  # otherwise only a number changed
            self.cards[event.org_id] = (changed.rate_card or "default", changed.currency)

    def take_entry(self, record: Record) -> None:
        """Take a record of the directory topic."""
        entry = _ENTRY.decode(record.value)
        if entry.entry != "user" or entry.user_id is None:
            return
        if entry.change == "put" and entry.licences is not None:
            self.licences[entry.org_id, entry.user_id] = entry.licences
        else:
            self.licences.pop((entry.org_id, entry.user_id), None)

    def holders(self) -> Holders:
        """How many users hold which plan, by licence."""
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
_ENTRY = msgspec.json.Decoder(_DirectoryEntry)


async def check(cluster: ClusterReader, topics: Topics, view: ClusterView) -> list[DoctorFinding]:
    """Read the whole catalog, and as many accounts as fit in a few seconds."""
    unreadable = view.unreadable([topics.plan, topics.rate])
    if unreadable:
        what = f"the catalog was not checked because {listed(unreadable)} can't be read"
        return [note("catalog.unreadable", what, "see the areas topics and acl")]
    intake = CatalogIntake(topics.plan, topics.rate, Catalog())
    if not await _read(cluster, view, [topics.plan, topics.rate], intake.take, CATALOG_S):
        what = f"the catalog could not be read within {CATALOG_S:.0f} s"
        return [fault("catalog.unread", what, "a worker couldn't start within that time either; is a broker overloaded?")]
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
            else [note("catalog.accounts_in_part", "not all accounts could be read: too many, or no right to read them")]
        ),
    ]


def judge_faulty(faulty: Mapping[tuple[str, bytes | None], FaultyRow]) -> list[DoctorFinding]:
    """Rows that every worker ignores. `faulty`: (topic, key) → why."""
    if not faulty:
        return []
    rows = [f"{topic} {(key or b'').decode(errors='replace')[:80]!r}: {row.rejected}" for (topic, key), row in faulty.items()]
    todo = "correct and publish them again (rater load checks them first); a null value removes a key"
    return [fault("catalog.faulty_rows", f"{counted(len(rows), 'row')} ignored as faulty: {listed(rows)}", todo)]


def judge_organizations(accounts: Accounts, rows: list[PricedRow], now_us: int) -> list[DoctorFinding]:
    """Organizations whose calls can't be priced, because there is no rate of their card in their currency (rules 2, 8)."""
    if not rows:
        return []  # `judge_rates` reports that
    valid = [row for row in rows if row.to_us > now_us]
    currencies = {row.currency for row in valid}
    cards = {(row.rate_card, row.currency) for row in valid}
    findings = []
    without_currency = {org: currency for org, currency in sorted(accounts.currencies.items()) if currency not in currencies}
    if without_currency:
        shown = listed([f"{org} ({currency})" for org, currency in without_currency.items()])
        what = f"there are no rates in the currency of {shown}"
        findings.append(warning("catalog.currency_without_rates", what, f"{_LOAD} --currency …"))
    without_card = {
        org: card for org, card in sorted(accounts.cards.items()) if card not in cards and org not in without_currency
    }
    if without_card:
        shown = listed([f"{org} ({card} {currency})" for org, (card, currency) in without_card.items()])
        todo = f"{_LOAD} --rate-card …, or rater organization set with another card"
        findings.append(warning("catalog.card_without_rates", f"there are no rates in the rate card of {shown}", todo))
    return findings


async def _read(cluster: ClusterReader, view: ClusterView, topics: list[str], take: Any, within_s: float) -> bool:
    return await cluster.read(await cluster.bounds(view.partitions(topics)), take, within_s)
