"""The demo's payment service behaves as the webhook gateway requires of a real one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rater.adapters.payments.gateway import Declined, Taken, Unresolved
from rater.adapters.payments.webhook import WebhookGateway
from rater.adapters.standard_webhooks import read_secret
from rater.demo import payment_service
from rater.demo.payment_service import DECLINED_CARD, PaymentService
from rater.domain.outputs import RechargeRequest


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PaymentService]:
    monkeypatch.setattr(payment_service, "ANSWER_S", 0.0)
    async with PaymentService() as service:
        yield service


@asynccontextmanager
async def gateway(service: PaymentService, secret: str | None = None) -> AsyncIterator[WebhookGateway]:
    made = WebhookGateway(service.url, read_secret(secret or service.secret), "app")
    try:
        yield made
    finally:
        await made.close()


def request(card: str = "card", attempt: int = 1) -> RechargeRequest:
    return RechargeRequest("contoso:1", "contoso", 1, attempt, "20.00", "USD", card, "2025-10-01T00:00:00Z")


async def test_a_repeated_charge_is_taken_once_and_gets_the_same_answer(service: PaymentService) -> None:
    async with gateway(service) as asking:
        answers = [await asking.charge(request(), 0) for _ in range(3)]
    assert answers == [Taken("demo-contoso:1")] * 3
    assert service.taken == {"card": 1}


async def test_one_card_is_declined_as_a_hard_failure(service: PaymentService) -> None:
    async with gateway(service) as asking:
        assert await asking.charge(request(DECLINED_CARD), 0) == Declined("expired_card", retryable=False)
    assert service.taken == {}


async def test_a_wrong_signature_takes_no_money(service: PaymentService) -> None:
    async with gateway(service, PaymentService().secret) as stranger:
        with pytest.raises(Unresolved, match="401"):
            await stranger.charge(request(), 0)
    assert service.taken == {}
