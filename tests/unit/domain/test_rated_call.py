"""A rated call has every field of the contract, each with its own value."""

from tests.builders import Desk, rated


def test_a_call_paid_by_minutes_credit_and_overdraft_shows_how() -> None:
    desk = Desk()
    desk.plan(minutes=1)
    desk.ready(funds="1.00", plan="plan")
    desk.rate("0.60", increments="30/6", connection_fee="0.05")
    call = rated(desk.call("c1", seconds=178, caller="+14255550100"))
    assert call == {
        "cdr_id": "c1",
        "org_id": "contoso",
        "user_id": "u1",
        "call_type": "user_out",
        "caller": "+14255550100",
        "callee": "+442079460000",
        "answered_at": "2025-10-01T11:00:00Z",
        "duration_ms": 178_000,
        "service": "outbound",
        "destination": "there",
        "destination_country": "GB",
        "rate_id": "r44",
        "plan_id": "plan",
        "allowance_id": "a",
        "billed_s": 180,
        "included_minutes": 1,
        "priced_s": 120,
        "rate_per_minute": "0.60",
        "connection_fee": "0.05",
        "charge": "1.25",
        "collected": "1.00",
        "currency": "USD",
        "funded_by": "mixed",
        "reason": None,
        "lots": [{"lot_id": "purchase:c3", "amount": "1.00"}],
        "overdraft": "0.25",
        "balance_after": "-0.25",
        "version": 1,
        "rated_at": "2025-10-01T12:00:00.006Z",
    }


def test_a_free_call_has_neither_rate_nor_plan() -> None:
    desk = Desk().ready(funds=None)
    call = rated(desk.call("c1", call_type="user_in", caller=None))
    missing = ("caller", "destination", "destination_country", "rate_id", "plan_id", "allowance_id", "rate_per_minute")
    assert [call[name] for name in (*missing, "connection_fee")] == [None] * 8
    assert (call["funded_by"], call["reason"], call["charge"], call["lots"]) == ("free", "inbound", "0.00", [])
