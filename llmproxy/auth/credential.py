"""The key as a client sends it: `Authorization: Bearer KEY`, `x-api-key: KEY` or `api-key: KEY`."""

import hashlib
from collections.abc import Iterable

KEY_MAX_BYTES = 8192
"""Tokens with many claims are long; nothing is longer than this."""
_BEARER = b"bearer "
_HEADERS = frozenset({b"x-api-key", b"api-key"})


class Credential:
    """One key. `digest` is the SHA-256 of `secret`; authenticators of keys look at nothing else."""

    __slots__ = ("digest", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.digest = hashlib.sha256(secret).digest()

    def __repr__(self) -> str:
        return "<Credential>"


def credential_of(authorization: bytes | None, headers: Iterable[tuple[bytes, bytes]]) -> Credential | None:
    """What the head carries; None when that is nothing. Of several, `Authorization` counts, then the first."""
    if authorization is not None and authorization[:7].lower() == _BEARER:
        secret = authorization[7:].strip()
        if secret:
            return Credential(secret[: KEY_MAX_BYTES + 1])
    for name, value in headers:
        if len(name) in (7, 9) and name.lower() in _HEADERS and (secret := value.strip()):
            return Credential(secret[: KEY_MAX_BYTES + 1])
    return None
