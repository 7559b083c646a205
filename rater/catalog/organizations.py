"""Organizations as JSON: each with its users, numbers, funds and auto-recharge, turned into the commands that make it so.

`users` are single ones with a `user_id`, or groups of `count` alike, who are called user-1, user-2, … through all groups of the
organization. `funds` is the opening balance. A command's id is made of what it says, so that a file loaded twice does
nothing the second time.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from rater.catalog.documents import Document, objects
from rater.catalog.faults import Loaded
from rater.domain import messages, moments
from rater.domain.command_records import file_command
from rater.domain.money import parse_micros
from rater.domain.rejection import Rejected

_LICENCES = ("phone_system", "calling_plan", "audio_conferencing", "communications_credits")
_OWN = ("name", "country", "currency", "offer", "emails", "time_zone", "rate_card", "low_balance_amount")


class _Users(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One user, or `count` alike. What the fields mean, `messages.UserPut` says."""

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
    """The shape of a file's object; what the values may be is checked on the commands made of them."""

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


def check_organizations(text: str) -> Loaded:
    """Check a file of organizations; the rows are commands, in the order they must be given."""
    loaded = Loaded()
    seen: dict[str, int] = {}
    for document in objects(text, loaded.faults):
        try:
            organization = msgspec.convert(document.fields, _Organization)
        except msgspec.ValidationError as error:
            name = document.fields.get("org_id", "")
            loaded.faults.append(document.fault(f"{name}: {error}"))
            continue
        if organization.org_id in seen:
            loaded.faults.append(document.fault(f"{organization.org_id}: stands on line {seen[organization.org_id]} too"))
        seen[organization.org_id] = document.line
        loaded.faults += [document.fault(f"{organization.org_id}: {message}") for message in _faults(organization)]
        _add_commands(loaded, document, organization)
    return loaded


def _faults(organization: _Organization) -> Iterator[str]:
    """What no single command shows."""
    try:
        moments.calendar(organization.time_zone)
    except ValueError as error:
        yield f"time_zone: {error}"
    for i, group in enumerate(organization.users):
        if (group.user_id is None) == (group.count is None):
            yield f"users[{i}]: needs either user_id or count"
    users = [user_id for user_id, _ in _users(organization)]
    yield from (f"user {user_id!r} stands twice" for user_id in _repeated(users))
    numbers = [number.number for number in organization.numbers]
    yield from (f"number {number!r} stands twice" for number in _repeated(numbers))
    owners = {number.user_id for number in organization.numbers if number.user_id is not None}
    yield from (f"numbers: there is no user {user_id!r}" for user_id in sorted(owners - set(users)))


def _add_commands(loaded: Loaded, document: Document, organization: _Organization) -> None:
    for command in _commands(document, organization):
        try:
            row = file_command(organization.org_id, command)
        except Rejected as rejected:
            subject = command.get("user_id") or command.get("number") or ""
            what = " ".join(filter(None, (command["type"], subject)))
            loaded.faults.append(document.fault(f"{organization.org_id}: {what}: {rejected.message}"))
            continue
        loaded.rows.append((organization.org_id, row))


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
