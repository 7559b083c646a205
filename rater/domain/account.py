"""The account of an organization: the aggregate that one record at a time changes.

What is kept: one row an account (`AccountState`), one a user, one a number, and one a call or command remembered. Users and
calls are read when they are asked for, so that an organization of 100,000 users costs a batch no more than one of ten.

Invariants
- `state.seq` is the number of events that went out.
- `state.holders[plan]` is the number of users whose licences name the plan.
- `state.wallet` holds its own (`wallet.Wallet.check`), checked before every row is written and after every row is read.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from rater.domain import moments, money
from rater.domain.currencies import CURRENCY_DIGITS
from rater.domain.deck import Deck, PrefixTable
from rater.domain.plans import Pool, PoolKey
from rater.domain.wallet import Part, Wallet


class Rows(Protocol):
    """Where rows are kept: one partition's key-value state."""

    def get(self, key: bytes) -> bytes | None:
        """A row, or None."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Rows in the order of their keys."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Write a row."""
        ...

    def delete(self, key: bytes) -> None:
        """Take a row away."""
        ...

    def append(self, day: int, key: bytes, value: bytes) -> None:
        """Write a row that may be forgotten once `expire` passes the day."""
        ...

    def expire(self, before_day: int) -> None:
        """Appended rows of earlier days may be forgotten."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows under a prefix."""
        ...


class User(Struct, array_like=True, gc=False):
    """A user's licences (rule 15, and which plan is whose)."""

    usage_country: str
    phone_system: bool
    calling_plan: str | None
    audio_conferencing: str | None
    communications_credits: bool


class Call(Struct, array_like=True, gc=False):
    """What is remembered of a rated call: to know it again (rule 26) and to take it back (rule 19)."""

    digest: bytes
    forget_us: int
    voided: bool = False
    overdrawn: int = 0
    included_minutes: int = 0
    pool: PoolKey | None = None
    parts: list[Part] = []


class AutoRecharge(Struct):
    """How the wallet is topped up by itself; micros."""

    enabled: bool
    trigger: int
    amount: int
    payment_method: str
    max_per_day: int | None
    max_per_month: int | None


class Recharging(Struct):
    """Where auto-recharge stands (rules 20 to 22).

    `episode` counts top-ups begun; `state` is idle, pending (one in flight, or between two tries of it) or disabled (a hard
    failure). `retry_us`: when the next try of the pending one is due, 0 when one is in flight. `day`, `month`: what the
    caps count. `failed`: episodes that ended without money, should the payment side say otherwise later.
    """

    state: str = "idle"
    episode: int = 0
    attempt: int = 0
    amount: int = 0
    retry_us: int = 0
    day: int = 0
    day_count: int = 0
    month: str = ""
    month_micros: int = 0
    capped: str = ""
    failed: list[int] = []


class AccountState(Struct):
    """The row of an account."""

    org_id: str
    exists: bool = False
    name: str = ""
    country: str = ""
    currency: str = "USD"
    time_zone: str = "UTC"
    rate_card: str = "default"
    offer: str = ""
    emails: list[str] = []
    low_balance: int | None = None
    wallet: Wallet = msgspec.field(default_factory=Wallet)
    depleted: bool = False
    pools: list[Pool] = []
    holders: dict[str, int] = {}
    auto: AutoRecharge | None = None
    recharging: Recharging = msgspec.field(default_factory=Recharging)
    seq: int = 0
    updated_us: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(AccountState).decode
_decode_user = msgspec.msgpack.Decoder(User).decode
decode_call = msgspec.msgpack.Decoder(Call).decode
encode_call = _encode


class Account:
    """An account at work: its row, and what is derived from it or read on demand."""

    __slots__ = (
        "_balance",
        "_balance_text",
        "_rows",
        "_tables",
        "_users",
        "calendar",
        "call_prefix",
        "command_prefix",
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
        org = state.org_id.encode()
        framed = len(org).to_bytes(2, "big") + org  # so that no two (organization, id) make the same row key
        self.state = state
        self.wallet = state.wallet
        self.key = org
        self.row_key = b"a" + org
        self.user_prefix = b"u" + framed
        self.call_prefix = b"c" + framed
        self.command_prefix = b"k" + framed
        self.pools: dict[PoolKey, Pool] = {(p.plan_id, p.allowance_id, p.month): p for p in state.pools}
        self.numbers: dict[str, str] = {}
        self._rows = rows
        self._users: dict[str, User | None] = {}
        self._balance = -1
        self._balance_text = ""
        self.settings_changed()

    @classmethod
    def load(cls, org_id: str, rows: Rows) -> "Account | None":
        """Read an account, or None where there is no such row."""
        row = rows.get(b"a" + org_id.encode())
        if row is None:
            return None
        account = cls(_decode_state(row), rows)
        account.wallet.check()
        prefix = b"n" + account.user_prefix[1:]
        account.numbers = {key[len(prefix) :].decode(): kind.decode() for key, kind in rows.scan(prefix)}
        return account

    def save(self) -> None:
        """Write the account's row; months that are closed go."""
        self.wallet.check()
        state = self.state
        for key in [key for key, pool in self.pools.items() if pool.close_us <= state.updated_us]:
            del self.pools[key]
        state.pools = list(self.pools.values())
        self._rows.put(self.row_key, _encode(state))

    def settings_changed(self) -> None:
        """Derive anew what depends on the organization's settings."""
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
        """An amount in the organization's currency."""
        return money.format_repeating(micros, self.digits)

    def balance_text(self) -> str:
        """The balance, written."""
        balance = self.wallet.balance
        if balance != self._balance:
            self._balance = balance
            self._balance_text = money.format_micros(balance, self.digits)
        return self._balance_text

    def threshold(self) -> int | None:
        """Below this the balance is low: the trigger, or the organization's own amount without auto-recharge (rule 23)."""
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
            user = self._users[user_id] = None if row is None else _decode_user(row)
            return user

    def put_user(self, user_id: str, user: User | None) -> None:
        """Make, change or (None) take away a user, and count who holds which plan (rule 11)."""
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
            self._rows.put(key, _encode(user))

    def put_number(self, number: str, kind: str | None) -> None:
        """Register a number of the organization's own or (None) take it away."""
        key = b"n" + self.user_prefix[1:] + number.encode()
        if kind is None:
            del self.numbers[number]
            self._rows.delete(key)
        else:
            self.numbers[number] = kind
            self._rows.put(key, kind.encode())


def _plans(user: User | None) -> set[str]:
    """The plans a user holds, each once."""
    if user is None:
        return set()
    return {plan_id for plan_id in (user.calling_plan, user.audio_conferencing) if plan_id is not None}
