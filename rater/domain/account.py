"""The account of an organization: the aggregate that one record at a time changes.

Its row is read whole. Users and calls are read on demand, so an organization of 100,000 users costs a batch no more than one
of ten.

Invariants
- `state.seq` is the number of events that were emitted.
- `state.holders[plan]` is the number of users whose licences name the plan.
- `wallet` has invariants of its own (`Wallet.check`), checked whenever the row is read or written. While the account is in
  memory, `wallet` is current and `state.wallet` is not.
"""

from rater.domain import moments, money
from rater.domain.currencies import CURRENCY_DIGITS
from rater.domain.deck import Deck, PrefixTable
from rater.domain.rows import (
    AccountState,
    Pool,
    PoolKey,
    Rows,
    User,
    account_key,
    call_prefix,
    command_prefix,
    decode_state,
    decode_user,
    encode_row,
    number_prefix,
    user_prefix,
)
from rater.domain.wallet import Wallet


class Account:
    """An account in memory: its row, and what is derived from it or read on demand.

    `counted_as`: the status, and whether the account is overdrawn, as `standings` has counted it; None if it has not.
    """

    __slots__ = (
        "_balance",
        "_balance_text",
        "_rows",
        "_tables",
        "_users",
        "calendar",
        "call_prefix",
        "command_prefix",
        "counted_as",
        "digits",
        "key",
        "numbers",
        "pools",
        "row_key",
        "state",
        "user_prefix",
        "wallet",
        "zero",
    )

    def __init__(self, state: AccountState, rows: Rows) -> None:
        org_id = state.org_id
        self.state = state
        self.wallet = Wallet(state.wallet)
        self.key = org_id.encode()
        self.row_key = account_key(org_id)
        self.user_prefix = user_prefix(org_id)
        self.call_prefix = call_prefix(org_id)
        self.command_prefix = command_prefix(org_id)
        self.pools: dict[PoolKey, Pool] = {(p.plan_id, p.allowance_id, p.month): p for p in state.pools}
        self.numbers: dict[str, str] = {}
        self._rows = rows
        self._users: dict[str, User | None] = {}
        self._balance = -1
        self._balance_text = ""
        self.counted_as: tuple[str, bool] | None = None
        self.settings_changed()

    @classmethod
    def load(cls, org_id: str, rows: Rows) -> "Account | None":
        """Read an account; None if there is no such row."""
        row = rows.get(account_key(org_id))
        if row is None:
            return None
        account = cls(decode_state(row), rows)
        account.wallet.check()
        if account.state.exists:
            account.counted_as = (account.status(), account.wallet.overdraft > 0)
        prefix = number_prefix(org_id)
        account.numbers = {key[len(prefix) :].decode(): kind.decode() for key, kind in rows.scan(prefix)}
        return account

    def save(self) -> None:
        """Write the account's row, without the pools of closed months."""
        self.wallet.check()
        state = self.state
        for key in [key for key, pool in self.pools.items() if pool.close_us <= state.updated_us]:
            del self.pools[key]
        state.wallet = self.wallet.row()
        state.pools = list(self.pools.values())
        self._rows.put(self.row_key, encode_row(state))

    def settings_changed(self) -> None:
        """Derive again what depends on the organization's settings."""
        self.calendar = moments.calendar(self.state.time_zone)
        self.digits = CURRENCY_DIGITS[self.state.currency]
        self.zero = money.format_micros(0, self.digits)
        self._balance = self.wallet.balance
        self._balance_text = self.text(self._balance)
        self._tables: dict[str, PrefixTable] = {}

    def table(self, deck: Deck, service: str) -> PrefixTable:
        """The rows that price this organization's calls of a service (rules 2, 8)."""
        table = self._tables.get(service)
        if table is None:
            table = self._tables[service] = deck.table(self.state.rate_card, service, self.state.currency)
        return table

    def text(self, micros: int) -> str:
        """An amount as text, with the digits of the organization's currency."""
        return money.format_repeating(micros, self.digits)

    def balance_text(self) -> str:
        """The balance as text."""
        balance = self.wallet.balance
        if balance != self._balance:
            self._balance = balance
            self._balance_text = money.format_micros(balance, self.digits)
        return self._balance_text

    def threshold(self) -> int | None:
        """The balance is low below this (rule 23): the trigger, or without auto-recharge the organization's own amount."""
        auto = self.state.auto
        return auto.trigger if auto is not None and auto.enabled else self.state.low_balance

    def status(self) -> str:
        """`active`, `low` or `suspended` (rule 24)."""
        balance = self.wallet.balance
        if balance <= 0:
            return "suspended"
        threshold = self.threshold()
        return "low" if threshold is not None and balance < threshold else "active"

    def user(self, user_id: str) -> User | None:
        """A user, or None."""
        try:
            return self._users[user_id]
        except KeyError:
            row = self._rows.get(self.user_prefix + user_id.encode())
            user = self._users[user_id] = None if row is None else decode_user(row)
            return user

    def put_user(self, user_id: str, user: User | None) -> None:
        """Create or change a user, or (None) remove it, and count the holders of its plans (rule 11)."""
        before = self.user(user_id)
        holders = self.state.holders
        for plan_id in _plans(before):
            holders[plan_id] -= 1
            if holders[plan_id] == 0:
                del holders[plan_id]
        for plan_id in _plans(user):
            holders[plan_id] = holders.get(plan_id, 0) + 1
        key = self.user_prefix + user_id.encode()
        self._users[user_id] = user
        if user is None:
            self._rows.delete(key)
        else:
            self._rows.put(key, encode_row(user))

    def put_number(self, number: str, kind: str | None) -> None:
        """Register a number of the organization, or (None) remove it."""
        key = number_prefix(self.state.org_id) + number.encode()
        if kind is None:
            del self.numbers[number]
            self._rows.delete(key)
        else:
            self.numbers[number] = kind
            self._rows.put(key, kind.encode())


def _plans(user: User | None) -> list[str]:
    """The plans a user holds, each once. Not a set, whose order would make the account's row differ from process to process."""
    if user is None:
        return []
    return list(dict.fromkeys([plan_id for plan_id in (user.calling_plan, user.audio_conferencing) if plan_id is not None]))
