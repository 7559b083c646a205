"""Stripe: each charge is one PaymentIntent, confirmed off-session.

Why a charge takes the money once, even if calls or answers get lost:
- Every call for a charge has the same Idempotency-Key and the same parameters. Within 24 hours Stripe repeats its first answer.
- Stripe forgets keys after 24 hours. If the top-up was requested `ASK_FIRST_MS` ago or earlier, we first search for a
  PaymentIntent with the charge's key in its metadata, and create one only if there is none. Stripe's search lags by minutes,
  in outages by an hour: far less than the hours a key still has left when we begin to search.
- Stripe also repeats a 5xx for the same key, although money may have been taken. Then too we search.

The metadata holds the whole request, so a webhook from Stripe needs nothing else to be turned into a command (`request_of`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import stripe

from rater.adapters.payments.gateway import Declined, Outcome, Taken, Unresolved, charge_key
from rater.adapters.payments.minor_units import AmountError, from_minor_units, to_minor_units
from rater.domain.outputs import RechargeRequest

ASK_FIRST_MS = 20 * 3_600_000

#: Stripe's codes for the hard failures of rule 22, and the rule's codes for them.
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
#: More codes for which retrying never helps: the card network forbids it, or this card can't make this payment.
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
_KEY_IN_USE = 409  # another request with the same key is running
_CHARACTERS_MAX = 500  # Stripe's limit for a metadata value


class _NoCustomerError(Exception):
    """The payment method belongs to no customer, so it can't be charged off-session."""


class StripeGateway:
    """`Gateway` to Stripe, through its official client. `api_url` replaces Stripe's address, for tests."""

    def __init__(self, api_key: str, app_id: str, timeout_ms: int, api_url: str | None = None) -> None:
        self._app_id = app_id
        self._http = stripe.AIOHTTPClient(timeout=timeout_ms / 1000)
        self._client = stripe.StripeClient(
            api_key,
            http_client=self._http,
            max_network_retries=0,  # the agent retries: its retries survive a restart
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
            raise Unresolved(_line(error)) from error  # rejected before Stripe looked at the card
        except stripe.IdempotencyError as error:
            return await self._ask(key, minor, f"its key was used with other parameters: {_line(error)}", blames_gateway=False)
        except stripe.InvalidRequestError as error:
            found = await self._find(key)  # refused this time; an earlier call may have taken the money
            return _refused(error) if found is None else outcome_of(found, minor)
        except stripe.APIConnectionError as error:
            raise Unresolved(_line(error)) from error
        except stripe.APIError as error:
            if error.http_status == _KEY_IN_USE:
                raise Unresolved("another call for this charge is running", blames_gateway=False) from error
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
        if intent.status != "succeeded":  # a repeated answer shows the state at the first call, not now
            intent = await self._retrieve(intent.id)
        return outcome_of(intent, minor)

    async def _payer(self, payment_method: str) -> tuple[str, str]:
        """Customer and payment method, from `cus_…/pm_…`; for `pm_…` alone Stripe is asked for the customer."""
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
            raise Unresolved(f"{intent_id} was created, but reading it failed: {_line(error)}") from error

    async def _ask(self, key: str, minor: int, reason: str, *, blames_gateway: bool = True) -> Outcome:
        """The outcome of a charge that may have been made. Raises `Unresolved` with `reason` if the search doesn't find it."""
        found = await self._find(key)
        if found is None:
            raise Unresolved(reason, blames_gateway=blames_gateway)
        return outcome_of(found, minor)

    async def _find(self, key: str) -> stripe.PaymentIntent | None:
        """The PaymentIntent with this key; None if Stripe's search doesn't find one (yet)."""
        try:
            found = await self._client.v1.payment_intents.search_async({"query": f"metadata['rater_key']:'{key}'", "limit": 2})
        except stripe.StripeError as error:
            raise Unresolved(f"searching for {key} failed: {_line(error)}") from error
        if len(found.data) > 1:
            raise Unresolved(f"several payments have the key {key}", blames_gateway=False)
        return found.data[0] if found.data else None


def outcome_of(intent: stripe.PaymentIntent, minor: int) -> Outcome:
    """The outcome in a PaymentIntent; `minor`: the amount in Stripe's units. Raises `Unresolved` if it isn't final."""
    match intent.status:
        case "succeeded":
            if intent.amount_received != minor:
                raise Unresolved(f"{intent.id} took {intent.amount_received} instead of {minor}", blames_gateway=False)
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
    """A decline from Stripe's error object: retryable unless Stripe or rule 22 says otherwise."""
    codes = [code for code in (_get(error, "decline_code"), _get(error, "code")) if code]
    for code in codes:
        if code in _HARD:
            return Declined(_HARD[code], retryable=False)
    code = codes[0] if codes else "declined"
    hard = code in _NEVER_AGAIN or _get(error, "advice_code") == "do_not_try_again"
    return Declined(code, retryable=not hard)


def metadata_of(request: RechargeRequest, app_id: str) -> dict[str, str]:
    """The metadata of a PaymentIntent: every field of the request, the deployment (`app_id`) and the charge's key."""
    fields = {name: str(value) for name, value in msgspec.structs.asdict(request).items()}
    return {"rater_app": app_id, "rater_key": charge_key(app_id, request), **fields}


def request_of(intent: Mapping[str, Any], app_id: str) -> RechargeRequest | None:
    """The request a PaymentIntent was made for, with the amount taken, if any. None if it isn't from this deployment."""
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
    """Stripe rejected the request, so no money moved. If card or amount are the reason, retrying won't help."""
    code = error.code or "invalid_request"
    to_blame = error.param in _CARD_PARAMS
    if to_blame and code == "resource_missing":
        return Declined("payment_method_missing", retryable=False)
    return Declined(code, retryable=not to_blame)


def _line(error: stripe.StripeError) -> str:
    """The error message of Stripe's client, on one line."""
    return " ".join(str(error).split())


def _get(error: Any, name: str) -> str | None:
    value = error.get(name) if isinstance(error, Mapping) else getattr(error, name, None)
    return value if isinstance(value, str) else None
