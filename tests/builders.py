"""Records for tests, with sensible defaults; their timestamps count up from one instant."""

from typing import Any

import msgspec

from rater.domain.dead_letters import reason_of
from rater.kafka.log import LogRecord
from rater.kafka.topics import load_topics
from rater.simulation import Simulation

TOPICS = load_topics()
START_MS = 1_759_320_000_000  # 2025-10-01T12:00:00Z
ORG = "contoso"


class Desk:
    """A simulation that takes records one by one or many at a time, and keeps all outputs."""

    def __init__(self) -> None:
        self.simulation = Simulation(TOPICS)
        self.records: list[LogRecord] = []
        self.outputs: list[LogRecord] = []
        self.now_ms = START_MS
        self._commands = 0

    def give(self, *records: LogRecord) -> list[LogRecord]:
        self.records += records
        given = self.simulation.rate(records)
        self.outputs += given
        return given

    def organization(self, org_id: str = ORG, **fields: Any) -> None:
        own = {"name": org_id, "country": "US", "currency": "USD", "offer": "commercial"}
        self.command("organization.put", org_id, **own | fields)

    def user(self, user_id: str = "u1", plan: str | None = None, paid: bool = True, org_id: str = ORG, **more: Any) -> None:
        licences = {"phone_system": True, "calling_plan": plan, "communications_credits": paid} | more
        self.command("user.put", org_id, user_id=user_id, usage_country="US", licences=licences)

    def funds(self, amount: str, org_id: str = ORG, currency: str = "USD", **fields: Any) -> list[LogRecord]:
        purchase = {"purchase_channel": "web-direct", "payment_reference": "r"}
        return self.command("funds.add", org_id, amount=amount, currency=currency, **purchase | fields)

    def command(self, type_: str, org_id: str = ORG, **fields: Any) -> list[LogRecord]:
        self._commands += 1
        envelope = {"command_id": f"c{self._commands}", "type": type_, "org_id": org_id, "issued_at": "2025-10-01T00:00:00Z"}
        return self.give(self.record(TOPICS.command, org_id, envelope | fields))

    def plan(self, minutes: int = 60, plan_id: str = "plan", destinations: Any = "*", **fields: Any) -> None:
        allowances = [{"allowance_id": "a", "minutes_per_user": minutes, "destinations": destinations}]
        plan = {"plan_id": plan_id, "name": plan_id, "service": "outbound", "allowances": allowances} | fields
        self.give(self.record(TOPICS.plan, plan_id, plan))

    def rate(self, rate: str, prefix: str = "44", increments: str = "60/60", **fields: Any) -> None:
        initial, further = increments.split("/")
        row: dict[str, Any] = {
            "rate_id": f"r{prefix}",
            "service": "outbound",
            "prefix": prefix,
            "destination": "there",
            "country": "GB",
        }
        row |= {"currency": "USD", "rate_per_minute": rate, "effective_from": "2025-01-01T00:00:00Z"}
        row |= {"initial_increment_s": int(initial), "increment_s": int(further)}
        row |= fields
        self.give(self.record(TOPICS.rate, row["rate_id"], row))

    def call(self, cdr_id: str = "call", seconds: float = 60, org_id: str = ORG, **fields: Any) -> list[LogRecord]:
        cdr: dict[str, Any] = {
            "cdr_id": cdr_id,
            "org_id": org_id,
            "user_id": "u1",
            "call_type": "user_out",
            "caller": "+14255550100",
        }
        cdr |= {"callee": "+442079460000", "answered_at": "2025-10-01T11:00:00Z", "duration_ms": round(seconds * 1000)}
        cdr |= fields
        return self.give(self.record(TOPICS.cdr, org_id, {k: v for k, v in cdr.items() if v is not None}))

    def record(self, topic: str, key: str, value: Any) -> LogRecord:
        self.now_ms += 1
        raw = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        return LogRecord(topic, self.now_ms, key.encode(), raw)

    def later(self, days: float) -> None:
        self.now_ms += round(days * 86_400_000)

    def state(self, org_id: str = ORG) -> dict[str, Any]:
        self.outputs += self.simulation.finish()
        return messages(self.outputs, TOPICS.state, org_id)[-1]

    def ready(self, funds: str | None = "1000.00", plan: str | None = None) -> "Desk":
        """Add an organization with a user and funds."""
        self.organization()
        self.user(plan=plan)
        if funds is not None:
            self.funds(funds)
        return self


def messages(records: list[LogRecord], topic: str, org_id: str | None = None) -> list[dict[str, Any]]:
    found = [msgspec.json.decode(r.value or b"null") for r in records if r.topic == topic]
    return [m for m in found if org_id is None or m["org_id"] == org_id]


def rated(records: list[LogRecord]) -> dict[str, Any]:
    """The only rated call among the records."""
    (call,) = messages(records, TOPICS.rated)
    return call


def dead(records: list[LogRecord]) -> str:
    """The code of the only record, which must be a dead letter."""
    (letter,) = records
    assert letter.topic == TOPICS.dead_letter
    return reason_of(letter.headers).code


def events(records: list[LogRecord]) -> list[str]:
    return [event["type"] for event in messages(records, TOPICS.event)]
