"""How many accounts are active, low and suspended (rule 24), and how many are overdrawn.

The counts are kept as accounts change, in a row of their own that is written together with the accounts' rows. So they are
right after any crash, and known at once after any restart.

Invariant: the sum over all statuses is the number of accounts that exist.
"""

import msgspec

from rater.domain.account import Account
from rater.domain.counts import Metric
from rater.domain.rows import ACCOUNT_PREFIX, STANDINGS_KEY, Rows, decode_state

_STATUSES = ("active", "low", "suspended")
_OVERDRAWN = "overdrawn"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, int]).decode


class Standings:
    """The counts of one partition's accounts."""

    __slots__ = ("_changed", "_counts", "_rows")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._changed = False
        row = rows.get(STANDINGS_KEY)
        self._counts: dict[str, int] = _counted(rows) if row is None else _decode(row)

    def note(self, account: Account) -> None:
        """Count an account by its status now, instead of the one it was counted by before."""
        if not account.state.exists:
            return
        now = (account.status(), account.wallet.overdraft > 0)
        if now == account.counted_as:
            return
        if account.counted_as is not None:
            self._add(account.counted_as, -1)
        self._add(now, 1)
        account.counted_as = now
        self._changed = True

    def save(self) -> None:
        """Write the counts if they have changed."""
        if self._changed:
            assert min(self._counts.values()) >= 0, self._counts
            self._rows.put(STANDINGS_KEY, _encode(self._counts))
            self._changed = False

    def gauges(self) -> dict[Metric, int]:
        """`accounts` by status and `accounts_overdrawn`."""
        found: dict[Metric, int] = {("accounts", status): self._counts.get(status, 0) for status in _STATUSES}
        found["accounts_overdrawn",] = self._counts.get(_OVERDRAWN, 0)
        return found

    def _add(self, standing: tuple[str, bool], more: int) -> None:
        status, overdrawn = standing
        self._counts[status] = self._counts.get(status, 0) + more
        if overdrawn:
            self._counts[_OVERDRAWN] = self._counts.get(_OVERDRAWN, 0) + more


def _counted(rows: Rows) -> dict[str, int]:
    """The counts of a state that was written before counts were kept."""
    found: dict[str, int] = {}
    for _, row in rows.scan(ACCOUNT_PREFIX):
        account = Account(decode_state(row), rows)
        if account.state.exists:
            found[account.status()] = found.get(account.status(), 0) + 1
            if account.wallet.overdraft > 0:
                found[_OVERDRAWN] = found.get(_OVERDRAWN, 0) + 1
    return found
