"""A rated call made with names.

`RatedCall` takes its fields by position seven times faster than by name (0.2 and 1.3 µs of some 10 µs per call). Here the names
cost nothing: this module is compiled, so the names of a call to it are resolved when it is built. The order of the fields
stands in this one place, next to their names, and `tests/unit/domain/test_rated_call.py` checks every field.
"""

from datetime import datetime

from rater.domain.outputs import LotAmount, RatedCall


def rated_call(
    *,
    cdr_id: str,
    org_id: str,
    user_id: str | None,
    call_type: str,
    caller: str | None,
    callee: str,
    answered_at: datetime,
    duration_ms: int,
    service: str,
    destination: str | None,
    destination_country: str | None,
    rate_id: str | None,
    plan_id: str | None,
    allowance_id: str | None,
    billed_s: int,
    included_minutes: int,
    priced_s: int,
    rate_per_minute: str | None,
    connection_fee: str | None,
    charge: str,
    collected: str,
    currency: str,
    funded_by: str,
    reason: str | None,
    lots: list[LotAmount],
    overdraft: str,
    balance_after: str,
    version: int,
    rated_at: str,
) -> RatedCall:
    """The message; see the contract for what each field means."""
    return RatedCall(
        cdr_id,
        org_id,
        user_id,
        call_type,
        caller,
        callee,
        answered_at,
        duration_ms,
        service,
        destination,
        destination_country,
        rate_id,
        plan_id,
        allowance_id,
        billed_s,
        included_minutes,
        priced_s,
        rate_per_minute,
        connection_fee,
        charge,
        collected,
        currency,
        funded_by,
        reason,
        lots,
        overdraft,
        balance_after,
        version,
        rated_at,
    )
