"""The Stripe gateway against a fake Stripe that remembers charges, over HTTP."""

from collections.abc import AsyncIterator

import pytest

from rater.adapters.payments.gateway import Declined, Taken, Unresolved
from rater.adapters.payments.stripe import ASK_FIRST_MS, StripeGateway
from tests.fake_gateway import API_KEY, FakeGateway, GatewayFault
from tests.unit.adapters.payments.requests import request

TIMEOUT_MS = 300


@pytest.fixture
async def gateway(fake: FakeGateway) -> AsyncIterator[StripeGateway]:
    made = StripeGateway(API_KEY, "rater", TIMEOUT_MS, fake.url)
    yield made
    await made.close()


def once(fault: GatewayFault) -> FakeGateway:
    """The first call fails in this way, later ones succeed."""
    return FakeGateway(fault=lambda _, __, call: fault if call == 1 else "")


async def charge_until_known(gateway: StripeGateway) -> tuple[int, Taken | Declined]:
    """The number of unresolved calls, and the outcome after them."""
    for unresolved in range(5):
        try:
            return unresolved, await gateway.charge(request(), 0)
        except Unresolved:
            continue
    raise AssertionError("still unresolved after 5 calls")


async def test_a_charge_takes_the_amount_from_the_card(fake: FakeGateway, gateway: StripeGateway) -> None:
    assert await gateway.charge(request(), 0) == Taken("pi_1")
    (charged,) = fake.taken
    assert (charged.amount, charged.currency, charged.card) == ("2000", "usd", "pm_1")


async def test_the_same_charge_again_takes_nothing_more(fake: FakeGateway, gateway: StripeGateway) -> None:
    assert [await gateway.charge(request(), 0) for _ in range(3)] == [Taken("pi_1")] * 3
    assert len(fake.taken) == 1


async def test_another_attempt_is_another_charge(fake: FakeGateway, gateway: StripeGateway) -> None:
    await gateway.charge(request(), 0)
    await gateway.charge(request(attempt=2), 0)
    assert len({charged.key for charged in fake.taken}) == 2


async def test_another_deployment_with_the_same_ids_is_another_charge(fake: FakeGateway, gateway: StripeGateway) -> None:
    other = StripeGateway(API_KEY, "staging", TIMEOUT_MS, fake.url)
    await gateway.charge(request(), 0)
    await other.charge(request(), 0)
    await other.close()
    assert len({charged.key for charged in fake.taken}) == 2


@pytest.mark.parametrize(
    "fault",
    ["drop_before", "drop_after", "hang_after", "unavailable", "limited", "in_use", "unauthorized"],
)
async def test_an_answer_that_does_not_come_is_asked_for_and_taken_once(
    fake: FakeGateway, gateway: StripeGateway, fault: GatewayFault
) -> None:
    fake.fault = once(fault).fault
    assert await charge_until_known(gateway) == (1, Taken("pi_1"))
    assert len(fake.taken) == 1


async def test_a_500_that_took_the_money_is_resolved_by_the_search(fake: FakeGateway, gateway: StripeGateway) -> None:
    fake.fault = once("error_after").fault
    assert await gateway.charge(request(), 0) == Taken("pi_1")


async def test_a_500_stays_unknown_while_the_search_lags_and_the_key_repeats_it(
    fake: FakeGateway, gateway: StripeGateway
) -> None:
    fake.fault, fake.search_lags = once("error_after").fault, True
    for _ in range(2):
        with pytest.raises(Unresolved):
            await gateway.charge(request(), 0)
    fake.search_lags = False
    assert await gateway.charge(request(), 0) == Taken("pi_1")
    assert len(fake.taken) == 1


async def test_a_500_that_took_nothing_is_charged_after_stripe_forgot_its_key(
    fake: FakeGateway, gateway: StripeGateway
) -> None:
    fake.fault = once("error_before").fault
    with pytest.raises(Unresolved):
        await gateway.charge(request(), 0)
    fake.forget_keys()
    assert await gateway.charge(request(), 2 * ASK_FIRST_MS) == Taken("pi_1")
    assert len(fake.taken) == 1


async def test_a_charge_older_than_stripes_memory_of_keys_is_asked_for_first(fake: FakeGateway, gateway: StripeGateway) -> None:
    await gateway.charge(request(), 0)
    fake.forget_keys()
    assert await gateway.charge(request(), ASK_FIRST_MS) == Taken("pi_1")
    assert len(fake.taken) == 1


async def test_a_payment_that_was_processing_is_read_again(fake: FakeGateway, gateway: StripeGateway) -> None:
    fake.fault = once("processing").fault
    assert await gateway.charge(request(), 0) == Taken("pi_1")


@pytest.mark.parametrize(
    ("decline_code", "outcome"),
    [
        ("insufficient_funds", Declined("insufficient_funds", retryable=True)),
        ("generic_decline", Declined("generic_decline", retryable=True)),
        ("expired_card", Declined("expired_card", retryable=False)),
        ("lost_card", Declined("lost", retryable=False)),
        ("stolen_card", Declined("stolen", retryable=False)),
        ("authentication_required", Declined("authentication_required", retryable=False)),
        ("do_not_try_again", Declined("do_not_try_again", retryable=False)),
    ],
)
async def test_a_decline_is_soft_or_hard_according_to_rule_22(
    fake: FakeGateway, gateway: StripeGateway, decline_code: str, outcome: Declined
) -> None:
    fake.declines["pm_1"] = decline_code
    assert await gateway.charge(request(), 0) == outcome
    fake.forget_keys()
    assert await gateway.charge(request(), ASK_FIRST_MS) == outcome
    assert fake.taken == []


async def test_a_payment_method_without_a_customer_prefix_is_charged_with_its_customer(
    fake: FakeGateway, gateway: StripeGateway
) -> None:
    assert await gateway.charge(request(payment_method="pm_7"), 0) == Taken("pi_1")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"payment_method": "pm_missing"}, "payment_method_missing"),
        ({"payment_method": "pm_loose"}, "payment_method_without_customer"),
        ({"amount": "0.013"}, "amount_not_chargeable"),
    ],
)
async def test_a_charge_that_can_never_succeed_is_a_hard_failure(
    fake: FakeGateway, gateway: StripeGateway, fields: dict[str, str], code: str
) -> None:
    assert await gateway.charge(request(**fields), 0) == Declined(code, retryable=False)
    assert fake.taken == []


async def test_money_taken_before_the_payment_method_was_removed_is_still_found(
    fake: FakeGateway, gateway: StripeGateway
) -> None:
    await gateway.charge(request(payment_method="pm_7"), 0)
    for intent in fake.intents.values():
        assert intent["status"] == "succeeded"
    assert await gateway.charge(request(payment_method="pm_missing"), 0) == Taken("pi_1")
