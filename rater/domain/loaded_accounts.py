"""The accounts at work: read on demand, kept from batch to batch, written and published when a batch ends."""

from collections.abc import Callable
from typing import Final

from rater.domain.account import Account
from rater.domain.catalog import Catalog
from rater.domain.event_writer import EventWriter
from rater.domain.rejection import Rejected
from rater.domain.rows import AccountState, Rows
from rater.domain.standings import Standings
from rater.domain.state_record import state_message

ACCOUNTS_MAX: Final = 50_000


class LoadedAccounts:
    """The accounts of one partition that are in memory.

    `owns` says whether an organization's records belong to this partition. At most `accounts_max` accounts are kept from
    batch to batch. `newest_us` is the time of the newest record that changed an account.
    """

    __slots__ = (
        "_accounts",
        "_accounts_max",
        "_catalog",
        "_changed",
        "_event_writer",
        "_owns",
        "_rows",
        "_unpublished",
        "newest_us",
        "standings",
    )

    def __init__(
        self, rows: Rows, catalog: Catalog, event_writer: EventWriter, owns: Callable[[str], bool], accounts_max: int
    ) -> None:
        self._rows = rows
        self._catalog = catalog
        self._event_writer = event_writer
        self._owns = owns
        self._accounts_max = accounts_max
        self._accounts: dict[str, Account] = {}
        self._changed: dict[str, Account] = {}
        self._unpublished: dict[str, Account] = {}
        self.standings = Standings(rows)
        self.newest_us = 0

    def in_memory(self, org_id: str) -> Account | None:
        """An organization's account if it is in memory already."""
        return self._accounts.get(org_id)

    def load(self, org_id: str) -> Account | None:
        """An organization's account, or None if it has none. Raises `Rejected` if its records don't belong here."""
        account = self._accounts.get(org_id)
        if account is None:
            if not self._owns(org_id):
                raise Rejected("invalid_field", "key: in another partition than its hash (murmur2) says")
            account = Account.load(org_id, self._rows)
            if account is not None:
                self._accounts[org_id] = account
        return account

    def load_or_begin(self, org_id: str) -> Account:
        """As `load`, but an unknown organization gets an account that doesn't exist yet: its events are counted already."""
        account = self.load(org_id)
        if account is None:
            account = self._accounts[org_id] = Account(AccountState(org_id), self._rows)
        return account

    def changed(self, account: Account, now_us: int, events_before: int) -> None:
        """Note that a record changed the account. Its state is published at once if it emitted events, else at `flush`."""
        state = account.state
        state.updated_us = now_us
        if now_us > self.newest_us:
            self.newest_us = now_us
        self._changed[state.org_id] = account
        if state.seq == events_before:
            self._unpublished[state.org_id] = account
        else:
            self._unpublished.pop(state.org_id, None)
            self._publish(account)

    def flush(self) -> None:
        """Publish the states that are not out yet, and write the rows of the changed accounts."""
        for account in self._unpublished.values():
            self._publish(account)
        self._unpublished.clear()
        for account in self._changed.values():
            account.save()
            self.standings.note(account)
        self.standings.save()
        self._changed.clear()
        if len(self._accounts) > self._accounts_max:
            self._accounts.clear()

    def _publish(self, account: Account) -> None:
        if account.state.exists:
            self._event_writer.state_record(account, state_message(account, self._catalog))
