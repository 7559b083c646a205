"""Stripe: an off-session, confirmed PaymentIntent a charge.

How a charge is taken once, whatever happens to a call or its answer:
- Every call for a charge carries the same Idempotency-Key and the same parameters, so that within 24 hours Stripe answers a
  repeated call as it answered the first.
- Stripe forgets keys after 24 hours. So a charge requested `ASK_FIRST_MS` ago or longer is first asked for by its key, which
  stands in the PaymentIntent's metadata, and made only if there is none. Stripe's search lags behind by minutes, in outages by
  an hour: far less than the hours that remain to a key when asking begins.
- A 5xx is an answer too, which Stripe repeats for the key though money may have been taken: then too the search says.

The metadata hold the whole request, so that a webhook of Stripe's can be answered for without anything else (`request_of`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import stripe

from rater.adapters.payments.gateway import Declined, Outcome, Taken, Unresolved, charge_key
from rater.adapters.payments.minor_units import AmountError, from_minor_units, to_minor_units
from rater.domain.outputs import RechargeRequest

ASK_FIRST_MS = 20 * 3_600_000

#: Stripe's words for what rule 22 calls a hard failure, in the rule's own words.
_HARD = {
    "expired_card": "expired_card",
    "lost_card": "lost",
    "stolen_card": "stolen",
    "account_closed": "closed",
    "bank_account_closed": "closed",
    "invalid_account": "closed",
    "authentication_required": "authentication_required",
    "payment_intent_authentication_failure": "authentication_required",
}
#: More that no later try mends: the networks forbid it, or the card is not one that can pay this.
_NEVER_AGAIN = frozenset(
    {
        "card_not_supported",
        "currency_not_supported",
        "do_not_try_again",
        "fraudulent",
        "incorrect_number",
        "invalid_number",
        "merchant_blacklist",
        "pickup_card",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stop_payment_order",
    }
)
_CARD_PARAMS = frozenset({"payment_method", "customer", "amount", "currency"})
_IN_USE = 409
_CHARACTERS_MAX = 500  # of a metadata value


class _NoCustomerError(Exception):
    """A payment method that belongs to nobody can't be charged off-session."""


class StripeGateway:
    """`Gateway` on Stripe's official client."""

    def __init__(self, api_key: str, app_id: str, timeout_ms: int, api_url: str | None = None) -> None:
        self._app_id = app_id
        self._http = stripe.AIOHTTPClient(timeout=timeout_ms / 1000)
        self._client = stripe.StripeClient(
            api_key,
            http_client=self._http,
            max_network_retries=0,  # repeating is the agent's: it outlives the process
            base_addresses={} if api_url is None else {"api": api_url.rstrip("/")},
        )

    async def charge(self, request: RechargeRequest, age_ms: int) -> Outcome:
        try:
            minor = to_minor_units(request.amount, request.currency)
        except AmountError:
            return Declined("amount_not_chargeable", retryable=False)
        key = charge_key(self._app_id, request)
        try:
            if age_ms >= ASK_FIRST_MS and (found := await self._find(key)) is not None:
                return outcome_of(found, minor)
            return await self._create(request, key, minor)
        except stripe.CardError as error:
            return declined(error.error)
        except _NoCustomerError:
            return Declined("payment_method_without_customer", retryable=False)
        except (stripe.AuthenticationError, stripe.PermissionError, stripe.RateLimitError) as error:
            raise Unresolved(_line(error)) from error  # not looked at: the card has no part in it
        except stripe.IdempotencyError as error:
            return await self._ask(key, minor, f"another charge was made under its key: {_line(error)}", blames_gateway=False)
        except stripe.InvalidRequestError as error:
            found = await self._find(key)  # refused now; was it taken before?
            return _refused(error) if found is None else outcome_of(found, minor)
        except stripe.APIConnectionError as error:
            raise Unresolved(_line(error)) from error
        except stripe.APIError as error:
            if error.http_status == _IN_USE:
                raise Unresolved("another call for it is under way", blames_gateway=False) from error
            return await self._ask(key, minor, _line(error))

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _create(self, request: RechargeRequest, key: str, minor: int) -> Outcome:
        customer, payment_method = await self._payer(request.payment_method)
        intent = await self._client.v1.payment_intents.create_async(
            params={
                "amount": minor,
                "currency": request.currency.lower(),
                "customer": customer,
                "payment_method": payment_method,
                "off_session": True,
                "confirm": True,
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                "description": f"Communications credits {request.recharge_id}"[:_CHARACTERS_MAX],
                "metadata": metadata_of(request, self._app_id),
            },
            options={"idempotency_key": key},
        )
        if intent.status != "succeeded":  # a repeated answer says how it was then, not how it is now
            intent = await self._retrieve(intent.id)
        return outcome_of(intent, minor)

    async def _payer(self, payment_method: str) -> tuple[str, str]:
        """Customer and payment method: `cus_…/pm_…`, or `pm_…` alone, whose customer is asked for."""
        customer, slash, rest = payment_method.partition("/")
        if slash:
            return customer, rest
        method = await self._client.v1.payment_methods.retrieve_async(payment_method)
        if method.customer is None:
            raise _NoCustomerError(payment_method)
        return str(method.customer), payment_method

    async def _retrieve(self, intent_id: str) -> stripe.PaymentIntent:
        try:
            return await self._client.v1.payment_intents.retrieve_async(intent_id)
        except stripe.StripeError as error:
            raise Unresolved(f"{intent_id} was made and can't be read: {_line(error)}") from error

    async def _ask(self, key: str, minor: int, reason: str, *, blames_gateway: bool = True) -> Outcome:
        """What came of a charge that was made, or may have been. Raises `Unresolved` with `reason` where that isn't known."""
        found = await self._find(key)
        if found is None:
            raise Unresolved(reason, blames_gateway=blames_gateway)
        return outcome_of(found, minor)

    async def _find(self, key: str) -> stripe.PaymentIntent | None:
        """The payment under a key, as far as Stripe's search knows."""
        try:
            found = await self._client.v1.payment_intents.search_async({"query": f"metadata['rater_key']:'{key}'", "limit": 2})
        except stripe.StripeError as error:
            raise Unresolved(f"the search for {key} failed: {_line(error)}") from error
        if len(found.data) > 1:
            raise Unresolved(f"more than one payment has the key {key}", blames_gateway=False)
        return found.data[0] if found.data else None


