"""From a call to what it costs and who pays: a decision, with nothing changed (rules 4 to 15).

`decide` is a pure question to an account and the catalog. Either it gives a `Decision` or it raises `Rejected`; `core`
then carries the decision out.
"""

from typing import Final

from rater.domain.account import Account
from rater.domain.catalog import Catalog
from rater.domain.deck import PricedRow
from rater.domain.messages import Cdr
from rater.domain.moments import Month
from rater.domain.money import SUM_MICROS_MAX, billed_seconds, price_micros
from rater.domain.plans import Allowance, Plan, minutes_left
from rater.domain.rejection import Rejected
from rater.domain.rows import User

OUTBOUND: Final = "outbound"
CONFERENCE: Final = "conference-dial-out"
TOLL_FREE: Final = "toll-free-inbound"
INBOUND: Final = "inbound"
EMERGENCY: Final = "emergency"

#: What a call type is, before its number is looked at (rule 7).
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
    """What a call is, costs (micros) and is paid from. `payable`: the wallet pays what is charged."""

    __slots__ = (
        "allowance",
        "billed_s",
        "charge",
        "funded_by",
        "included_minutes",
        "payable",
        "plan",
        "priced_s",
        "reason",
        "row",
        "service",
    )

    def __init__(
        self,
        service: str,
        funded_by: str,
        reason: str | None = None,
        row: PricedRow | None = None,
        plan: Plan | None = None,
        allowance: Allowance | None = None,
        billed_s: int = 0,
        included_minutes: int = 0,
        priced_s: int = 0,
        charge: int = 0,
        payable: bool = False,
    ) -> None:
        self.service = service
        self.funded_by = funded_by
        self.reason = reason
        self.row = row
        self.plan = plan
        self.allowance = allowance
        self.billed_s = billed_s
        self.included_minutes = included_minutes
        self.priced_s = priced_s
        self.charge = charge
        self.payable = payable


_FREE: Final = {
    (service, reason): Decision(service, "free", reason)
    for service in (INBOUND, OUTBOUND, CONFERENCE, TOLL_FREE, EMERGENCY)
    for reason in ("unanswered", "inbound", "emergency", "on-net")
}


def decide(account: Account, catalog: Catalog, cdr: Cdr, answered_us: int, month: Month) -> Decision:
    """Rate one call. Raises `Rejected` with bad_number, unknown_user or no_rate."""
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
    return _price(account, catalog, service, user, row, cdr.duration_ms, month)


def _price(
    account: Account, catalog: Catalog, service: str, user: User | None, row: PricedRow, duration_ms: int, month: Month
) -> Decision:
    """Included minutes first, then credit (rules 10 to 15). `user` is None where no licence matters."""
    billed_s = billed_seconds(duration_ms, row.initial_s, row.increment_s)
    priced_s = billed_s
    plan = allowance = None
    included = 0
    if user is not None:
        plan_id = user.calling_plan if service is OUTBOUND else user.audio_conferencing
        plan = None if plan_id is None else catalog.plans.get(plan_id)
        if plan is not None and plan.service == service:
            allowance = plan.allowance_for(row.country, row.number_type)
        if plan is not None and allowance is not None:
            minutes = (billed_s + 59) // 60
            left = minutes_left(account.pools, plan, allowance, month.name, account.state.holders[plan.plan_id])
            if left >= minutes:
                return Decision(service, "included", None, row, plan, allowance, billed_s, minutes)
            included = left
            priced_s = billed_s - 60 * left
    charge = price_micros(row.rate_micros, priced_s, row.fee_micros, row.minimum_micros)
    if charge - account.wallet.balance > SUM_MICROS_MAX:  # not the call is at fault, and with another price it is rated
        raise Rejected("no_rate", f"rate {row.rate_id!r} makes the call cost more than a wallet can owe")
    if user is not None and not user.communications_credits:
        funded_by, reason, payable = "unfunded", "no_communications_credits_licence", False
    else:
        funded_by, reason, payable = "mixed" if included else "credit", None, True
    return Decision(service, funded_by, reason, row, plan, allowance, billed_s, included, priced_s, charge, payable)
