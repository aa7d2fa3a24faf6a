"""New keys."""

import base64
import hashlib

PREFIX = "sk-llmproxy-"
"""So that people, and scanners for leaked secrets, see what it is."""
RANDOM_BYTES = 32
"""Too many to guess, so a key's plain SHA-256 gives nothing away."""


def key_of(random: bytes) -> str:
    """The key with this secret part."""
    if len(random) < RANDOM_BYTES:
        raise ValueError("a key needs more random bytes")
    return PREFIX + base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def digest_of(key: str) -> bytes:
    """What is stored of it."""
    return hashlib.sha256(key.encode()).digest()
