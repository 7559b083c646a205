"""Runs a command: from its record to its outcome, which is an event or nothing if it is a repeat."""

from rater.domain import recharge
from rater.domain.commands.context import CommandContext
from rater.domain.commands.handlers import COMMAND_TYPES, HANDLERS
from rater.domain.counts import Counts
from rater.domain.idempotency import digest_of, forget_command_us
from rater.domain.loaded_accounts import LoadedAccounts
from rater.domain.messages import OrganizationPut
from rater.domain.outputs import Record
from rater.domain.reading import check_key_and_time, read_command, read_envelope
from rater.domain.rejection import Refused, Rejected
from rater.domain.rows import Handled


class CommandRunner:
    """Runs commands one by one."""

    def __init__(self, context: CommandContext, accounts: LoadedAccounts, counts: Counts) -> None:
        self._context = context
        self._accounts = accounts
        self._counts = counts

    def run(self, record: Record, catalog_is_current: bool) -> bool:
        """Run a command, unless it is a repeat. Raises `Rejected` if it is too faulty to be answered by an event.

        Returns False, with nothing changed, if the command names a plan that a newer catalog may have.
        """
        idempotency, event_writer = self._context.idempotency, self._context.event_writer
        envelope, payload = read_envelope(record.value)
        check_key_and_time(record, envelope.org_id.encode())
        account = self._accounts.load_or_begin(envelope.org_id)
        key = account.command_prefix + envelope.command_id.encode()
        now_us = record.timestamp * 1000
        digest = digest_of(payload)
        if idempotency.is_repeat(key, digest, now_us, "command_id: used before with other content"):
            self._counts.add(("duplicates", "command"))
            return True
        event_writer.open(record.timestamp)
        events_before = account.state.seq
        try:
            command = read_command(payload)
            if not (account.state.exists or isinstance(command, OrganizationPut)):
                raise Refused("unknown_organization", f"no organization {envelope.org_id!r}")
            HANDLERS[type(command)](self._context, account, command)
        except (Rejected, Refused) as fault:
            if fault.code == "unknown_plan" and not catalog_is_current:
                return False
            data = {
                "command_id": envelope.command_id,
                "command_type": envelope.type,
                "code": fault.code,
                "message": fault.message,
            }
            event_writer.event(account, "command.refused", data)
            self._counts.add(("commands", envelope.type if envelope.type in COMMAND_TYPES else "unknown", "refused"))
            self._counts.add(("refused", fault.code))
        else:
            self._counts.add(("commands", envelope.type, "done"))
        recharge.retry_if_due(event_writer, account)
        idempotency.remember(key, Handled(digest, forget_command_us(now_us)))
        self._accounts.changed(account, event_writer.now_us, events_before)
        return True
