"""Webhook signatures according to Standard Webhooks: HMAC-SHA256 over id, time and body, with a shared secret."""

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret, not a secret
_SECRET_BYTES_MIN = 24


class SecretError(ValueError):
    """The text is not a webhook secret."""


def read_secret(text: str) -> bytes:
    """The key in a secret of the form `whsec_` + base64. Raises `SecretError`."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise SecretError(f"a webhook secret must be {SECRET_PREFIX} followed by base64: {error}") from error
    if len(key) < _SECRET_BYTES_MIN:
        raise SecretError(f"a webhook secret must have at least {_SECRET_BYTES_MIN} bytes")
    return key


def signed_headers(key: bytes, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a signed message. `message_id`: the same each time the same message is sent. `at_s`: Unix time."""
    signed = b".".join((message_id.encode(), b"%d" % at_s, body))
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(at_s), "webhook-signature": f"v1,{signature}"}
