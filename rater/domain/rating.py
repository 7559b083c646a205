"""Decides what a call costs and who pays, and changes nothing (rules 4 to 15).

`decide` looks at an account and the catalog. It returns a `Decision`, which `calls` carries out, or raises `Rejected`.
"""

from typing import Final

from rater.domain.account import Account
from rater.domain.catalog import Catalog
from rater.domain.deck import PricedRow
from rater.domain.messages import Cdr
from rater.domain.moments import Month
from rater.domain.money import SUM_MICROS_MAX, billed_seconds, price_micros
from rater.domain.plans import IncludedMinutes, minutes_left
from rater.domain.rejection import Rejected
from rater.domain.rows import User

OUTBOUND: Final = "outbound"
CONFERENCE: Final = "conference-dial-out"
TOLL_FREE: Final = "toll-free-inbound"
INBOUND: Final = "inbound"
EMERGENCY: Final = "emergency"

#: Call type → service, before the called number is looked at (rule 7).
SERVICE_OF: Final = {
    "user_in": INBOUND,
    "conf_in": INBOUND,
    "ucap_in": INBOUND,
    "unassigned_in": INBOUND,
    "user_out": OUTBOUND,
    "user_out_conf": OUTBOUND,
    "user_out_transfer": OUTBOUND,
    "user_out_forwarding": OUTBOUND,
    "ucap_out": OUTBOUND,
    "conf_out": CONFERENCE,
    "emergency_out": EMERGENCY,
}


class Decision:
    """What a call is, what it costs (micros), and who pays.

    `included`: the allowance that covers the call, if there is one. `priced_s`: the billed seconds that no included minute
    covers. `is_payable`: the wallet pays the charge.
    """

    __slots__ = ("billed_s", "charge", "funded_by", "included", "is_payable", "priced_s", "reason", "row", "service")

    def __init__(
        self,
        service: str,
        funded_by: str,
        reason: str | None = None,
        row: PricedRow | None = None,
        included: IncludedMinutes | None = None,
        billed_s: int = 0,
        charge: int = 0,
    ) -> None:
        self.service = service
        self.funded_by = funded_by
        self.reason = reason
        self.row = row
        self.included = included
        self.billed_s = billed_s
        self.priced_s = billed_s if included is None else max(0, billed_s - 60 * included.minutes)
        self.charge = charge
        self.is_payable = funded_by != "unfunded"


_FREE: Final = {
    (service, reason): Decision(service, "free", reason)
    for service in (INBOUND, OUTBOUND, CONFERENCE, TOLL_FREE, EMERGENCY)
    for reason in ("unanswered", "inbound", "emergency", "on-net")
}


def decide(account: Account, catalog: Catalog, cdr: Cdr, answered_us: int, month: Month) -> Decision:
    """Decide on one call. Raises `Rejected` with bad_number, unknown_user or no_rate."""
    service = SERVICE_OF[cdr.call_type]
    callee = cdr.callee
    if service is INBOUND and (cdr.number_type == "toll-free" or account.numbers.get(callee) == "toll-free"):
        service = TOLL_FREE
    if cdr.duration_ms <= 0:
        return _FREE[service, "unanswered"]
    if service is INBOUND:
        return _FREE[service, "inbound"]
    if service is EMERGENCY:
        return _FREE[service, "emergency"]
    if service is not TOLL_FREE and callee in account.numbers:
        return _FREE[service, "on-net"]

    digits = callee[1:]
    if not (callee[:1] == "+" and 2 <= len(digits) <= 15 and digits.isascii() and digits.isdigit() and digits[0] != "0"):
        raise Rejected("bad_number", "callee: not an E.164 number")
    user = None
    if service is not TOLL_FREE:
        user_id = cdr.user_id
        user = None if user_id is None else account.user(user_id)
        if user is None:
            raise Rejected("unknown_user", f"user_id: {user_id!r} is no user of the organization")
    row = account.table(catalog.deck, service).find(digits, answered_us)
    if row is None:
        raise Rejected("no_rate", f"{callee}: no {service} rate on card {account.state.rate_card!r} at the answer")
    billed_s = billed_seconds(cdr.duration_ms, row.initial_s, row.increment_s)
    included = None if user is None else _include(account, catalog, user, service, row, billed_s, month)
    return _price(account, user, service, row, billed_s, included)


def _include(
    account: Account, catalog: Catalog, user: User, service: str, row: PricedRow, billed_s: int, month: Month
) -> IncludedMinutes | None:
    """The minutes that the user's plan includes, at most those left in the pool; None if no allowance covers the call."""
    plan_id = user.calling_plan if service is OUTBOUND else user.audio_conferencing
    plan = None if plan_id is None else catalog.plans.get(plan_id)
    if plan is None or plan.service != service:
        return None
    allowance = plan.allowance_for(row.country, row.number_type)
    if allowance is None:
        return None
    left = minutes_left(account.pools, plan, allowance, month.name, account.state.holders[plan.plan_id])
    return IncludedMinutes(plan.plan_id, allowance, min(left, (billed_s + 59) // 60))


def _price(
    account: Account, user: User | None, service: str, row: PricedRow, billed_s: int, included: IncludedMinutes | None
) -> Decision:
    """Included minutes pay first, then credit (rules 10 to 15). `user` is None where no licence matters."""
    minutes = 0 if included is None else included.minutes
    priced_s = billed_s - 60 * minutes
    if included is not None and priced_s <= 0:
        return Decision(service, "included", None, row, included, billed_s)
    charge = price_micros(row.rate_micros, priced_s, row.fee_micros, row.minimum_micros)
    if charge - account.wallet.balance > SUM_MICROS_MAX:  # not the call's fault: with another price it can be rated
        raise Rejected("no_rate", f"rate {row.rate_id!r} makes the call cost more than a wallet can owe")
    if user is not None and not user.communications_credits:
        funded_by, reason = "unfunded", "no_communications_credits_licence"
    else:
        funded_by, reason = "mixed" if minutes else "credit", None
    return Decision(service, funded_by, reason, row, included, billed_s, charge)
