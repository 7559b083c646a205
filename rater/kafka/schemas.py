"""Generates the JSON Schemas in `schemas/` from the messages that the code reads and writes, so that they can't drift apart.

`python -m rater.kafka.schemas` rewrites the files; a test checks that they match this module. Input schemas allow unknown
fields, which the rater ignores; output schemas allow none.
"""

import sys
from pathlib import Path
from typing import Any, get_args

import msgspec

from rater.domain import messages, outputs
from rater.domain.money import AMOUNT_PATTERN
from rater.kafka.topics import load_topics
from rater.resources import schemas_dir

Schema = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
# No limit on the digits before the point: each input amount has one, but a sum may exceed it.
_WRITTEN_AMOUNT = r"^-?(0|[1-9][0-9]*)(\.[0-9]{1,6})?$"
_AMOUNT: Schema = {"type": "string", "pattern": _WRITTEN_AMOUNT, "description": "Money, a decimal string (rule 1)."}
_MOMENT: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$",
    "description": "RFC 3339, UTC, ending in Z (rule 3).",
}
_READ_MOMENT: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339 with a zone (rule 3)."}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_YES_NO: Schema = {"type": "boolean"}

#: Output fields that take one of a few words, and the minimum of output fields that count.
_WORDS: dict[str, list[str | None]] = {
    "account": ["wallet", "sales", "usage", "forfeited", "adjustments"],
    "call_type": list(get_args(messages.CallType)),
    "funded_by": ["free", "included", "mixed", "credit", "unfunded"],
    "kind": ["purchase", "recharge", "charge", "adjustment", "expiry", "void"],
    "reason": ["unanswered", "inbound", "emergency", "on-net", "no_communications_credits_licence", None],
    "service": ["inbound", "outbound", "toll-free-inbound", "conference-dial-out", "emergency"],
}
_LEAST = {"attempt": 1, "billed_s": 0, "episode": 1, "included_minutes": 0, "priced_s": 0, "seq": 1, "version": 1}

EVENT_TYPES = (
    "organization.changed",
    "user.changed",
    "command.refused",
    "funds.added",
    "funds.adjusted",
    "balance.low",
    "balance.depleted",
    "balance.restored",
    "allowance.low",
    "allowance.exhausted",
    "recharge.requested",
    "recharge.succeeded",
    "recharge.failed",
    "auto_recharge.changed",
    "auto_recharge.capped",
    "auto_recharge.disabled",
    "credit.expiring",
    "credit.expired",
    "call.unfunded",
    "call.voided",
    "notification.sent",
    "notification.failed",
)


def schemas() -> dict[str, Schema]:
    """Map of file name to schema, for every topic that has one."""
    topics = load_topics()
    made = {
        topics.cdr: _of(messages.Cdr),
        topics.command: _of(messages.AnyCommand, issued_at=_READ_MOMENT),
        topics.plan: _of(messages.Plan),
        topics.rate: _of(messages.Rate),
        topics.rated: _written(outputs.RatedCall),
        topics.ledger: _written(outputs.Transaction),
        topics.event: _written(outputs.Event),
        topics.notification: _written(outputs.Notification),
        topics.recharge_request: _written(outputs.RechargeRequest),
        topics.directory: _written(outputs.UserEntry | outputs.NumberEntry),
        topics.state: _state(),
        topics.dead_letter: {
            "$comment": "The original bytes, whatever they are. Headers: __connect.errors.topic, .partition, .offset, "
            ".exception.message; rater.error.code, rater.error.retryable (true or false); and the record's own."
        },
    }
    for name in (topics.event, topics.notification):
        types = EVENT_TYPES if name == topics.event else sorted(outputs.NOTIFIED)
        made[name]["$defs"]["Event" if name == topics.event else "Notification"]["properties"]["type"] = {"enum": list(types)}
    found = {}
    for topic in topics.definitions:
        if topic.schema is not None:
            head = {"$schema": _DRAFT, "title": topic.name, "description": topic.description}
            found[topic.schema] = head | made[topic.name]
    return found


def write(directory: Path) -> None:
    """Write all schema files."""
    for name, schema in schemas().items():
        (directory / name).write_bytes(as_file(schema))


def as_file(schema: Schema) -> bytes:
    """A schema as the content of its file. Pattern anchors change from Python's dialect to ECMAScript's."""
    text = msgspec.json.encode(schema, order="deterministic").replace(rb"\\A", b"^").replace(rb"\\Z", b"$")
    return msgspec.json.format(text, indent=2) + b"\n"


def _of(message: Any, **more: Schema) -> Schema:
    """An input's schema: objects allow unknown fields. `more`: fields of the envelope, which the command structs leave out."""
    schema = msgspec.json.schema(message)
    for definition in schema.get("$defs", {}).values():
        if more and "command_id" in definition.get("properties", {}):
            definition["properties"] |= more
            definition["required"] = sorted({*definition["required"], *more})
    return schema


def _written(message: Any) -> Schema:
    """An output's schema: objects allow no other fields; amounts and instants have their patterns."""
    schema = msgspec.json.schema(message)
    for definition in schema["$defs"].values():
        definition["additionalProperties"] = False
        for name, field in definition["properties"].items():
            if name in ("amount", "charge", "collected", "overdraft", "balance_after"):
                field |= _AMOUNT
            elif name in ("rate_per_minute", "connection_fee"):
                definition["properties"][name] = {"anyOf": [_AMOUNT, {"type": "null"}]}
            elif name in ("at", "answered_at", "rated_at", "requested_at"):
                field |= _MOMENT
            elif name in _WORDS and not _is_enum(field):
                definition["properties"][name] = {"enum": _WORDS[name]}
            elif name in _LEAST:
                field["minimum"] = _LEAST[name]
    return schema


def _is_enum(field: Schema) -> bool:
    return any("enum" in either for either in (field, *field.get("anyOf", ())))


def _state() -> Schema:
    lot = {"lot_id": _TEXT, "remaining": _AMOUNT, "amount": _AMOUNT, "purchased_at": _MOMENT, "expires_at": _MOMENT}
    pool = {"plan_id": _TEXT, "allowance_id": _TEXT, "month": {"type": "string", "pattern": r"^\d{4}-\d{2}$"}}
    cap = {"type": ["string", "null"], "pattern": AMOUNT_PATTERN}
    auto_recharge = {
        "enabled": _YES_NO,
        "trigger_amount": _AMOUNT,
        "recharge_amount": _AMOUNT,
        "payment_method": _TEXT,
        "max_per_day": {"type": ["integer", "null"]},
        "max_amount_per_month": cap,
        "state": {"enum": ["idle", "pending", "disabled"]},
        "recharge_id": _TEXT,
        "attempt": {"type": "integer", "minimum": 1},
        "next_attempt_at": _MOMENT,
    }
    return _object(
        {
            "org_id": _TEXT,
            "currency": _TEXT,
            "balance": _AMOUNT,
            "overdraft": _AMOUNT,
            "status": {"enum": ["active", "low", "suspended"]},
            "lots": {"type": "array", "items": _object(lot)},
            "pools": {"type": "array", "items": _object(pool | {"minutes_total": _COUNT, "minutes_used": _COUNT})},
            "auto_recharge": _object(auto_recharge, required=["enabled", "state"]),
            "services": _object({"toll_free_inbound": _YES_NO, "credit_calls": _YES_NO}),
            "seq": _COUNT,
            "updated_at": _MOMENT,
        }
    )


def _object(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else schemas_dir())
