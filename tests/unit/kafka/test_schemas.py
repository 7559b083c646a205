"""The schemas match what the code reads and writes."""

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator

from rater.domain import messages, reading
from rater.domain.rejection import Rejected
from rater.kafka.log import LogRecord
from rater.kafka.schemas import EVENT_TYPES, as_file, schemas
from rater.kafka.topics import load_topics
from rater.resources import schemas_dir
from rater.simulation import simulate
from tests.builders import ORG, Desk
from tests.system.random_log import RandomLog

TOPICS = load_topics()
VALIDATORS = {
    topic.name: Draft202012Validator(json.loads((schemas_dir() / topic.schema).read_text()))
    for topic in TOPICS.definitions
    if topic.schema is not None
}
ASYNCAPI = yaml.safe_load((schemas_dir() / "asyncapi.yaml").read_text())
AT = "2025-10-01T11:00:00Z"
CALL: dict[str, Any] = {"cdr_id": "x", "org_id": ORG, "user_id": "u1", "call_type": "user_out", "callee": "+442079460000"}
CALL |= {"answered_at": AT, "duration_ms": 60_000}
DEEP: Any = [[[[[[[[1]]]]]]]]
DEAD_LETTERS: dict[str, tuple[str, Any]] = {
    "malformed_json": (ORG, b"{"),
    "too_large": (ORG, CALL | {"padding": "x" * 70_000}),
    "too_deep": (ORG, CALL | {"deep": DEEP}),
    "invalid_field": (ORG, CALL | {"call_type": "fax"}),
    "bad_number": (ORG, CALL | {"callee": "sip:alice"}),
    "conflicting_duplicate": (ORG, CALL | {"cdr_id": "rated"}),
    "period_closed": (ORG, CALL | {"answered_at": "2025-01-01T00:00:00Z"}),
    "unknown_organization": ("nobody", CALL | {"org_id": "nobody"}),
    "unknown_user": (ORG, CALL | {"user_id": "nobody"}),
    "no_rate": (ORG, CALL | {"callee": "+33123456789"}),
}
ENVELOPE = {"command_id": "c1", "org_id": ORG, "issued_at": AT}
LICENCES = {"phone_system": True, "calling_plan": "plan", "audio_conferencing": None, "communications_credits": True}
_COMMANDS: list[dict[str, Any]] = [
    {"type": "organization.put", "name": "Contoso", "country": "US", "currency": "USD", "offer": "commercial"}
    | {"emails": ["a@contoso.example"], "time_zone": "Europe/Paris", "rate_card": "x", "low_balance_amount": "5.00"},
    {"type": "user.put", "user_id": "u1", "usage_country": "US", "licences": LICENCES},
    {"type": "user.remove", "user_id": "u1"},
    {"type": "number.put", "number": "+14255550199", "kind": "service", "user_id": "u1"},
    {"type": "number.remove", "number": "+14255550199"},
    {"type": "funds.add", "amount": "20.00", "currency": "USD", "purchase_channel": "csp", "payment_reference": "p"},
    {"type": "funds.adjust", "amount": "-0.000001", "reason": "rounding"},
    {"type": "funds.expire", "as_of": AT},
    {"type": "funds.warn", "as_of": AT},
    {"type": "auto_recharge.put", "enabled": True, "trigger_amount": "5", "recharge_amount": "20"}
    | {"payment_method": "card", "max_per_day": 2, "max_amount_per_month": "100.00"},
    {"type": "recharge.succeeded", "recharge_id": "contoso:1", "amount": "20.00", "payment_reference": "p"},
    {"type": "recharge.failed", "recharge_id": "contoso:1", "code": "lost", "retryable": False},
    {"type": "recharge.retry", "recharge_id": "contoso:1", "attempt": 2},
    {"type": "call.void", "cdr_id": "x", "reason": "disputed"},
    {"type": "notification.sent", "notification_id": "n:1", "channel": "mail", "recipient": "a@b.example"},
    {"type": "notification.failed", "notification_id": "n:1", "channel": "mail", "recipient": "a@b.example", "reason": "550"},
]
COMMANDS = {command["type"]: command for command in _COMMANDS}
RATE = {"rate_id": "r", "service": "outbound", "prefix": "44", "destination": "UK", "country": "GB", "currency": "USD"}
RATE |= {"rate_per_minute": "0.013", "effective_from": AT}
ALLOWANCE = {"allowance_id": "a", "minutes_per_user": 60, "destinations": ["US"]}
PLAN = {"plan_id": "p", "name": "P", "service": "outbound", "allowances": [ALLOWANCE]}
INPUTS: dict[str, dict[str, Any]] = {"cdr": CALL, "rate": RATE, "plan": PLAN, "command": ENVELOPE | COMMANDS["funds.add"]}
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("cdr", {"cdr_id": ""}),
    ("cdr", {"cdr_id": "x" * 129}),
    ("cdr", {"duration_ms": "60"}),
    ("cdr", {"duration_ms": 31 * 86_400_000 + 1}),
    ("cdr", {"call_type": "fax"}),
    ("cdr", {"number_type": None}),
    ("rate", {"rate_per_minute": 0.013}),
    ("rate", {"rate_per_minute": "1e-2"}),
    ("rate", {"rate_per_minute": "-0.01"}),
    ("rate", {"rate_per_minute": "0.0000001"}),
    ("rate", {"prefix": "+44"}),
    ("rate", {"increment_s": 0}),
    ("rate", {"country": "GBR"}),
    ("plan", {"allowances": []}),
    ("plan", {"allowances": [ALLOWANCE | {"destinations": "US"}]}),
    ("plan", {"allowances": [ALLOWANCE | {"minutes_per_user": 0}]}),
    ("plan", {"service": "inbound"}),
    ("command", {"amount": 20}),
    ("command", {"purchase_channel": "reseller"}),
    ("command", {"type": "funds.burn"}),
]


