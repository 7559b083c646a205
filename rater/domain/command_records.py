"""How each sender writes its commands: the one place that builds the JSON of a command.

An account remembers every `command_id` with a digest of the command's bytes. The same id with the same bytes does nothing; with
other bytes it is a `conflicting_duplicate`. So every function here gives the same bytes for the same arguments, and its ids
follow from what the command says. Don't reorder fields: a sender of another version must write the same bytes.

| sender | functions | result |
| --- | --- | --- |
| operator (command line, web page) | `operator_command` | dict, checked |
| file of users, file of organizations | `file_row_command`, `file_command` | dict, checked |
| timer agent | `retry_due`, `warning_due`, `expiry_due` | dict |
| recharge agent, payment webhooks | `recharge_succeeded`, `recharge_failed` | bytes |
| notification agent | `notification_sent`, `notification_failed` | bytes |

"Checked" means read back as the rating agent will read it; these functions raise `Rejected` if the contract doesn't allow the
command. Agents write from the rater's own records and cut free text to the contract's lengths.
"""

import re
from datetime import datetime
from hashlib import blake2b, sha256
from typing import Any, Final

import msgspec

from rater.domain import moments, reading
from rater.domain.outputs import Notification, RechargeRequest

#: A command's fields by name, in the order they are written.
CommandFields = dict[str, Any]

#: `issued_at` of commands whose id doesn't say when it was made. A repeat must have the same bytes, so the clock can't be used.
FIXED_ISSUED_AT: Final = "2025-01-01T00:00:00Z"

_OPERATOR_ID: Final = re.compile(r"\Acli-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-")
_ID_CHARACTERS_MAX: Final = 128
_TEXT_CHARACTERS_MAX: Final = 256

_encode: Final = msgspec.json.Encoder().encode


def operator_command_id(made_at: datetime, unique: str) -> str:
    """An id for an operator's command. `made_at` (UTC) becomes its `issued_at`; `unique` keeps it apart from all other ids."""
    return f"cli-{made_at:%Y%m%dT%H%M%SZ}-{unique}"


def operator_command(type_: str, org_id: str, command_id: str, **fields: Any) -> CommandFields:
    """A command of an operator; fields that are None are left out.

    `issued_at` is the time in the id if `operator_command_id` made it, else `FIXED_ISSUED_AT`. Raises `Rejected`.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    command = {"command_id": command_id, "type": type_, "org_id": org_id, "issued_at": _issued_at(command_id), **given}
    _check(command)
    return command


def file_row_command(type_: str, org_id: str, load_id: str, **fields: Any) -> CommandFields:
    """The command for one row of a file of users. Its id is made of the load's id and the row's content. Raises `Rejected`."""
    digest = sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()[:24]
    return operator_command(type_, org_id, f"{load_id}:{digest}", **fields)


def file_command(org_id: str, fields: CommandFields) -> CommandFields:
    """A command from a file of organizations; `fields` include its `type`. Its id is made of its content. Raises `Rejected`."""
    command = {"org_id": org_id, "issued_at": FIXED_ISSUED_AT} | fields
    command["command_id"] = "load:" + sha256(msgspec.json.encode(command, order="sorted")).hexdigest()[:24]
    _check(command)
    return command


def retry_due(org_id: str, recharge_id: str, attempt: int, due_us: int) -> CommandFields:
    """Make try `attempt` of a recharge (rule 22). `due_us`: since the epoch."""
    fields = {"recharge_id": recharge_id, "attempt": attempt}
    return _due(org_id, "recharge.retry", f"{recharge_id} {attempt}", due_us, fields)


def warning_due(org_id: str, lot_id: str, due_us: int) -> CommandFields:
    """Warn that a lot expires soon (rule 18), as seen at `due_us`."""
    return _due(org_id, "funds.warn", lot_id, due_us, {"as_of": moments.to_text(due_us)})


def expiry_due(org_id: str, lot_id: str, due_us: int) -> CommandFields:
    """Forfeit what has expired by `due_us` (rule 18); `lot_id` is the lot whose time has come."""
    return _due(org_id, "funds.expire", lot_id, due_us, {"as_of": moments.to_text(due_us)})


def recharge_succeeded(request: RechargeRequest, payment_reference: str) -> bytes:
    """The money of a recharge was taken. The gateway's response and its webhook give the same bytes."""
    return _encode(
        _recharge_outcome(request, "succeeded")
        | {
            "amount": request.amount,
            "currency": request.currency,
            "payment_reference": payment_reference[:_TEXT_CHARACTERS_MAX],
        }
    )


def recharge_failed(request: RechargeRequest, code: str, *, retryable: bool) -> bytes:
    """The money was not taken. `retryable`: a later try may succeed (rule 22)."""
    outcome = {"code": code[:_TEXT_CHARACTERS_MAX], "retryable": retryable}
    return _encode(_recharge_outcome(request, "failed") | outcome)


def notification_sent(note: Notification, channel: str, recipient: str, now_us: int) -> bytes:
    """The other side took the mail or webhook."""
    return _encode(_delivery("notification.sent", note, channel, recipient) | _issued(now_us))


def notification_failed(note: Notification, channel: str, recipient: str, reason: str, now_us: int) -> bytes:
    """The mail or webhook can't be delivered and won't be tried again."""
    delivery = _delivery("notification.failed", note, channel, recipient)
    return _encode(delivery | {"reason": reason[:_TEXT_CHARACTERS_MAX]} | _issued(now_us))


def _check(command: CommandFields) -> None:
    _, payload = reading.read_envelope(_encode(command))
    reading.read_command(payload)


def _issued_at(command_id: str) -> str:
    made = _OPERATOR_ID.match(command_id)
    if made is None:
        return FIXED_ISSUED_AT
    year, month, day, hour, minute, second = made.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"


def _due(org_id: str, type_: str, about: str, due_us: int, fields: CommandFields) -> CommandFields:
    due = moments.to_text(due_us)
    digest = blake2b(f"{org_id} {about}".encode(), digest_size=8).hexdigest()
    return {"command_id": f"timer:{type_}:{due}:{digest}", "type": type_, "org_id": org_id, "issued_at": due, **fields}


def _recharge_outcome(request: RechargeRequest, result: str) -> CommandFields:
    return {
        "command_id": f"payment:{request.episode}:{request.attempt}:{result}",  # unique within the organization
        "type": f"recharge.{result}",
        "org_id": request.org_id,
        "issued_at": request.requested_at,
        "recharge_id": request.recharge_id,
        "attempt": request.attempt,
    }


def _delivery(type_: str, note: Notification, channel: str, recipient: str) -> CommandFields:
    command_id = f"notified:{channel}:{recipient}:{note.notification_id}"
    if len(command_id) > _ID_CHARACTERS_MAX:
        command_id = f"notified:{blake2b(command_id.encode(), digest_size=16).hexdigest()}"
    return {
        "type": type_,
        "command_id": command_id,
        "org_id": note.org_id,
        "notification_id": note.notification_id,
        "channel": channel,
        "recipient": recipient,
    }


def _issued(now_us: int) -> CommandFields:
    return {"issued_at": moments.to_text(now_us)}