def outcome_of(intent: stripe.PaymentIntent, minor: int) -> Outcome:
    """What a PaymentIntent says of its charge. Raises `Unresolved` where it has not come to its end."""
    match intent.status:
        case "succeeded":
            if intent.amount_received != minor:
                raise Unresolved(f"{intent.id} took {intent.amount_received}, not {minor}", blames_gateway=False)
            return Taken(intent.id)
        case "requires_payment_method" if intent.last_payment_error is not None:
            return declined(intent.last_payment_error)
        case "requires_action":
            return Declined("authentication_required", retryable=False)
        case "canceled":
            return Declined("canceled", retryable=True)
        case status:
            raise Unresolved(f"{intent.id} is {status}", blames_gateway=False)


def declined(error: Any) -> Declined:
    """Stripe's error object in the rules' terms: soft unless Stripe or rule 22 says otherwise."""
    codes = [code for code in (_get(error, "decline_code"), _get(error, "code")) if code]
    for code in codes:
        if code in _HARD:
            return Declined(_HARD[code], retryable=False)
    code = codes[0] if codes else "declined"
    hard = code in _NEVER_AGAIN or _get(error, "advice_code") == "do_not_try_again"
    return Declined(code, retryable=not hard)


def metadata_of(request: RechargeRequest, app_id: str) -> dict[str, str]:
    """The request, and whose it is."""
    fields = {name: str(value) for name, value in msgspec.structs.asdict(request).items()}
    return {"rater_app": app_id, "rater_key": charge_key(app_id, request), **fields}


def request_of(intent: Mapping[str, Any], app_id: str) -> RechargeRequest | None:
    """The request a PaymentIntent was made for, with the amount that was taken if any was; None where it is none of ours."""
    metadata = intent.get("metadata") or {}
    if metadata.get("rater_app") != app_id:
        return None
    try:
        request = msgspec.convert(dict(metadata), RechargeRequest, strict=False)
    except msgspec.ValidationError:
        return None
    if metadata.get("rater_key") != charge_key(app_id, request):
        return None
    received = intent.get("amount_received")
    if received:
        request.amount = from_minor_units(received, request.currency)
    return request


def _refused(error: stripe.InvalidRequestError) -> Declined:
    """Stripe would not try: no money has moved. Where card or amount are to blame no later try mends it."""
    code = error.code or "invalid_request"
    to_blame = error.param in _CARD_PARAMS
    if to_blame and code == "resource_missing":
        return Declined("payment_method_missing", retryable=False)
    return Declined(code, retryable=not to_blame)


def _line(error: stripe.StripeError) -> str:
    """What Stripe's client says, on one line."""
    return " ".join(str(error).split())


def _get(error: Any, name: str) -> str | None:
    value = error.get(name) if isinstance(error, Mapping) else getattr(error, name, None)
    return value if isinstance(value, str) else None
