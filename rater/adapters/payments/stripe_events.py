"""An HTTP endpoint for Stripe's webhooks: turns the final event of a payment into a command for the account.

A body is parsed only after its signature is verified and found no older than `TOLERANCE_S`. The command is the same, with the
same id, as the one the recharge agent publishes for the charge (`gateway.command_of`); the account acts on the first and
ignores the second. Stripe gets a 200 once Kafka has acknowledged the command; until then it sends the event again.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import stripe
from aiohttp import web
from structlog.contextvars import bound_contextvars

from rater.adapters.payments.gateway import Outcome, Taken, command_of
from rater.adapters.payments.stripe import declined, request_of
from rater.kafka.clients import producer
from rater.kafka.connection import Brokers

log = logging.getLogger(__name__)

PATH = "/webhooks/stripe"
TOLERANCE_S = 300
_BODY_BYTES_MAX = 512 * 1024
_REMEMBERED_MAX = 10_000
_REQUEST_ID_MAX = 128

#: (org_id, command) → publish it; returns once Kafka has acknowledged it.
Publish = Callable[[str, bytes], Awaitable[object]]


class StripeEndpoint:
    """Listens at `host` and `port`, and publishes to `command_topic`. A background service of the recharge agent."""

    def __init__(self, secrets: Sequence[str], app_id: str, brokers: Brokers, command_topic: str, host: str, port: int) -> None:
        self._secrets = secrets
        self._app_id = app_id
        self._brokers = brokers
        self._command_topic = command_topic
        self._host = host
        self._port = port
        self._open = AsyncExitStack()

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        del on_fatal  # if a broker is away, Stripe sends the event again
        out = await self._open.enter_async_context(producer(self._brokers))

        async def publish(org_id: str, command: bytes) -> object:
            return await out.send_and_wait(self._command_topic, command, key=org_id.encode())

        events = StripeEvents(self._secrets, self._app_id, publish)
        runner = web.AppRunner(events.application(), access_log=None)
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self._host, self._port).start()
        log.info("listening for Stripe's webhooks at http://%s:%d%s", self._host, self._port, PATH)

    async def stop(self) -> None:
        await self._open.aclose()


class _StripeEvent(msgspec.Struct):
    id: str
    type: str
    data: dict[str, Any]


class StripeEvents:
    """Handles POSTs to `PATH`. `secrets`: signing secrets, more than one while you replace one."""

    def __init__(self, secrets: Sequence[str], app_id: str, publish: Publish) -> None:
        self._secrets = secrets
        self._app_id = app_id
        self._publish = publish
        self._seen: OrderedDict[str, None] = OrderedDict()

    def application(self) -> web.Application:
        made = web.Application(client_max_size=_BODY_BYTES_MAX)
        made.router.add_post(PATH, self.handle)
        return made

    async def handle(self, http: web.Request) -> web.Response:
        body = await http.read()
        if not self._is_signed(body, http.headers.get("Stripe-Signature")):
            return web.Response(status=400, text="missing or invalid signature")
        try:
            event = msgspec.json.decode(body, type=_StripeEvent)
        except msgspec.DecodeError:
            return web.Response(status=400, text="not a Stripe event")
        if event.id not in self._seen:
            with bound_contextvars(event_id=event.id, request_id=http.headers.get("X-Request-Id", "")[:_REQUEST_ID_MAX]):
                await self._take(event)
                log.info("received %s", event.type)
            self._seen[event.id] = None
            if len(self._seen) > _REMEMBERED_MAX:
                self._seen.popitem(last=False)
        return web.Response(text="ok")

    def _is_signed(self, body: bytes, signature: str | None) -> bool:
        for secret in self._secrets:
            try:
                stripe.WebhookSignature.verify_header(body, signature, secret, TOLERANCE_S)
            except (stripe.SignatureVerificationError, UnicodeDecodeError):
                continue
            return True
        return False

    async def _take(self, event: _StripeEvent) -> None:
        intent = event.data.get("object")
        if not isinstance(intent, Mapping) or (outcome := _outcome(event.type, intent)) is None:
            return
        request = request_of(intent, self._app_id)
        if request is None:
            log.debug("event %s ignored: the payment is not from this deployment", event.id)
            return
        await self._publish(request.org_id, command_of(request, outcome))


def _outcome(type_: str, intent: Mapping[str, Any]) -> Outcome | None:
    match type_:
        case "payment_intent.succeeded":
            return Taken(str(intent.get("id")))
        case "payment_intent.payment_failed":
            return declined(intent.get("last_payment_error") or {})
    return None
