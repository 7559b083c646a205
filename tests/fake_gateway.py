"""A fake payment gateway over real HTTP: the part of Stripe's API we use, and an operator's payment service.

Like a real one it repeats its answer for an idempotency key, and never forgets a payment. A function decides for each call that
could take money what goes wrong.
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import stripe
from aiohttp import web

GatewayFault = Literal[
    "",
    "drop_before",  # the connection is dropped; nothing was taken
    "drop_after",  # the connection is dropped; the money was taken
    "hang_after",  # no answer; the money was taken
    "error_after",  # 500, repeated for the key; the money was taken
    "error_before",  # 500, repeated for the key; nothing was taken
    "unavailable",  # 503, not repeated
    "limited",  # 429
    "in_use",  # 409: another call with this key is running
    "unauthorized",  # 401
    "processing",  # the answer says "processing"; the money is taken later
]
#: When a webhook arrives: before the answer, right after it, or late.
Hook = Literal["before", "after", "late"]

SIGNING_SECRET = "whsec_stripe_events"
OPERATOR_KEY = b"k" * 24
API_KEY = "sk_test_123"
_HANG_S = 30.0
_LATE_S = 0.5
_RESENDS_MAX = 200


@dataclass(frozen=True)
class Charged:
    """Money taken from a card."""

    key: str
    recharge_id: str
    attempt: int
    amount: str
    currency: str
    card: str


@dataclass
class FakeGateway:
    """`fault(recharge_id, attempt, call)`: what goes wrong at a call. `declines`: card → decline code. `hooks(recharge_id,
    attempt)`: the webhooks that follow, sent to `hook_url`. `search_lags`: Stripe's search finds nothing yet.
    """

    fault: Callable[[str, int, int], GatewayFault] = lambda *_: ""
    declines: dict[str, str] = field(default_factory=dict)
    hooks: Callable[[str, int], Iterable[Hook]] = lambda *_: ()
    hook_url: str | None = None
    url: str = ""
    taken: list[Charged] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    search_lags: bool = False
    _answers: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = field(default_factory=dict)
    _deliveries: set[asyncio.Task[None]] = field(default_factory=set)
    _client: aiohttp.ClientSession | None = None

    def forget_keys(self) -> None:
        """Forget the idempotency keys, as Stripe does after 24 hours."""
        self._answers.clear()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeGateway"]:
        """Listen on a free port until the end of the block; sets `url`."""
        app = web.Application()
        app.router.add_post("/v1/payment_intents", self._create)
        app.router.add_get("/v1/payment_intents/search", self._search)
        app.router.add_get("/v1/payment_intents/{id}", self._retrieve)
        app.router.add_get("/v1/payment_methods/{id}", self._payment_method)
        app.router.add_post("/charges", self._operator_charge)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as self._client:
            try:
                yield self
            finally:
                for delivery in self._deliveries:
                    delivery.cancel()
                await asyncio.gather(*self._deliveries, return_exceptions=True)
                await runner.cleanup()

    # Stripe

    async def _create(self, http: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await http.post()).items()}
        key = http.headers["Idempotency-Key"]
        recharge_id, attempt = form["metadata[recharge_id]"], int(form["metadata[attempt]"])
        fault = self.fault(recharge_id, attempt, self._called(key))
        if refusal := _before_anything(fault):
            return refusal
        if fault == "drop_before":
            return _drop(http)
        if key in self._answers:
            form_then, status, body = self._answers[key]
            if form_then != form:
                return _error(400, "idempotency_error", "idempotency_key_reused")
            return web.json_response(body, status=status)
        if fault == "error_before":
            self._answers[key] = (form, 500, _body("api_error", "internal"))
            return web.json_response(self._answers[key][2], status=500)
        intent = self._make_intent(key, form, recharge_id, attempt)
        declined = intent["status"] == "requires_payment_method"
        answer: dict[str, Any] = dict(intent)
        if declined:
            answer = {"error": {**intent["last_payment_error"], "payment_intent": intent}}
        status = 402 if declined else 200
        if fault == "error_after":
            status, answer = 500, _body("api_error", "internal")
        if fault == "processing":
            answer["status"] = "processing"
        self._answers[key] = (form, status, answer)
        await self._send_hooks(intent, recharge_id, attempt)
        if fault == "drop_after":
            return _drop(http)
        if fault == "hang_after":
            await asyncio.sleep(_HANG_S)
        return web.json_response(answer, status=status)

    def _make_intent(self, key: str, form: dict[str, str], recharge_id: str, attempt: int) -> dict[str, Any]:
        card = form["payment_method"]
        code = self.declines.get(card)
        amount = int(form["amount"])
        metadata = {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
        intent = {
            "id": f"pi_{len(self.intents) + 1}",
            "object": "payment_intent",
            "amount": amount,
            "amount_received": 0 if code else amount,
            "currency": form["currency"],
            "status": "requires_payment_method" if code else "succeeded",
            "metadata": metadata,
            "last_payment_error": None,
        }
        if code:
            intent["last_payment_error"] = {"type": "card_error", "code": "card_declined", "decline_code": code}
        else:
            self.taken.append(Charged(key, recharge_id, attempt, form["amount"], form["currency"], card))
        self.intents[str(intent["id"])] = intent
        return intent

    async def _search(self, http: web.Request) -> web.Response:
        key = http.query["query"].split("'")[3]
        found = [i for i in self.intents.values() if i["metadata"]["rater_key"] == key and not self.search_lags]
        return web.json_response({"object": "search_result", "data": found, "has_more": False, "url": http.path})

    async def _retrieve(self, http: web.Request) -> web.Response:
        return web.json_response(self.intents[http.match_info["id"]])

    async def _payment_method(self, http: web.Request) -> web.Response:
        name = http.match_info["id"]
        if name == "pm_missing":
            return _error(404, "invalid_request_error", "resource_missing", "payment_method")
        customer = None if name == "pm_loose" else f"cus_of_{name}"
        return web.json_response({"id": name, "object": "payment_method", "customer": customer})

    # The operator's payment service

    async def _operator_charge(self, http: web.Request) -> web.StreamResponse:
        body = await http.read()
        key = http.headers["webhook-id"]
        signed = b".".join((key.encode(), http.headers["webhook-timestamp"].encode(), body))
        expected = "v1," + base64.b64encode(hmac.digest(OPERATOR_KEY, signed, hashlib.sha256)).decode()
        if http.headers["webhook-signature"] != expected:
            return web.Response(status=401)
        request = json.loads(body)
        fault = self.fault(request["recharge_id"], request["attempt"], self._called(key))
        if refusal := _before_anything(fault):
            return refusal
        if fault == "drop_before":
            return _drop(http)
        if fault == "processing":
            return web.json_response({"status": "pending"})
        if key not in self._answers:
            code = self.declines.get(request["payment_method"])
            answer: dict[str, Any] = {"status": "failed", "code": code, "retryable": True}
            if code is None:
                fields = [request[name] for name in ("recharge_id", "attempt", "amount", "currency", "payment_method")]
                self.taken.append(Charged(key, *fields))
                answer = {"status": "succeeded", "payment_reference": f"payment-{len(self.taken)}"}
            self._answers[key] = (request, 200, answer)
        if fault == "drop_after":
            return _drop(http)
        if fault == "hang_after":
            await asyncio.sleep(_HANG_S)
        return web.json_response(self._answers[key][2])

    def _called(self, key: str) -> int:
        self.calls[key] += 1
        return self.calls[key]

    # Webhooks sent to us

    async def _send_hooks(self, intent: dict[str, Any], recharge_id: str, attempt: int) -> None:
        for number, hook in enumerate(self.hooks(recharge_id, attempt)):
            body = event(intent, f"evt_{intent['id']}_{number}")
            if hook == "before":
                with suppress(aiohttp.ClientError):
                    await self._deliver(body)
            else:
                delivery = asyncio.create_task(self._deliver_until_taken(body, _LATE_S if hook == "late" else 0.0))
                self._deliveries.add(delivery)
                delivery.add_done_callback(self._deliveries.discard)

    async def _deliver_until_taken(self, body: str, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        for _ in range(_RESENDS_MAX):
            with suppress(aiohttp.ClientError):
                if await self._deliver(body) == 200:
                    return
            await asyncio.sleep(0.2)

    async def _deliver(self, body: str) -> int:
        assert self._client is not None
        assert self.hook_url is not None
        headers = {"Stripe-Signature": signature(body)}
        async with self._client.post(self.hook_url, data=body, headers=headers) as response:
            return response.status


def event(intent: dict[str, Any], event_id: str = "evt_1") -> str:
    """The body of Stripe's event for a payment that succeeded or failed."""
    what = "succeeded" if intent["status"] == "succeeded" else "payment_failed"
    return json.dumps({"id": event_id, "object": "event", "type": f"payment_intent.{what}", "data": {"object": intent}})


def signature(body: str, at_s: int | None = None, secret: str = SIGNING_SECRET) -> str:
    """The `Stripe-Signature` header for a body."""
    return str(stripe.WebhookSignature.generate_signature_header(body, secret, at_s))


def _before_anything(fault: GatewayFault) -> web.Response | None:
    match fault:
        case "unavailable":
            return _error(503, "api_error", "unavailable")
        case "limited":
            return _error(429, "invalid_request_error", "rate_limit")
        case "in_use":
            return _error(409, "idempotency_error", "idempotency_key_in_use")
        case "unauthorized":
            return _error(401, "invalid_request_error", "api_key_expired")
    return None


def _error(status: int, type_: str, code: str, param: str | None = None) -> web.Response:
    return web.json_response(_body(type_, code, param), status=status)


def _body(type_: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"type": type_, "code": code, "message": code, "param": param}}


def _drop(http: web.Request) -> web.Response:
    if http.transport is not None:  # the client may have disconnected
        http.transport.close()
    return web.Response()
