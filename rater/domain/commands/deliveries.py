"""Commands that report whether a mail or webhook was delivered."""

from rater.domain.account import Account
from rater.domain.commands.context import CommandContext, fields_of
from rater.domain.messages import NotificationFailed, NotificationSent


def note_delivery(context: CommandContext, account: Account, command: NotificationSent | NotificationFailed) -> None:
    """Report that a notification was delivered, or that it failed."""
    type_ = "notification.sent" if isinstance(command, NotificationSent) else "notification.failed"
    context.event_writer.event(account, type_, fields_of(command))
