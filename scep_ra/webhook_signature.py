"""The signature of step-ca's webhooks, by which a web service knows that a body is ours.

Whoever posts JSON to others uses it: AAA by HTTP, and messages about disconnects. How they post is their own business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from scep_ra.errors import Misconfigured

WEBHOOK_ID_HEADER: Final = "X-Smallstep-Webhook-ID"
SIGNATURE_HEADER: Final = "X-Smallstep-Signature"


def sign_body(body: bytes, secret: str) -> str:
    """Return the HMAC-SHA256 of a body in hexadecimal, under a secret in base64; raise Misconfigured."""
    try:
        key = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        # Without the cause: nothing of the secret belongs into a message.
        raise Misconfigured("the secret that signs is not base64: make one with openssl rand -base64 32") from None
    return hmac.new(key, body, hashlib.sha256).hexdigest()
