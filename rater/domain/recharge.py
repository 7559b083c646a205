"""Balance crossings and auto-recharge (rules 20 to 23).

`balance_changed` is called after every change of the balance. It announces the thresholds that were crossed, and begins a
top-up if one is due. Each top-up is an episode: it is requested, tried up to `TRIES_MAX` times, and then credited or given up.
The account records it, under an id made of organization and episode number, before the payment side is asked.
"""

from typing import Final

from rater.domain import moments
from rater.domain.account import Account
from rater.domain.event_writer import EventWriter
from rater.domain.money import SUM_MICROS_MAX

#: Failures that a further try can't cure (rule 22).
HARD_CODES: Final = frozenset({"expired_card", "lost", "stolen", "closed", "authentication_required"})
#: How long after each soft failure the next try is due; there is one further try for each gap (rule 22).
RETRY_GAPS_US: Final = (3_600 * moments.SECOND_US, 6 * 3_600 * moments.SECOND_US, moments.DAY_US)
TRIES_MAX: Final = 1 + len(RETRY_GAPS_US)
FAILED_EPISODES_MAX: Final = 100


def recharge_id(account: Account, episode: int) -> str:
    """The id of an episode (rule 20)."""
    return f"{account.state.org_id}:{episode}"


def balance_changed(event_writer: EventWriter, account: Account, before: int) -> None:
    """Announce each threshold the balance has crossed, and begin a top-up if one is due (rules 20, 23).

    `before`: the balance before the change, in micros.
    """
    state = account.state
    balance = account.wallet.balance
    threshold = account.threshold()
    text = account.text
    if threshold is not None and before >= threshold > balance:
        event_writer.event(
            account,
            "balance.low",
            {"balance": account.balance_text(), "threshold": text(threshold), "currency": state.currency},
        )
    if before > 0 >= balance:
        state.depleted = True
        event_writer.event(account, "balance.depleted", {"balance": account.balance_text(), "currency": state.currency})
    elif balance > 0 >= before and state.depleted:
        state.depleted = False
        event_writer.event(account, "balance.restored", {"balance": account.balance_text(), "currency": state.currency})
    consider(event_writer, account)


def consider(event_writer: EventWriter, account: Account) -> None:
    """Begin a top-up if the balance is below the trigger, no other is pending, and no cap is reached (rules 20, 21)."""
    state = account.state
    auto, recharging = state.auto, state.recharging
    if auto is None or not auto.enabled or recharging.state != "idle" or account.wallet.balance >= auto.trigger:
        return
    day = moments.day_of(event_writer.now_us)
    month = account.calendar.month_of(event_writer.now_us).name
    if recharging.day != day:
        recharging.day, recharging.day_count = day, 0
    if recharging.month != month:
        recharging.month, recharging.month_micros = month, 0
    cap = None
    if auto.max_per_day is not None and recharging.day_count >= auto.max_per_day:
        cap, until = "max_per_day", str(day)
    elif auto.max_per_month is not None and recharging.month_micros + auto.amount > auto.max_per_month:
        cap, until = "max_amount_per_month", month
    if cap is not None:
        mark = f"{cap} {until}"
        if recharging.capped != mark:  # announced once a day or month, not at every call
            recharging.capped = mark
            event_writer.event(account, "auto_recharge.capped", {"cap": cap, "balance": account.balance_text()})
        return
    recharging.episode += 1
    recharging.state = "pending"
    recharging.attempt = 0
    recharging.amount = auto.amount
    recharging.day_count += 1
    recharging.month_micros = min(recharging.month_micros + auto.amount, SUM_MICROS_MAX)
    _ask(event_writer, account)


def retry_if_due(event_writer: EventWriter, account: Account) -> None:
    """Try a softly declined top-up again if that is due; called for every record of the organization (rule 22)."""
    recharging = account.state.recharging
    if recharging.state == "pending" and 0 < recharging.retry_us <= event_writer.now_us:
        _ask(event_writer, account)


def failed(event_writer: EventWriter, account: Account, code: str, retryable: bool, command_id: str) -> None:
    """Handle a failed try of the pending top-up: plan the next one, or switch auto-recharge off (rule 22)."""
    auto, recharging = account.state.auto, account.state.recharging
    assert auto is not None
    hard = code in HARD_CODES or not retryable
    again = not hard and recharging.attempt < TRIES_MAX and auto.enabled
    data = {
        "recharge_id": recharge_id(account, recharging.episode),
        "amount": account.text(recharging.amount),
        "currency": account.state.currency,
        "code": code,
        "attempt": recharging.attempt,
        "final": not again,
        "command_id": command_id,
    }
    if again:
        recharging.retry_us = event_writer.now_us + RETRY_GAPS_US[recharging.attempt - 1]
        data["next_attempt_at"] = moments.to_text(recharging.retry_us)
        event_writer.event(account, "recharge.failed", data)
        return
    event_writer.event(account, "recharge.failed", data)
    give_up(event_writer, account)
    recharging.state = "disabled"
    reason = "hard_failure" if hard else "tries_used_up" if auto.enabled else "switched_off"
    event_writer.event(account, "auto_recharge.disabled", {"reason": reason, "code": code})


def give_up(event_writer: EventWriter, account: Account) -> None:
    """End the pending top-up without its money: it no longer counts towards the month's cap."""
    recharging = account.state.recharging
    recharging.failed = [*recharging.failed, recharging.episode][-FAILED_EPISODES_MAX:]
    if recharging.month == account.calendar.month_of(event_writer.now_us).name:
        recharging.month_micros = max(0, recharging.month_micros - recharging.amount)
    recharging.retry_us = 0


def _ask(event_writer: EventWriter, account: Account) -> None:
    recharging = account.state.recharging
    recharging.attempt += 1
    recharging.retry_us = 0
    assert 1 <= recharging.attempt <= TRIES_MAX, recharging
    id_ = recharge_id(account, recharging.episode)
    event_writer.event(
        account,
        "recharge.requested",
        {
            "recharge_id": id_,
            "amount": account.text(recharging.amount),
            "currency": account.state.currency,
            "attempt": recharging.attempt,
        },
    )
    event_writer.recharge_request(account, id_)
