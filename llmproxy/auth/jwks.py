"""An issuer's public keys (JWK Set, RFC 7517), ready to verify with. Private and symmetric keys in it are left out."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

KEYS_MAX = 100
_FITTING = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
    "Ed448": ("EdDSA",),
}
"""Which algorithms a key of a type (or, where it has one, on a curve) can verify. Symmetric ones are not among them:
with a public key taken for an HMAC secret, anybody could sign."""
ALGORITHMS = tuple(dict.fromkeys(name for names in _FITTING.values() for name in names))
_RSA_MIN_BITS = 2048


class PublicKey:
    """One key: its id (empty where it has none), what it may verify, and the key itself, `cryptography`'s."""

    __slots__ = ("algorithms", "id", "key")

    def __init__(self, id: str, algorithms: frozenset[str], key: Any) -> None:
        self.id = id
        self.algorithms = algorithms
        self.key = key


def parse_jwks(text: str | bytes, allowed: Iterable[str]) -> tuple[PublicKey, ...]:
    """The usable keys of a JWK Set. Raises ValueError when it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    entries = value.get("keys") if isinstance(value, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("it is not a JWK Set: there is no list of `keys`")
    wanted = frozenset(allowed)
    return tuple(
        key for entry in entries[:KEYS_MAX] if isinstance(entry, Mapping) and (key := _key(entry, wanted)) is not None
    )


def _key(entry: Mapping[str, Any], allowed: frozenset[str]) -> PublicKey | None:
    """The key, if it can be used here: public, for signatures, of a kind that is allowed."""
    import jwt

    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ("verify",)):
        return None
    kind = str(entry.get("crv") or entry.get("kty"))
    algorithms = allowed.intersection(_FITTING.get(kind, ()))
    if "alg" in entry:
        algorithms &= {str(entry["alg"])}
    if not algorithms:
        return None
    # Of the members that every JWK Set may carry, only the public ones.
    public = {name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry}
    try:
        key = jwt.PyJWK(public, sorted(algorithms)[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if kind == "RSA" and key.key_size < _RSA_MIN_BITS:
        return None
    id = entry.get("kid")
    return PublicKey(id if isinstance(id, str) else "", algorithms, key)
