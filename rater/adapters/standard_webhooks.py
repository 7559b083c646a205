"""Signatures of webhooks as Standard Webhooks has them: HMAC-SHA256 over id, time and body, under a shared secret."""

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - how every secret begins, and none itself
_SECRET_BYTES_MIN = 24


class SecretError(ValueError):
    """A text that is no secret."""


def read_secret(text: str) -> bytes:
    """The key in `whsec_` and base64. Raises `SecretError`."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise SecretError(f"a webhook secret is {SECRET_PREFIX} and base64: {error}") from error
    if len(key) < _SECRET_BYTES_MIN:
        raise SecretError(f"a webhook secret has {_SECRET_BYTES_MIN} bytes at least")
    return key


def signed_headers(key: bytes, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers that go with a message; `message_id` is the same whenever the same message is sent again."""
    signed = b".".join((message_id.encode(), b"%d" % at_s, body))
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(at_s), "webhook-signature": f"v1,{signature}"}
