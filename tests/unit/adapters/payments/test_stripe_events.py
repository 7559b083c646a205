"""Stripe's webhooks: the signature is checked, each event is published once, as the same command as the agent's."""

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from rater.adapters.payments.gateway import Declined, Taken, command_of
from rater.adapters.payments.stripe import metadata_of
from rater.adapters.payments.stripe_events import PATH, StripeEvents
from tests.fake_gateway import SIGNING_SECRET, event, signature
from tests.unit.adapters.payments.requests import request

APP = "rater"


class Published(list[tuple[str, bytes]]):
    """The published commands. `fails`: Kafka is unreachable."""

    fails = False

    async def publish(self, org_id: str, command: bytes) -> None:
        if self.fails:
            raise ConnectionError("no broker")
        self.append((org_id, command))


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
async def client(published: Published) -> AsyncIterator[TestClient[Any, Any]]:
    events = StripeEvents(["whsec_the_one_before", SIGNING_SECRET], APP, published.publish)
    async with TestClient(TestServer(events.application())) as made:
        yield made


def intent(app: str = APP, **fields: Any) -> dict[str, Any]:
    made = {"id": "pi_1", "status": "succeeded", "amount_received": 2000, "metadata": metadata_of(request(), app)}
    return made | fields


async def post(client: TestClient[Any, Any], body: str, header: str | None = None) -> int:
    headers = {} if header == "" else {"Stripe-Signature": header or signature(body)}
    return (await client.post(PATH, data=body, headers=headers)).status


async def test_a_success_becomes_the_command_the_agent_would_send(client: TestClient[Any, Any], published: Published) -> None:
    assert await post(client, event(intent())) == 200
    assert published == [("contoso", command_of(request(), Taken("pi_1")))]


async def test_a_decline_becomes_the_command_the_agent_would_send(client: TestClient[Any, Any], published: Published) -> None:
    error = {"code": "card_declined", "decline_code": "lost_card"}
    body = event(intent(status="requires_payment_method", amount_received=0, last_payment_error=error))
    assert await post(client, body) == 200
    assert published == [("contoso", command_of(request(), Declined("lost", retryable=False)))]


async def test_a_repeated_event_is_published_once(client: TestClient[Any, Any], published: Published) -> None:
    assert [await post(client, event(intent())) for _ in range(3)] == [200] * 3
    assert len(published) == 1


async def test_if_kafka_fails_the_answer_is_500_so_that_stripe_sends_it_again(
    client: TestClient[Any, Any], published: Published
) -> None:
    published.fails = True
    assert await post(client, event(intent())) == 500
    published.fails = False
    assert await post(client, event(intent())) == 200
    assert len(published) == 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "t=1,v1=00",
        signature(event(intent()), secret="whsec_another"),
        signature(event(intent()) + " "),
        signature(event(intent()), int(time.time()) - 301),
    ],
    ids=["none", "nonsense", "wrong", "other secret", "other body", "too old"],
)
async def test_without_a_valid_and_recent_signature_nothing_is_published(
    client: TestClient[Any, Any], published: Published, header: str
) -> None:
    assert await post(client, event(intent()), header) == 400
    assert published == []


async def test_a_four_minutes_old_signature_is_valid(client: TestClient[Any, Any], published: Published) -> None:
    body = event(intent())
    assert await post(client, body, signature(body, int(time.time()) - 240)) == 200
    assert len(published) == 1


@pytest.mark.parametrize("body", ["", "{", "[]", '{"id": 1}', "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")])
async def test_a_signed_body_that_is_not_an_event_is_refused(
    client: TestClient[Any, Any], published: Published, body: str
) -> None:
    assert await post(client, body) == 400
    assert published == []


async def test_a_body_that_is_not_text_is_refused(client: TestClient[Any, Any]) -> None:
    response = await client.post(PATH, data=b"\xff\xfe", headers={"Stripe-Signature": "t=1,v1=00"})
    assert response.status == 400


@pytest.mark.parametrize(
    "other",
    [
        intent(app="another"),
        intent(metadata={}),
        intent(metadata=metadata_of(request(), APP) | {"attempt": "many"}),
        intent(metadata=metadata_of(request(), APP) | {"org_id": "somebody-else"}),
    ],
    ids=["another deployment", "no metadata", "broken", "tampered"],
)
async def test_a_payment_of_another_deployment_is_ignored(
    client: TestClient[Any, Any], published: Published, other: dict[str, Any]
) -> None:
    assert await post(client, event(other)) == 200
    assert published == []


async def test_the_amount_taken_is_credited_even_if_another_was_requested(
    client: TestClient[Any, Any], published: Published
) -> None:
    await post(client, event(intent(amount_received=1500)))
    assert msgspec.json.decode(published[0][1])["amount"] == "15.00"
