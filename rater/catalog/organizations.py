"""Checks JSON files of organizations, and turns each organization into the commands that create it.

An organization has users, numbers, funds and auto-recharge. An entry of `users` is one user with a `user_id`, or `count` users
with the same licences, who are named user-1, user-2, … through all entries of the organization. `funds` is the opening balance.
A command's id is made of its content, so loading a file again does nothing.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from rater.catalog.documents import Document, objects
from rater.catalog.faults import CheckedFile
from rater.domain import messages, moments
from rater.domain.command_records import file_command
from rater.domain.money import parse_micros
from rater.domain.rejection import Rejected

_LICENCES = ("phone_system", "calling_plan", "audio_conferencing", "communications_credits")
_OWN = ("name", "country", "currency", "offer", "emails", "time_zone", "rate_card", "low_balance_amount")


class _Users(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One user, or `count` users with the same licences. See `messages.UserPut` for the fields."""

    user_id: str | None = None
    count: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    usage_country: str | None = None
    phone_system: bool = False
    calling_plan: str | None = None
    audio_conferencing: str | None = None
    communications_credits: bool = False


class _Number(Struct, forbid_unknown_fields=True, omit_defaults=True):
    number: str
    kind: str
    user_id: str | None = None


class _Organization(Struct, forbid_unknown_fields=True):
    """The shape of an object in the file. Values are checked on the commands made of them."""

    org_id: messages.Id
    name: str
    country: str
    currency: str
    offer: str
    emails: list[str] = []
    time_zone: str = "UTC"
    rate_card: str = "default"
    low_balance_amount: str | None = None
    users: list[_Users] = []
    numbers: list[_Number] = []
    funds: messages.Amount = "0"
    auto_recharge: dict[str, Any] | None = None


def check_organizations(text: str) -> CheckedFile:
    """Check a file of organizations. The rows are commands, in the order in which to publish them."""
    checked = CheckedFile()
    seen: dict[str, int] = {}
    for document in objects(text, checked.faults):
        try:
            organization = msgspec.convert(document.fields, _Organization)
        except msgspec.ValidationError as error:
            name = document.fields.get("org_id", "")
            checked.faults.append(document.fault(f"{name}: {error}"))
            continue
        if organization.org_id in seen:
            checked.faults.append(document.fault(f"{organization.org_id}: is also on line {seen[organization.org_id]}"))
        seen[organization.org_id] = document.line
        checked.faults += [document.fault(f"{organization.org_id}: {message}") for message in _faults(organization)]
        _add_commands(checked, document, organization)
    return checked


def _faults(organization: _Organization) -> Iterator[str]:
    """Faults that no single command shows."""
    try:
        moments.calendar(organization.time_zone)
    except ValueError as error:
        yield f"time_zone: {error}"
    for i, group in enumerate(organization.users):
        if (group.user_id is None) == (group.count is None):
            yield f"users[{i}]: needs either user_id or count"
    users = [user_id for user_id, _ in _users(organization)]
    yield from (f"user {user_id!r} appears twice" for user_id in _repeated(users))
    numbers = [number.number for number in organization.numbers]
    yield from (f"number {number!r} appears twice" for number in _repeated(numbers))
    owners = {number.user_id for number in organization.numbers if number.user_id is not None}
    yield from (f"numbers: there is no user {user_id!r}" for user_id in sorted(owners - set(users)))


def _add_commands(checked: CheckedFile, document: Document, organization: _Organization) -> None:
    for command in _commands(document, organization):
        try:
            row = file_command(organization.org_id, command)
        except Rejected as rejected:
            subject = command.get("user_id") or command.get("number") or ""
            what = " ".join(filter(None, (command["type"], subject)))
            checked.faults.append(document.fault(f"{organization.org_id}: {what}: {rejected.message}"))
            continue
        checked.rows.append((organization.org_id, row))


def _commands(document: Document, organization: _Organization) -> Iterator[dict[str, Any]]:
    yield {"type": "organization.put", **{name: document.fields[name] for name in _OWN if name in document.fields}}
    for user_id, group in _users(organization):
        licences = {name: value for name, value in msgspec.to_builtins(group).items() if name in _LICENCES}
        country = group.usage_country or organization.country
        yield {"type": "user.put", "user_id": user_id, "usage_country": country, "licences": licences}
    for number in organization.numbers:
        yield {"type": "number.put", **msgspec.to_builtins(number)}
    if parse_micros(organization.funds):
        purchase = {"amount": organization.funds, "currency": organization.currency, "purchase_channel": "web-direct"}
        yield {"type": "funds.add", **purchase, "payment_reference": "opening balance"}
    if organization.auto_recharge is not None:
        yield {**organization.auto_recharge, "type": "auto_recharge.put"}


def _users(organization: _Organization) -> Iterator[tuple[str, _Users]]:
    counted = 0
    for group in organization.users:
        if group.user_id is not None:
            yield group.user_id, group
            continue
        for _ in range(group.count or 0):
            counted += 1
            yield f"user-{counted}", group


def _repeated(names: list[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
