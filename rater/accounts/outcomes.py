"""What a command led to: its outcome, read from the rater's events and dead letters, and put into words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from rater.domain import reading
from rater.domain.command_records import CommandFields
from rater.domain.dead_letters import reason_of
from rater.domain.rejection import Rejected

Result = Literal["done", "refused", "repeated", "pending"]


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """The outcome of one command.

    - `done`: `event` is the event it led to.
    - `refused`: `code` and `message` say why.
    - `repeated`: its id was used before, so it did nothing now. The other fields show the outcome of the first time, as far as
      the event topic still has it.
    - `pending`: published, but no worker has answered yet.
    """

    command: CommandFields
    result: Result
    event: dict[str, Any] | None = None
    code: str | None = None
    message: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the command has taken effect, now or the first time it was given."""
        return self.result in ("done", "repeated") and self.code is None

    def as_message(self) -> dict[str, Any]:
        """The outcome as JSON fields, for programs."""
        fields: dict[str, Any] = {"command_id": self.command["command_id"], "type": self.command["type"]}
        fields |= {"org_id": self.command["org_id"], "result": self.result, "event": self.event}
        if self.code is not None:
            fields |= {"code": self.code, "message": self.message}
        return fields


@dataclass(frozen=True, slots=True)
class OutcomeSummary:
    """The outcomes of many commands, sorted. `repeated` counts those that took effect the first time; `refused` includes
    repeated commands that were refused the first time."""

    done: int
    repeated: int
    refused: list[CommandOutcome]
    pending: list[CommandOutcome]

    @classmethod
    def of(cls, outcomes: Sequence[CommandOutcome]) -> "OutcomeSummary":
        """Sort outcomes."""
        return cls(
            done=sum(outcome.result == "done" for outcome in outcomes),
            repeated=sum(outcome.ok and outcome.result == "repeated" for outcome in outcomes),
            refused=[outcome for outcome in outcomes if outcome.code is not None],
            pending=[outcome for outcome in outcomes if outcome.result == "pending"],
        )


def outcome_of_event(command: CommandFields, event: dict[str, Any]) -> CommandOutcome:
    """The outcome that an event with the command's id shows."""
    if event["type"] == "command.refused":
        return CommandOutcome(command, "refused", None, event["data"]["code"], event["data"]["message"])
    return CommandOutcome(command, "done", event)


def outcome_of_letter(record: Any, command_topic: str, waiting: Mapping[str, CommandFields]) -> CommandOutcome | None:
    """The outcome that a dead letter shows; None unless it is, byte for byte, one of the commands `waiting` (by id)."""
    reason = reason_of(record.headers)
    if reason.topic != command_topic:
        return None
    try:
        envelope, _ = reading.read_envelope(record.value)
    except Rejected:
        return None
    command = waiting.get(envelope.command_id)
    if command is None or msgspec.json.encode(command) != record.value:
        return None
    return CommandOutcome(command, "refused", None, reason.code, reason.message)


def describe(outcome: CommandOutcome) -> str:
    """A command that took effect, in one line for people: its organization and what changed."""
    org_id = outcome.command["org_id"]
    if outcome.event is None:
        return f"{org_id}: already done before; the event that shows the outcome is no longer kept"
    before = "already done before: " if outcome.result == "repeated" else ""
    return f"{org_id}: {before}{_DESCRIBED[outcome.event['type']](outcome.event['data'])}"


def _organization(data: dict[str, Any]) -> str:
    match data.get("change"):
        case "number.put":
            return f"number {data['number']} set ({data['kind']}{', of ' + data['user_id'] if data['user_id'] else ''})"
        case "number.remove":
            return f"number {data['number']} removed"
        case _:
            return f"organization set: {data['name']}, {data['country']}, {data['currency']}, {data['time_zone']}"


def _auto_recharge(data: dict[str, Any]) -> str:
    if not data["enabled"]:
        return "auto-recharge is off"
    return (
        f"auto-recharge is on: below {data['trigger_amount']} it takes {data['recharge_amount']} from {data['payment_method']}"
    )


def _balance(data: dict[str, Any]) -> str:
    return f"balance {data['balance']} {data['currency']}"


_DESCRIBED: dict[str, Callable[[dict[str, Any]], str]] = {
    "organization.changed": _organization,
    "user.changed": lambda data: f"user {data['user_id']} {'set' if data['change'] == 'put' else 'removed'}",
    "funds.added": lambda data: f"{data['amount']} {data['currency']} added, {_balance(data)}",
    "funds.adjusted": lambda data: f"adjusted by {data['amount']} {data['currency']}, {_balance(data)}",
    "auto_recharge.changed": _auto_recharge,
    "call.voided": lambda data: (
        f"call {data['cdr_id']} voided: {data['amount']} {data['currency']} and {data['included_minutes']} included minutes "
        f"given back, {_balance(data)}"
    ),
}
