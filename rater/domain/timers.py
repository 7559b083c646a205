"""What falls due on an account, and the commands for it: warnings and expiry of lots, further tries of a top-up.

Model: an organization's `Timers` follow its state records, one after the other (`noticed`). They say when something is due next
(`next_due_us`), and give the commands for it (`take_due`). A lot goes through `STAGES`: a warning 30 days and another 7 days
before its expiry, then the expiry. A top-up has one timer while it waits for its next try.

Invariants
- A stage is taken once: it stays marked as taken as long as the state shows its lot.
- If several stages were missed (the timer was down, or is new), only the latest is taken: there is no warning of 30 days
  when 5 are left.
- A command, with its `command_id` and `issued_at`, depends only on the organization, its subject and the due time. So a timer
  that is taken twice, whatever went wrong, gives the same bytes, which the account recognizes as a repeat.
"""

import msgspec
from msgspec import Struct

from rater.domain import command_records, moments
from rater.domain.command_records import CommandFields
from rater.domain.messages import Moment, Whole
from rater.domain.wallet import WARNING_DAYS

#: Days before a lot's expiry at which something is due; at 0 it expires.
STAGES = (*WARNING_DAYS, 0)
_YEAR_MAX = 2300  # a lot may outlive the last record by a year


class LotSeen(Struct):
    """The fields of a lot in the state record that timers need."""

    lot_id: str
    expires_at: Moment


class AutoRechargeSeen(Struct):
    """The fields of auto-recharge that timers need: the last try of a top-up, and when the next is due, if there is one."""

    recharge_id: str | None = None
    attempt: Whole | None = None
    next_attempt_at: Moment | None = None


class StateSeen(Struct):
    """The fields of a state record that timers need."""

    org_id: str
    lots: list[LotSeen]
    auto_recharge: AutoRechargeSeen
    updated_at: Moment


_decode = msgspec.json.Decoder(StateSeen).decode


def read_state(value: bytes) -> StateSeen:
    """Read a state record. Raises `ValueError` if the bytes are not one."""
    try:
        seen = _decode(value)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    instants = [seen.updated_at, seen.auto_recharge.next_attempt_at, *(lot.expires_at for lot in seen.lots)]
    if not all(instant is None or 1970 <= instant.year < _YEAR_MAX for instant in instants):
        raise ValueError("an instant is out of range")
    return seen


class LotTimer(Struct, array_like=True):
    """The timer of a lot: when the lot was first seen, and how many of its stages were taken."""

    lot_id: str
    expires_us: int
    seen_us: int
    taken: int = 0

    def due_us(self, stage: int) -> int:
        """When a stage is due; if that was before the lot was first seen, when it was first seen."""
        return max(self.seen_us, self.expires_us - STAGES[stage] * moments.DAY_US)


class RetryTimer(Struct, array_like=True):
    """The timer of a top-up's next try."""

    recharge_id: str
    attempt: int
    due_us: int
    taken: bool = False


class Timers(Struct, array_like=True):
    """All timers of an organization."""

    org_id: str
    lots: list[LotTimer] = []
    retry: RetryTimer | None = None


def noticed(before: Timers | None, state: StateSeen) -> Timers:
    """The timers after a newer state record: those of lots it still shows are kept, others are dropped or added."""
    seen_us = moments.to_us(state.updated_at)
    known = {} if before is None else {lot.lot_id: lot for lot in before.lots}
    lots = [known.get(lot.lot_id) or LotTimer(lot.lot_id, moments.to_us(lot.expires_at), seen_us) for lot in state.lots]
    retry = _retry(state.auto_recharge)
    if before is not None and before.retry is not None and retry is not None:
        retry.taken = before.retry.taken and before.retry.attempt == retry.attempt and before.retry.due_us == retry.due_us
    return Timers(state.org_id, lots, retry)


def next_due_us(timers: Timers) -> int | None:
    """When something is due next; None if nothing is."""
    due = [lot.due_us(lot.taken) for lot in timers.lots if lot.taken < len(STAGES)]
    if timers.retry is not None and not timers.retry.taken:
        due.append(timers.retry.due_us)
    return min(due, default=None)


def take_due(timers: Timers, now_us: int) -> list[CommandFields]:
    """The commands for what is due by now; marks it as taken."""
    org_id, retry = timers.org_id, timers.retry
    commands = []
    if retry is not None and not retry.taken and retry.due_us <= now_us:
        retry.taken = True
        commands.append(command_records.retry_due(org_id, retry.recharge_id, retry.attempt, retry.due_us))
    for lot in timers.lots:
        reached = sum(lot.due_us(stage) <= now_us for stage in range(len(STAGES)))
        if reached > lot.taken:
            lot.taken = reached
            due = command_records.warning_due if STAGES[reached - 1] else command_records.expiry_due
            commands.append(due(org_id, lot.lot_id, lot.due_us(reached - 1)))
    return commands


def _retry(auto: AutoRechargeSeen) -> RetryTimer | None:
    if auto.recharge_id is None or auto.attempt is None or auto.next_attempt_at is None:
        return None
    return RetryTimer(auto.recharge_id, auto.attempt + 1, moments.to_us(auto.next_attempt_at))
