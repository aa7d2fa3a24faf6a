"""Signed messages: `X-LLMProxy-Timestamp` (Unix seconds) and `X-LLMProxy-Signature: v1=HEX`, where HEX is the
HMAC-SHA256 of the timestamp, a dot and the body, with the shared secret as its key."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

TIMESTAMP: Final = "X-LLMProxy-Timestamp"
SIGNATURE: Final = "X-LLMProxy-Signature"
TOLERANCE_S: Final = 300.0
"""How far the clocks of the two may be apart; what is older is refused, because it may be a recording."""


def headers(secret: str, body: bytes, unix_s: float) -> dict[str, str]:
    """What to send with `body`."""
    timestamp = str(int(unix_s))
    return {TIMESTAMP: timestamp, SIGNATURE: f"v1={_digest(secret, timestamp, body)}"}


def is_genuine(secret: str, body: bytes, given: Mapping[str, str], unix_s: float) -> bool:
    """Whether `body` came with these headers from somebody who knows the secret, and lately."""
    timestamp = given.get(TIMESTAMP, "")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
        return False
    if abs(unix_s - int(timestamp)) > TOLERANCE_S:
        return False
    expected = f"v1={_digest(secret, timestamp, body)}"
    return hmac.compare_digest(given.get(SIGNATURE, "").encode("utf-8", "replace"), expected.encode())


def _digest(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
