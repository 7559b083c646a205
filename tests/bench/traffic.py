"""Traffic for benchmarks: the real rate deck, organizations with plans and funds, and calls like a busy operator's."""

import csv
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.resources import sample_rate_deck

_CALLEES = ("+1425555{:04d}", "+4420794{:05d}", "+4930{:07d}", "+3316{:07d}", "+81312{:06d}", "+6129{:07d}")
_CALL_TYPES = (*["user_out"] * 12, *["user_in"] * 4, "conf_out", "user_out_transfer", "conf_in")
_USERS = 20


def catalog(topics: Topics) -> Iterator[LogRecord]:
    """The deck of 6,592 prefixes for calls and for conferences, and a plan."""
    with sample_rate_deck().open(newline="") as deck:
        for line, (destination, number_type, country, prefix, price) in enumerate(csv.reader(deck)):
            for service in ("outbound", "conference-dial-out") if line else ():
                rate_id = f"{service}-{line}"
                rate = {
                    "rate_id": rate_id,
                    "service": service,
                    "prefix": prefix,
                    "destination": destination,
                    "country": country,
                }
                rate |= {"number_type": number_type, "currency": "USD", "rate_per_minute": price}
                yield _record(topics.rate, rate_id, _now_ms(), rate | {"effective_from": "2020-01-01T00:00:00Z"})
    allowances = [{"allowance_id": "near", "minutes_per_user": 3000, "destinations": ["US", "CA", "GB"]}]
    plan = {"plan_id": "near", "name": "Near", "service": "outbound", "allowances": allowances}
    yield _record(topics.plan, "near", _now_ms(), plan)


def accounts(topics: Topics, organizations: int) -> Iterator[LogRecord]:
    """Organizations with enough funds; half of their users have the plan."""
    commands = 0
    start_ms = _now_ms()
    for i in range(organizations):
        org_id = f"org-{i}"
        batch: list[dict[str, Any]] = [
            {"type": "organization.put", "name": org_id, "country": "US", "currency": "USD", "offer": "commercial"}
        ]
        for user in range(_USERS):
            licences = {"calling_plan": "near" if user % 2 else None, "communications_credits": user != 3}
            batch.append({"type": "user.put", "user_id": f"u{user}", "usage_country": "US", "licences": licences})
        funds = {"amount": "1000000.00", "currency": "USD", "purchase_channel": "web-direct", "payment_reference": "r"}
        batch.append({"type": "funds.add"} | funds)
        for command in batch:
            commands += 1
            command |= {"command_id": f"c{commands}", "org_id": org_id, "issued_at": "2025-01-01T00:00:00Z"}
            yield _record(topics.command, org_id, start_ms, command)


def small_accounts(topics: Topics, count: int) -> Iterator[LogRecord]:
    """Organizations with only a name and funds."""
    start_ms = _now_ms()
    for i in range(count):
        org_id = f"small-{i}"
        common = {"org_id": org_id, "issued_at": "2025-01-01T00:00:00Z"}
        put = {"type": "organization.put", "name": org_id, "country": "US", "currency": "USD", "offer": "commercial"}
        yield _record(topics.command, org_id, start_ms, {"command_id": f"p{i}"} | put | common)
        add = {"type": "funds.add", "amount": "100.00", "currency": "USD", "purchase_channel": "web-direct"}
        yield _record(topics.command, org_id, start_ms, {"command_id": f"f{i}", "payment_reference": "r"} | add | common)


def calls(topics: Topics, count: int, organizations: int, seed: int = 1, switch: str = "sbc1") -> Iterator[LogRecord]:
    """Calls of the last hour, in the order they ended. Another `switch` gives different calls."""
    draw = random.Random(seed)
    start_ms = _now_ms()
    start = datetime.fromtimestamp(start_ms // 1000, UTC) - timedelta(hours=1)
    encode = msgspec.json.Encoder().encode
    for i in range(count):
        org_id = f"org-{draw.randrange(organizations)}"
        callee = draw.choice(_CALLEES)
        cdr = {
            "cdr_id": f"{switch}:{i:016x}",
            "org_id": org_id,
            "user_id": f"u{draw.randrange(_USERS)}",
            "call_type": draw.choice(_CALL_TYPES),
            "number_type": "subscriber",
            "caller": "+14255550100",
            "callee": callee.format(draw.randrange(10 ** int(callee[-3]))),
            "answered_at": start + timedelta(milliseconds=i * 3_600_000 // count),
            "duration_ms": int(draw.expovariate(1 / 120_000)),
            "source": switch,
        }
        yield LogRecord(topics.cdr, start_ms + 1 + i // 100, org_id.encode(), encode(cdr))


def _record(topic: str, key: str, timestamp_ms: int, value: dict[str, Any]) -> LogRecord:
    return LogRecord(topic, timestamp_ms, key.encode(), msgspec.json.encode(value))


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp()) * 1000 - 3_600_000
