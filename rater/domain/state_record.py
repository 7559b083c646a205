"""The state record of an account, as switches and tools read it: balance, lots, pools, and what is allowed now (rule 24)."""

from typing import Any

from rater.domain import moments, recharge
from rater.domain.account import Account
from rater.domain.catalog import Catalog


def state_message(account: Account, catalog: Catalog) -> dict[str, Any]:
    """The message for the compacted state topic."""
    state, wallet, text = account.state, account.wallet, account.text
    status = account.status()
    served = status != "suspended"
    return {
        "org_id": state.org_id,
        "currency": state.currency,
        "balance": account.balance_text(),
        "overdraft": text(wallet.overdraft),
        "status": status,
        "lots": [
            {
                "lot_id": lot.lot_id,
                "remaining": text(lot.remaining),
                "amount": text(lot.amount),
                "purchased_at": moments.to_text(lot.purchased_us),
                "expires_at": moments.to_text(lot.expires_us),
            }
            for lot in wallet.lots
        ],
        "pools": _pools(account, catalog),
        "auto_recharge": _auto_recharge(account),
        "services": {"toll_free_inbound": served, "credit_calls": served},
        "seq": state.seq,
        "updated_at": moments.to_text(state.updated_us),
    }


def _pools(account: Account, catalog: Catalog) -> list[dict[str, Any]]:
    """Every pool of this month's plans, used or not, and those of past months that are still open."""
    state = account.state
    this_month = account.calendar.month_of(state.updated_us).name
    used = {key: pool.used for key, pool in account.pools.items() if pool.close_us > state.updated_us}
    totals: dict[tuple[str, str, str], int] = {}
    for plan_id, holders in state.holders.items():
        plan = catalog.plans.get(plan_id)
        for allowance in () if plan is None else plan.allowances:
            total = allowance.minutes_per_user * holders
            for month in {this_month, *[key[2] for key in used if key[:2] == (plan_id, allowance.allowance_id)]}:
                totals[plan_id, allowance.allowance_id, month] = total
    return [
        {
            "plan_id": key[0],
            "allowance_id": key[1],
            "month": key[2],
            "minutes_total": totals.get(key, 0),
            "minutes_used": used.get(key, 0),
        }
        for key in sorted({*totals, *used})
    ]


def _auto_recharge(account: Account) -> dict[str, Any]:
    auto, recharging = account.state.auto, account.state.recharging
    if auto is None:
        return {"enabled": False, "state": "disabled"}
    message: dict[str, Any] = {
        "enabled": auto.enabled,
        "trigger_amount": account.text(auto.trigger),
        "recharge_amount": account.text(auto.amount),
        "payment_method": auto.payment_method,
        "max_per_day": auto.max_per_day,
        "max_amount_per_month": None if auto.max_per_month is None else account.text(auto.max_per_month),
        "state": recharging.state if auto.enabled or recharging.state == "pending" else "disabled",
    }
    if recharging.state == "pending":
        message["recharge_id"] = recharge.recharge_id(account, recharging.episode)
        message["attempt"] = recharging.attempt
        if recharging.retry_us:
            message["next_attempt_at"] = moments.to_text(recharging.retry_us)
    return message