def read_whole_command(value: bytes) -> object:
    _, payload = reading.read_envelope(value)
    return reading.read_command(payload)


READERS: dict[str, Callable[[bytes], object]] = {
    "cdr": reading.read_cdr,
    "rate": reading.read_rate,
    "plan": reading.read_plan,
    "command": read_whole_command,
}


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_file_matches_the_code(name: str) -> None:
    assert (schemas_dir() / name).read_bytes() == as_file(schemas()[name]), "run python -m rater.kafka.schemas"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_is_valid_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(schemas()[name])


def test_every_message_the_rater_writes_fits_its_schema() -> None:
    log = RandomLog(TOPICS, seed=7, cdrs=3000, organizations=5)
    written = schemas()
    validators = {t.name: Draft202012Validator(written[t.schema]) for t in TOPICS.definitions if t.schema is not None}
    seen: dict[str, int] = defaultdict(int)
    for record in simulate(TOPICS, [*log.catalog, *log.traffic]):
        if record.topic != TOPICS.dead_letter:
            validators[record.topic].validate(msgspec.json.decode(record.value or b"null"))
            seen[record.topic] += 1
    outputs = (TOPICS.rated, TOPICS.ledger, TOPICS.event, TOPICS.state, TOPICS.notification, TOPICS.recharge_request)
    assert all(seen[topic] for topic in (*outputs, TOPICS.directory)), dict(seen)


def test_asyncapi_has_every_public_topic_as_a_channel_with_its_schema() -> None:
    found = {}
    for channel in ASYNCAPI["channels"].values():
        (reference,) = channel["messages"].values()
        found[channel["address"]] = followed(reference)["payload"]["schema"]["$ref"]
    assert found == {topic.name: f"./{topic.schema}" for topic in TOPICS.definitions if topic.schema is not None}


def test_asyncapi_receives_what_others_write_and_sends_what_the_rater_writes() -> None:
    found = {followed(o["channel"])["address"]: o["action"] for o in ASYNCAPI["operations"].values()}
    public = [topic for topic in TOPICS.definitions if topic.schema is not None]
    assert found == {topic.name: "send" if topic.written_by == "rater" else "receive" for topic in public}


@pytest.mark.parametrize("code", sorted(DEAD_LETTERS))
def test_a_dead_letter_has_the_headers_asyncapi_describes(code: str) -> None:
    desk = Desk().ready()
    desk.rate("0.1")
    desk.call("rated")
    (letter,) = desk.give(desk.record(TOPICS.cdr, *DEAD_LETTERS[code]))
    headers = {name: value.decode() for name, value in letter.headers}
    assert headers["rater.error.code"] == code
    described = ASYNCAPI["components"]["messages"]["DeadLetter"]["headers"]
    Draft202012Validator(described | {"additionalProperties": False}).validate(headers)
    assert sorted(described["properties"]["rater.error.code"]["enum"]) == sorted(DEAD_LETTERS)


