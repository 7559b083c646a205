"""Our requests are valid according to Stripe's API description: stripe-mock, generated from it, refuses any other.

It remembers nothing (`tests/fake_gateway.py` does), and always answers with the same PaymentIntent, which has not succeeded.
"""

import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

from rater.adapters.payments.stripe import ASK_FIRST_MS, StripeGateway
from tests.deploy_files import go_program
from tests.fake_gateway import API_KEY
from tests.unit.adapters.payments.requests import request

VERSION = "v0.203.0"
START_TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def program() -> Path:
    """stripe-mock, built with Go once and kept; skips the test if that isn't possible."""
    return go_program("stripe-mock", f"github.com/stripe/stripe-mock@{VERSION}")


@pytest.fixture(scope="module")
def url(program: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen([program, "-http-addr", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_listening(address, process)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def gateway(url: str) -> AsyncIterator[StripeGateway]:
    made = StripeGateway(API_KEY, "rater", 10_000, url)
    yield made
    await made.close()


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Records method, path and status of each call."""
    found: list[tuple[str, str, int]] = []
    real = stripe.AIOHTTPClient.request_async

    async def recording(self: Any, method: str, url: str, *more: Any, **named: Any) -> Any:
        answer = await real(self, method, url, *more, **named)
        found.append((method, urlsplit(url).path, answer[1]))
        return answer

    monkeypatch.setattr(stripe.AIOHTTPClient, "request_async", recording)
    return found


async def test_a_charge_is_a_valid_request(gateway: StripeGateway, answered: list[tuple[str, str, int]]) -> None:
    await gateway.charge(request(), 0)
    assert answered[0] == ("post", "/v1/payment_intents", 200)
    ((method, path, status),) = answered[1:]  # read again, because it was not final
    assert (method, status) == ("get", 200)
    assert path.startswith("/v1/payment_intents/pi_")


async def test_looking_for_the_customer_is_a_valid_request(
    gateway: StripeGateway, answered: list[tuple[str, str, int]]
) -> None:
    await gateway.charge(request(payment_method="pm_1"), 0)
    assert answered == [("get", "/v1/payment_methods/pm_1", 200)]


async def test_asking_for_a_charge_by_its_key_is_a_valid_request(
    gateway: StripeGateway, answered: list[tuple[str, str, int]]
) -> None:
    await gateway.charge(request(), ASK_FIRST_MS)
    assert answered == [("get", "/v1/payment_intents/search", 200)]


async def test_an_unknown_parameter_is_refused(url: str) -> None:
    http = stripe.AIOHTTPClient(timeout=10)
    client = stripe.StripeClient(API_KEY, http_client=http, base_addresses={"api": url})
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.create_async({"amount": 1, "currency": "usd", "off_sessions": True})  # type: ignore[typeddict-unknown-key]
    await http.close_async()  # type: ignore[no-untyped-call]


def wait_until_listening(address: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except ConnectionError:
            assert process.poll() is None, "stripe-mock has ended"
            assert time.monotonic() < deadline_s, "stripe-mock doesn't listen"
            time.sleep(0.05)
        else:
            return
