"""The rows that accounts are kept in: their keys, their contents, and where they are kept.

Money is in micros, an instant in microseconds since the epoch. Every key of a partition's state begins with a letter:

| key | row |
| --- | --- |
| `a` org_id | `AccountState` |
| `u` org user_id | `User` |
| `n` org number | the number's kind |
| `c` org cdr_id | `Handled`, appended |
| `k` org command_id | `Handled`, appended |
| `t` | counts of accounts (`standings`) |
| `f` topic:partition | the first offset whose catalog faults are not reported yet; in partition 0 |

`org` is the org_id after its length in two bytes, so that no two pairs of organization and id have the same key.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

PoolKey = tuple[str, str, str]  # plan_id, allowance_id, month


ACCOUNT_PREFIX = b"a"
STANDINGS_KEY = b"t"


def account_key(org_id: str) -> bytes:
    """The key of an account's row."""
    return ACCOUNT_PREFIX + org_id.encode()


def user_prefix(org_id: str) -> bytes:
    """What the keys of an organization's users begin with; the user_id follows."""
    return b"u" + _framed(org_id)


def number_prefix(org_id: str) -> bytes:
    """What the keys of an organization's numbers begin with; the number follows."""
    return b"n" + _framed(org_id)


def call_prefix(org_id: str) -> bytes:
    """What the keys of an organization's calls begin with; the cdr_id follows."""
    return b"c" + _framed(org_id)


def command_prefix(org_id: str) -> bytes:
    """What the keys of an organization's commands begin with; the command_id follows."""
    return b"k" + _framed(org_id)


def catalog_fault_key(topic: str, partition: int) -> bytes:
    """The key of the mark up to where a catalog partition's faults are reported."""
    return f"f{topic}:{partition}".encode()


def _framed(org_id: str) -> bytes:
    org = org_id.encode()
    return len(org).to_bytes(2, "big") + org


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
        """Write a row that may be forgotten once `expire` has passed the day (days since the epoch)."""
        ...

    def expire(self, before_day: int) -> None:
        """Allow appended rows of earlier days to be forgotten."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows under a prefix."""
        ...


class Lot(Struct):
    """The money of one purchase: micros left of the amount bought. `warned_days`: how many days ahead the last warning was."""

    lot_id: str
    remaining: int
    amount: int
    purchased_us: int
    expires_us: int
    warned_days: int = 0


class Part(Struct, frozen=True, array_like=True, gc=False):
    """What a lot gave to a charge, and what is needed to give it back even if the lot is gone by then."""

    lot_id: str
    micros: int
    amount: int
    purchased_us: int
    expires_us: int


class Funds(Struct):
    """A wallet's lots in the order they are spent, its overdraft and its balance; micros."""

    lots: list[Lot] = []
    overdraft: int = 0
    balance: int = 0


class Pool(Struct):
    """The minutes used of an allowance in a month. `noticed_percent`: the last threshold that an event was emitted for."""

    plan_id: str
    allowance_id: str
    month: str
    close_us: int
    used: int = 0
    noticed_percent: int = 0


class User(Struct, array_like=True, gc=False):
    """A user's licences (rules 10, 15)."""

    usage_country: str
    phone_system: bool
    calling_plan: str | None
    audio_conferencing: str | None
    communications_credits: bool


class Handled(Struct, array_like=True, gc=False):
    """What is remembered of a call or command: enough to recognize a repeat (rule 26) and to void the call (rule 19).

    `forget_us`: when it may be forgotten. The other fields are a call's: what it took from the wallet and from its pool.
    """

    digest: int
    forget_us: int
    voided: bool = False
    overdrawn: int = 0
    included_minutes: int = 0
    pool: PoolKey | None = None
    parts: list[Part] = []


class AutoRecharge(Struct):
    """How the wallet is topped up automatically; amounts in micros."""

    enabled: bool
    trigger: int
    amount: int
    payment_method: str
    max_per_day: int | None
    max_per_month: int | None


class Recharging(Struct):
    """The progress of auto-recharge (rules 20 to 22).

    `episode` counts the top-ups begun. `state` is idle, pending (a try is in flight, or the next one is due later) or disabled
    (after a hard failure). `retry_us`: when the next try is due; 0 while one is in flight. `day`, `month`: the periods that
    `day_count` and `month_micros` count for, against the caps. `capped`: the cap that was announced last. `failed`: the
    episodes that ended without money, in case the money comes after all.
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
    wallet: Funds = msgspec.field(default_factory=Funds)
    depleted: bool = False
    pools: list[Pool] = []
    holders: dict[str, int] = {}
    auto: AutoRecharge | None = None
    recharging: Recharging = msgspec.field(default_factory=Recharging)
    seq: int = 0
    updated_us: int = 0


encode_row = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(AccountState).decode
decode_user = msgspec.msgpack.Decoder(User).decode
decode_handled = msgspec.msgpack.Decoder(Handled).decode