@pytest.mark.parametrize("message", [*COMMANDS.values()], ids=[*COMMANDS])
def test_a_command_of_the_contract_fits_the_schema_and_is_read(message: dict[str, Any]) -> None:
    command = ENVELOPE | message | {"of_a_later_version": [1]}
    VALIDATORS[TOPICS.command].validate(command)
    assert isinstance(reading.read_command(msgspec.json.encode(command)), messages.Command)


def test_every_command_of_the_contract_is_tested() -> None:
    known = {cls.__struct_config__.tag for cls in get_args(messages.AnyCommand)}
    assert {message["type"] for message in COMMANDS.values()} == known


@pytest.mark.parametrize(("use", "change"), FAULTS)
def test_the_schema_rejects_what_the_reader_rejects(use: str, change: dict[str, Any]) -> None:
    good = INPUTS[use]
    validator = VALIDATORS[getattr(TOPICS, use)]
    READERS[use](msgspec.json.encode(good | {"of_a_later_version": 1}))
    validator.validate(good | {"of_a_later_version": 1})
    with pytest.raises(Rejected):
        READERS[use](msgspec.json.encode(good | change))
    assert not validator.is_valid(good | change)


def test_every_type_of_event_occurs_and_fits_its_schema() -> None:
    written = everything_happens().outputs
    for record in written:
        if record.topic != TOPICS.dead_letter:
            VALIDATORS[record.topic].validate(msgspec.json.decode(record.value or b"null"))
    assert {event["type"] for event in decoded(written, TOPICS.event)} == set(EVENT_TYPES)


@pytest.mark.parametrize("use", ["rated", "ledger", "event", "state", "notification", "recharge_request", "directory"])
def test_an_output_schema_allows_no_other_field(use: str) -> None:
    topic = getattr(TOPICS, use)
    message = decoded(everything_happens().outputs, topic)[0]
    assert VALIDATORS[topic].is_valid(message)
    assert not VALIDATORS[topic].is_valid(message | {"unheard_of": 1})


def everything_happens() -> Desk:
    desk = Desk()
    desk.rate("1.00")
    desk.plan(minutes=5)
    desk.command("user.remove", user_id="nobody")  # refused: no organization yet
    desk.organization(emails=["admin@contoso.example"])
    desk.user(plan="plan")
    desk.user("u2", paid=False)
    desk.command("number.put", number="+14255550199", kind="service")
    desk.funds("10.00")
    desk.command("funds.adjust", amount="-1.00", reason="counted twice")
    auto = {"trigger_amount": "5.00", "recharge_amount": "20.00", "payment_method": "card"}
    desk.command("auto_recharge.put", enabled=True, max_per_day=2, **auto)
    desk.call("included", seconds=240)
    desk.call("mixed", seconds=120)
    desk.call("unfunded", user_id="u2")
    desk.call("free", seconds=0)
    desk.call("depleting", seconds=720)
    desk.command("recharge.succeeded", recharge_id=f"{ORG}:1", amount="20.00", payment_reference="p")
    desk.call("again", seconds=1200)
    desk.command("recharge.failed", recharge_id=f"{ORG}:2", code="lost", retryable=False)
    desk.command("auto_recharge.put", enabled=True, max_per_day=2, **auto)
    desk.command("call.void", cdr_id="again", reason="disputed")
    told = {"notification_id": "n:1", "channel": "mail", "recipient": "a@b.example"}
    desk.command("notification.sent", **told)
    desk.command("notification.failed", **told, reason="550 no such user")
    desk.command("funds.expire", as_of="2026-09-20T00:00:00Z")
    desk.command("funds.expire", as_of="2026-10-02T00:00:00Z")
    desk.command("number.remove", number="+14255550199")
    desk.command("user.remove", user_id="u2")
    desk.state()
    return desk


def decoded(records: list[LogRecord], topic: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(r.value or b"null") for r in records if r.topic == topic]


def followed(reference: dict[str, str]) -> dict[str, Any]:
    found: Any = ASYNCAPI
    for step in reference["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    assert isinstance(found, dict)
    return found
