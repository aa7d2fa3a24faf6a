"""JSON Web Tokens (RFC 7519) as keys, by the rules of RFC 8725: the algorithms are ours to say, never the token's; a
key verifies what its kind can and nothing else; issuer, audience and expiry are required.

PyJWT checks the signature. The claims are checked here, against the `now` that was handed in.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.auth import refusals
from llmproxy.auth.credential import Credential
from llmproxy.auth.jwks import PublicKey
from llmproxy.auth.refusals import Refused
from llmproxy.auth.verified import Verified
from llmproxy.core.errors import Forbidden
from llmproxy.core.identity import Identity

GOOD_FOR_S = 300.0
BAD_FOR_S = 10.0
KEY_NAME = "jwt"
NAME_MAX = 128
MODELS_MAX = 200


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say, and which of its claims mean what. A claim's name with dots leads into nested claims,
    unless there is a claim of that whole name."""

    issuer: str
    audiences: frozenset[str]
    algorithms: tuple[str, ...]
    leeway_s: float = 30.0
    tenant_claim: str = "sub"
    tier_claim: str = "tier"
    models_claim: str = "models"
    default_tier: str = ""
    """Of tokens without the claim."""
    tiers: frozenset[str] = frozenset()
    """Those there are; a token that says another is refused."""


class Tokens:
    """`set_keys` is for whoever fetches them. `on_unknown_key` is told when a token is signed with a key that is not
    among them: the issuer may have a new one."""

    def __init__(self, rules: TokenRules, *, on_unknown_key: Callable[[], None] | None = None) -> None:
        import jwt

        self._rules = rules
        self._signatures = jwt.PyJWS(algorithms=list(rules.algorithms))
        self._errors = (jwt.PyJWTError, ValueError, TypeError)
        self._on_unknown_key = on_unknown_key
        self._keys: tuple[PublicKey, ...] = ()
        self._is_current = False
        self._verified = Verified()

    def set_keys(self, keys: tuple[PublicKey, ...]) -> None:
        """The issuer's keys are these, all of them."""
        self._keys = keys
        self._is_current = True
        self._verified.clear()

    def lost(self) -> None:
        """The issuer cannot be asked: a key that is not known here may still be one of its."""
        self._is_current = False

    def authenticate(self, credential: Credential, now: float) -> Identity | None:
        if credential.secret[:2] != b"ey" or credential.secret.count(b".") != 2:
            return None
        identity = self._verified.find(credential.digest, now)
        if identity is not None:
            return identity
        try:
            claims = self._verify(credential.secret)
            expires_at = self._check_times(claims, now)
            self._check_issuer(claims)
        except Refused as error:
            self._verified.bad(credential.digest, error, now + BAD_FOR_S)
            raise
        identity = self._identity(claims, expires_at)
        self._verified.good(credential.digest, identity, min(expires_at, now + GOOD_FOR_S))
        return identity

    # -- the signature ---------------------------------------------------------------------------------------------

    def _verify(self, token: bytes) -> Mapping[str, Any]:
        try:
            header = self._signatures.get_unverified_header(token)
        except self._errors:
            raise refusals.bad_token("it is malformed") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._rules.algorithms:
            raise refusals.bad_token("its algorithm is not allowed here")
        if "crit" in header:
            raise refusals.bad_token("it demands extensions that are not known here")
        for key in self._candidates(header.get("kid"), algorithm):
            try:
                parts = self._signatures.decode_complete(token, key.key, algorithms=[algorithm])
                claims = json.loads(parts["payload"])
            except (*self._errors, RecursionError):
                continue
            if isinstance(claims, dict):
                return claims
        raise refusals.bad_token("its signature does not fit")

    def _candidates(self, id: object, algorithm: str) -> list[PublicKey]:
        """The keys that may have signed it. Raises when there is none."""
        fitting = [key for key in self._keys if algorithm in key.algorithms and (id is None or key.id == id)]
        if fitting:
            return fitting
        if self._on_unknown_key is not None:
            self._on_unknown_key()
        if not self._is_current:
            raise refusals.unavailable("The issuer of this token")
        raise refusals.bad_token("it is signed with a key that is not the issuer's")

    # -- the claims ------------------------------------------------------------------------------------------------

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        """When it ends, leeway included."""
        leeway_s = self._rules.leeway_s
        expires_at, not_before = _time(claims, "exp"), _time(claims, "nbf")
        if expires_at is None:
            raise refusals.bad_token("it has no time of expiry")
        if now >= expires_at + leeway_s:
            raise Refused("The token has expired.", "expired")
        if not_before is not None and now < not_before - leeway_s:
            raise refusals.bad_token("it is not valid yet")
        return expires_at + leeway_s

    def _check_issuer(self, claims: Mapping[str, Any]) -> None:
        if claims.get("iss") != self._rules.issuer:
            raise refusals.bad_token("it is from another issuer")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(item, str) and item in self._rules.audiences for item in audiences):
            raise refusals.bad_token("it is meant for another audience")

    def _identity(self, claims: Mapping[str, Any], expires_at: float) -> Identity:
        """Its holder. Raises `Forbidden` when it is good but does not say what it must."""
        rules = self._rules
        tenant = _find(claims, rules.tenant_claim)
        if not isinstance(tenant, str) or not 0 < len(tenant) <= NAME_MAX or not tenant.isprintable():
            raise Forbidden(f"the token's claim {rules.tenant_claim} names no tenant", code="invalid_claim")
        tier = _find(claims, rules.tier_claim)
        if tier is None:
            tier = rules.default_tier
        elif not isinstance(tier, str) or (rules.tiers and tier not in rules.tiers):
            raise Forbidden(f"the token's claim {rules.tier_claim} names no tier of this proxy", code="invalid_claim")
        return Identity(
            tenant, tier, KEY_NAME, models=_models(_find(claims, rules.models_claim), rules), expires_at=expires_at
        )


def _models(value: object, rules: TokenRules) -> tuple[str, ...] | None:
    """A list of names, or names with blanks between them as in `scope`; None when nothing is said of models."""
    if value is None:
        return None
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > MODELS_MAX or not all(isinstance(name, str) for name in names):
        raise Forbidden(f"the token's claim {rules.models_claim} is no list of models", code="invalid_claim")
    return tuple(names)


def _find(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims or not name:
        return claims.get(name)
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, 2)."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        raise refusals.bad_token(f"its {name} is no time")
    return float(value)
