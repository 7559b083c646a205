"""Commands about an organization, its users and its numbers."""

from rater.domain import moments
from rater.domain.account import Account
from rater.domain.commands.context import CommandContext, fields_of
from rater.domain.messages import NumberPut, NumberRemove, OrganizationPut, UserPut, UserRemove
from rater.domain.money import parse_micros
from rater.domain.rejection import Refused
from rater.domain.rows import User


def put_organization(context: CommandContext, account: Account, command: OrganizationPut) -> None:
    """Create or change an organization. Refused: currency_mismatch, invalid_field."""
    state = account.state
    if state.exists and command.currency != state.currency:
        raise Refused("currency_mismatch", f"the wallet is in {state.currency}; a wallet has one currency")
    try:
        moments.calendar(command.time_zone)
    except ValueError as error:
        raise Refused("invalid_field", f"time_zone: {error}") from None
    state.exists = True
    state.name = command.name
    state.country = command.country
    state.currency = command.currency
    state.time_zone = command.time_zone
    state.rate_card = command.rate_card
    state.offer = command.offer
    state.emails = command.emails
    state.low_balance = None if command.low_balance_amount is None else parse_micros(command.low_balance_amount)
    account.settings_changed()
    context.event_writer.event(account, "organization.changed", fields_of(command))


def put_user(context: CommandContext, account: Account, command: UserPut) -> None:
    """Create or change a user. Refused: unknown_plan."""
    licences = command.licences
    for plan_id in (licences.calling_plan, licences.audio_conferencing):
        if plan_id is not None and plan_id not in context.catalog.plans:
            raise Refused("unknown_plan", f"no plan {plan_id!r} in the catalog")
    user = User(
        command.usage_country,
        licences.phone_system,
        licences.calling_plan,
        licences.audio_conferencing,
        licences.communications_credits,
    )
    account.put_user(command.user_id, user)
    context.event_writer.event(account, "user.changed", {"change": "put", **fields_of(command)})
    context.event_writer.list_user(account, command.user_id, command)


def remove_user(context: CommandContext, account: Account, command: UserRemove) -> None:
    """Remove a user. Refused: unknown_user."""
    if account.user(command.user_id) is None:
        raise Refused("unknown_user", f"no user {command.user_id!r}")
    account.put_user(command.user_id, None)
    context.event_writer.event(account, "user.changed", {"change": "remove", **fields_of(command)})
    context.event_writer.list_user(account, command.user_id, None)


def put_number(context: CommandContext, account: Account, command: NumberPut) -> None:
    """Register a number. Refused: unknown_user."""
    if command.user_id is not None and account.user(command.user_id) is None:
        raise Refused("unknown_user", f"no user {command.user_id!r}")
    account.put_number(command.number, command.kind)
    context.event_writer.event(account, "organization.changed", {"change": "number.put", **fields_of(command)})
    context.event_writer.list_number(account, command.number, command)


def remove_number(context: CommandContext, account: Account, command: NumberRemove) -> None:
    """Remove a number. Refused: unknown_number."""
    if command.number not in account.numbers:
        raise Refused("unknown_number", f"{command.number} is not the organization's")
    account.put_number(command.number, None)
    context.event_writer.event(account, "organization.changed", {"change": "number.remove", **fields_of(command)})
    context.event_writer.list_number(account, command.number, None)
