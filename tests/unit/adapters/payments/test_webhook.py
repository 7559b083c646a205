"""The webhook gateway against a payment service over HTTP."""

from collections.abc import AsyncIterator

import pytest

from rater.adapters.payments.gateway import Declined, Taken, Unresolved
from rater.adapters.payments.webhook import WebhookGateway
from rater.adapters.standard_webhooks import SecretError, read_secret, signed_headers
from tests.fake_gateway import OPERATOR_KEY, FakeGateway, GatewayFault
from tests.unit.adapters.payments.requests import request


@pytest.fixture
async def gateway(fake: FakeGateway) -> AsyncIterator[WebhookGateway]:
    made = WebhookGateway(f"{fake.url}/charges", OPERATOR_KEY, "rater")
    yield made
    await made.close()


async def test_a_charge_sent_several_times_takes_the_money_once(fake: FakeGateway, gateway: WebhookGateway) -> None:
    assert [await gateway.charge(request(), 0) for _ in range(3)] == [Taken("payment-1")] * 3
    (charged,) = fake.taken
    assert (charged.amount, charged.currency, charged.card) == ("20.00", "USD", "cus_1/pm_1")


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "unavailable", "processing"])
async def test_a_charge_without_an_answer_can_be_repeated(
    fake: FakeGateway, gateway: WebhookGateway, fault: GatewayFault
) -> None:
    fake.fault = lambda _, __, call: fault if call == 1 else ""
    with pytest.raises(Unresolved):
        await gateway.charge(request(), 0)
    assert await gateway.charge(request(), 0) == Taken("payment-1")
    assert len(fake.taken) == 1


async def test_a_service_that_is_still_processing_is_not_blamed(fake: FakeGateway, gateway: WebhookGateway) -> None:
    fake.fault = lambda *_: "processing"
    with pytest.raises(Unresolved) as unresolved:
        await gateway.charge(request(), 0)
    assert not unresolved.value.blames_gateway


@pytest.mark.parametrize(("code", "retryable"), [("insufficient_funds", True), ("stolen", False)])
async def test_a_decline_is_hard_if_rule_22_says_so(
    fake: FakeGateway, gateway: WebhookGateway, code: str, retryable: bool
) -> None:
    fake.declines["cus_1/pm_1"] = code
    assert await gateway.charge(request(), 0) == Declined(code, retryable)


async def test_a_wrong_signature_is_refused_by_the_service(fake: FakeGateway) -> None:
    gateway = WebhookGateway(f"{fake.url}/charges", b"x" * 24, "rater")
    with pytest.raises(Unresolved, match="401"):
        await gateway.charge(request(), 0)
    await gateway.close()
    assert fake.taken == []


def test_the_signature_is_that_of_the_standard_webhooks_specification() -> None:
    """The example in the specification."""
    key = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["whsec_c2hvcnQ=", "whsec_no base64", ""])
def test_an_invalid_secret_is_refused(text: str) -> None:
    with pytest.raises(SecretError):
        read_secret(text)
