"""What falls due on an account, and the commands for it: warnings and expiry of lots, further tries of a top-up.

Model. An organization's `Timers` are made from its state records, one after the other (`noticed`). They say when something is
due next (`next_due_us`), and by which commands (`take_due`). A lot goes through `STAGES`: a warning 30 days and one 7 days
ahead of its expiry, then the expiry. A top-up between two tries has one timer.

Invariants
- A stage is taken once: what was sent stays noted for as long as the state shows what it was sent for.
- Stages that were missed together (the timer was away, or is new) are taken as one, the latest: nobody is told of 30 days
  when 5 are left.
- A command follows from the organization, what it is about and the due time alone; its `command_id` and `issued_at` too. So
  a timer that is taken twice, whatever went wrong, gives the same bytes, which the account knows again.
"""

import msgspec
from msgspec import Struct

from rater.domain import command_records, moments
from rater.domain.command_records import CommandFields
from rater.domain.commands import WARNING_DAYS
from rater.domain.messages import Moment, Whole

#: Days before a lot's expiry at which something is due; at 0 it expires.
STAGES = (*WARNING_DAYS, 0)
_YEAR_MAX = 2300  # a lot may outlive the last record by a year


class LotSeen(Struct):
    """Of a lot in the state record: what timers go by."""

    lot_id: str
    expires_at: Moment


class AutoRechargeSeen(Struct):
    """Of auto-recharge in the state record: the last try of a top-up, and when the next is due where there is to be one."""

    recharge_id: str | None = None
    attempt: Whole | None = None
    next_attempt_at: Moment | None = None


class StateSeen(Struct):
    """Of the state record."""

    org_id: str
    lots: list[LotSeen]
    auto_recharge: AutoRechargeSeen
    updated_at: Moment


_decode = msgspec.json.Decoder(StateSeen).decode


def read_state(value: bytes) -> StateSeen:
    """A state record. Raises `ValueError` for what is none, whatever the bytes are."""
    try:
        seen = _decode(value)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    instants = [seen.updated_at, seen.auto_recharge.next_attempt_at, *(lot.expires_at for lot in seen.lots)]
    if not all(instant is None or 1970 <= instant.year < _YEAR_MAX for instant in instants):
        raise ValueError("an instant is out of range")
    return seen


class LotTimer(Struct, array_like=True):
    """A lot, when it was first seen, and how many of its stages have been taken."""

    lot_id: str
    expires_us: int
    seen_us: int
    taken: int = 0

    def due_us(self, stage: int) -> int:
        """When a stage is due: one that was over when the lot was first seen is due then."""
        return max(self.seen_us, self.expires_us - STAGES[stage] * moments.DAY_US)


class RetryTimer(Struct, array_like=True):
    """The next try of a top-up."""

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
    """The timers as of a newer state record. What it shows no more is forgotten, what is still there goes on."""
    seen_us = moments.to_us(state.updated_at)
    known = {} if before is None else {lot.lot_id: lot for lot in before.lots}
    lots = [known.get(lot.lot_id) or LotTimer(lot.lot_id, moments.to_us(lot.expires_at), seen_us) for lot in state.lots]
    retry = _retry(state.auto_recharge)
    if before is not None and before.retry is not None and retry is not None:
        retry.taken = before.retry.taken and before.retry.attempt == retry.attempt and before.retry.due_us == retry.due_us
    return Timers(state.org_id, lots, retry)


def next_due_us(timers: Timers) -> int | None:
    """When something is due next; None: nothing ever."""
    due = [lot.due_us(lot.taken) for lot in timers.lots if lot.taken < len(STAGES)]
    if timers.retry is not None and not timers.retry.taken:
        due.append(timers.retry.due_us)
    return min(due, default=None)


def take_due(timers: Timers, now_us: int) -> list[CommandFields]:
    """The commands for what is due by now, each once: the timers are marked."""
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
