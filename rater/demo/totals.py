"""Totals of the demo so far: counts, money, balances, events, latency."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rater.domain.currencies import CURRENCY_DIGITS
from rater.domain.dead_letters import reason_of
from rater.domain.money import format_micros, parse_micros
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics

_EVENTS_SHOWN = 10
#: Not shown: they come with every call or command and would hide the others.
_QUIET_EVENTS = {"user.changed", "organization.changed", "call.unfunded", "notification.sent"}


@dataclass(slots=True)
class Totals:
    """Filled by `take` from committed records of the rater's output topics. Money is in millionths, by currency."""

    topics: Topics
    published: int = 0
    rated: int = 0
    funded_by: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    charged: Counter[str] = field(default_factory=Counter)
    unfunded: Counter[str] = field(default_factory=Counter)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    suspensions: Counter[str] = field(default_factory=Counter)
    restorations: Counter[str] = field(default_factory=Counter)
    events: deque[str] = field(default_factory=lambda: deque(maxlen=_EVENTS_SHOWN))
    event_types: Counter[str] = field(default_factory=Counter)
    latencies_ms: deque[int] = field(default_factory=lambda: deque(maxlen=2000))
    records: list[LogRecord] = field(default_factory=list)
    undelivered: set[tuple[str, str]] = field(default_factory=set)

    def take(self, record: LogRecord, now_ms: int) -> list[str]:
        """Take a committed output record. `now_ms`: when it was read. Returns lines to print."""
        self.records.append(record)
        topics = self.topics
        if record.topic == topics.dead_letter:
            self.dead_letters[reason_of(record.headers).code] += 1
            return []
        message = msgspec.json.decode(record.value or b"null")
        if record.topic == topics.rated:
            self.rated += 1
            self.funded_by[message["funded_by"]] += 1
            money = self.unfunded if message["funded_by"] == "unfunded" else self.charged
            money[message["currency"]] += parse_micros(message["charge"])
            self.latencies_ms.append(now_ms - record.timestamp)
        elif record.topic == topics.state:
            return self._state(message)
        elif record.topic == topics.notification:
            self.undelivered |= {(message["notification_id"], email) for email in message["emails"]}
        elif record.topic == topics.event:
            self.event_types[message["type"]] += 1
            if message["type"] in ("notification.sent", "notification.failed"):
                self.undelivered.discard((message["data"]["notification_id"], message["data"]["recipient"]))
            if message["type"] not in _QUIET_EVENTS:
                return self._line(message["at"], message["org_id"], message["type"], _detail(message["data"]))
        return []

    def recharging(self) -> list[str]:
        """Organizations that have requested a top-up and not got an answer yet."""
        autos = {org_id: state["auto_recharge"] for org_id, state in self.states.items()}
        return [org_id for org_id, auto in autos.items() if auto["state"] == "pending" and "next_attempt_at" not in auto]

    def latency_ms(self, percent: int) -> int:
        """A percentile of the latest calls' time from publishing the CDR to reading the committed output."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0

    def _state(self, state: dict[str, Any]) -> list[str]:
        """Returns a line when service is suspended at a balance of zero, and when it is restored; not for the first funds."""
        org_id = state["org_id"]
        before, self.states[org_id] = self.states.get(org_id), state
        if before is None or (before["status"] == "suspended") == (state["status"] == "suspended"):
            return []
        if state["status"] == "suspended":
            self.suspensions[org_id] += 1
            return self._line(state["updated_at"], org_id, "service suspended", "toll-free inbound and credit calls are off")
        if org_id not in self.suspensions:
            return []
        self.restorations[org_id] += 1
        return self._line(state["updated_at"], org_id, "service restored", f"status {state['status']}")

    def _line(self, at: str, org_id: str, what: str, detail: str) -> list[str]:
        line = f"{at[11:19]}  {org_id:<10} {what:<24}{detail}"
        self.events.append(line)
        return [line]


def amounts(money: Counter[str]) -> str:
    """Amounts in millionths by currency, as text."""
    return ", ".join(f"{format_micros(micros, CURRENCY_DIGITS[c])} {c}" for c, micros in sorted(money.items())) or "nothing"


def counts(counter: Counter[str]) -> str:
    """Counts by name as text, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


def _detail(data: dict[str, Any]) -> str:
    shown: Sequence[str] = ("amount", "balance", "minutes_used", "code", "reason", "cap", "days")
    return "  ".join(f"{name} {data[name]}" for name in shown if data.get(name) is not None)
