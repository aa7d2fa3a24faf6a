"""Tokens: which count, and what they say. Each refusal is tried with a token that is good in every other way."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from llmproxy.auth.credential import Credential
from llmproxy.auth.jwks import ALGORITHMS, parse_jwks
from llmproxy.auth.tokens import TokenRules, Tokens
from llmproxy.core.errors import ProxyError
from tests.harness.issuer import AUDIENCE, ISSUER, Issuer

RULES: dict[str, Any] = {
    "issuer": ISSUER,
    "audiences": frozenset({AUDIENCE}),
    "algorithms": ("RS256", "ES256", "EdDSA"),
}


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


def make(issuer: Issuer, *names: str, on_unknown_key: Any = None, **rules: Any) -> Tokens:
    tokens = Tokens(TokenRules(**RULES | rules), on_unknown_key=on_unknown_key)
    tokens.set_keys(parse_jwks(issuer.jwks(*names), tokens._rules.algorithms))
    return tokens


def ask(tokens: Tokens, token: str | bytes, now: float | None = None) -> Any:
    """The identity, or the refusal."""
    try:
        secret = token.encode() if isinstance(token, str) else token
        return tokens.authenticate(Credential(secret), time.time() if now is None else now)
    except ProxyError as error:
        return error


def refused(tokens: Tokens, token: str | bytes, now: float | None = None) -> tuple[int, str]:
    found = ask(tokens, token, now)
    assert isinstance(found, ProxyError), found
    return found.status, found.message


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@pytest.mark.parametrize("key", ["rsa", "ec", "ed"])
def test_a_good_token_of_each_kind(issuer: Issuer, key: str) -> None:
    identity = ask(make(issuer), issuer.token(key, tier="paid", models=["llama-*"]))
    assert (identity.tenant, identity.tier, identity.models, identity.key_name) == ("acme", "paid", ("llama-*",), "jwt")


def test_a_token_without_a_key_id_is_tried_with_every_key_that_fits(issuer: Issuer) -> None:
    token = issuer.token("ec", headers={"kid": None})
    assert "kid" not in jwt.get_unverified_header(token)
    assert ask(make(issuer), token).tenant == "acme"


@pytest.mark.parametrize("text", ["sk-something", "ey.ab", "eyJ", "ey.a.b.c", ""])
def test_what_is_no_token_is_left_to_others(issuer: Issuer, text: str) -> None:
    assert ask(make(issuer), text) is None


@pytest.mark.parametrize("text", ["ey..", "eyJ9.e30.x", "ey\xff.a.b", "eyJhbGciOjF9.e30.", "eyA.e30.a"])
def test_what_looks_like_a_token_and_is_none_is_refused(issuer: Issuer, text: str) -> None:
    assert refused(make(issuer), text.encode("latin-1"))[0] == 401


def test_none_is_no_algorithm(issuer: Issuer) -> None:
    claims = b64(json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "a", "exp": time.time() + 60}).encode())
    for name in ("none", "None", "nOnE", ""):
        token = b64(json.dumps({"alg": name, "kid": "rsa"}).encode()) + b"." + claims + b"."
        assert "algorithm" in refused(make(issuer), token)[1]


@pytest.mark.parametrize("algorithms", [RULES["algorithms"], ("RS256", "PS256")])
def test_a_public_key_is_no_hmac_secret(issuer: Issuer, algorithms: tuple[str, ...]) -> None:
    """The attack of 2015: sign with HS256, with the issuer's public key for a secret."""
    public = (
        issuer.private["rsa"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    head = b64(json.dumps({"alg": "HS256", "kid": "rsa", "typ": "JWT"}).encode())
    claims = b64(json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "a", "exp": time.time() + 60}).encode())
    signed = head + b"." + claims
    token = signed + b"." + b64(hmac.digest(public, signed, "sha256"))
    assert "algorithm" in refused(make(issuer, algorithms=algorithms), token)[1]


def test_no_symmetric_algorithm_can_be_allowed_at_all() -> None:
    assert [name for name in ALGORITHMS if name.startswith("HS") or name == "none"] == []


def test_an_algorithm_must_be_allowed_and_be_the_keys(issuer: Issuer) -> None:
    token = jwt.encode({"sub": "x"}, issuer.private["rsa"], algorithm="RS512", headers={"kid": "rsa"})
    assert "algorithm" in refused(make(issuer), token)[1]
    # RS512 is allowed, but this key says of itself that it is for RS256.
    keys = json.dumps({"keys": [issuer.jwk("rsa", alg="RS256")]})
    tokens = Tokens(TokenRules(**RULES | {"algorithms": ("RS256", "RS512")}))
    tokens.set_keys(parse_jwks(keys, ("RS256", "RS512")))
    assert refused(tokens, token)[0] == 401
    assert ask(tokens, issuer.token()).tenant == "acme"


def test_a_changed_token_does_not_fit_its_signature(issuer: Issuer) -> None:
    head, claims, signature = issuer.token().split(".")
    text = json.loads(base64.urlsafe_b64decode(claims + "=="))
    forged = b64(json.dumps(text | {"sub": "other"}).encode()).decode()
    assert "signature" in refused(make(issuer), f"{head}.{forged}.{signature}")[1]
    stranger = rsa.generate_private_key(65537, 2048)
    other = jwt.encode(text, stranger, algorithm="RS256", headers={"kid": "rsa"})
    assert "signature" in refused(make(issuer), other)[1]


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://other.example.com"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": [ISSUER]}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": ["a", "b"]}, "audience"),
        ({"aud": ["a", AUDIENCE]}, ""),
        ({"exp": None}, "expiry"),
        ({"exp": float("inf")}, "no time"),
        ({"exp": "4000000000"}, "no time"),
        ({"exp": True}, "no time"),
        ({"nbf": [1]}, "no time"),
    ],
)
def test_claims_that_must_be_right(issuer: Issuer, claims: Any, why: str) -> None:
    found = ask(make(issuer), issuer.token(**claims))
    if why:
        assert (found.status, why in found.message) == (401, True)
    else:
        assert found.tenant == "acme"


def test_times_and_leeway(issuer: Issuer) -> None:
    now = 2_000_000_000
    token = issuer.token(exp=now + 100, nbf=now - 100, iat=now)
    at = [ask(make(issuer, leeway_s=30), token, now + after) for after in (-131, -130, 0, 129, 130)]
    assert [isinstance(found, ProxyError) for found in at] == [True, False, False, False, True]
    assert "not valid yet" in at[0].message
    assert "expired" in at[4].message


def test_a_verified_token_ends_when_it_ends(issuer: Issuer) -> None:
    tokens, now = make(issuer, leeway_s=0), 2_000_000_000
    token = issuer.token(exp=now + 100)
    assert ask(tokens, token, now).tenant == "acme"
    assert refused(tokens, token, now + 100)[0] == 401


def test_extensions_that_are_demanded_and_not_known(issuer: Issuer) -> None:
    token = issuer.token(headers={"crit": ["exp"], "exp": 1})
    # Newer PyJWTs refuse it themselves, older ones leave it to us.
    assert refused(make(issuer), token)[0] == 401


def test_which_claims_mean_what(issuer: Issuer) -> None:
    tokens = make(
        issuer,
        tenant_claim="https://example.com/org",
        tier_claim="app.tier",
        models_claim="scope",
        default_tier="free",
        tiers=frozenset({"free", "paid"}),
    )
    claims: dict[str, Any] = {"https://example.com/org": "o", "app": {"tier": "paid"}, "scope": "llama-3 qwen"}
    identity = ask(tokens, issuer.token(**claims))
    assert (identity.tenant, identity.tier, identity.models) == ("o", "paid", ("llama-3", "qwen"))
    assert ask(tokens, issuer.token(**claims | {"app": None})).tier == "free"
    assert ask(tokens, issuer.token(**claims | {"scope": None})).models is None
    assert ask(tokens, issuer.token(**claims | {"scope": ""})).models == ()
    for bad in (
        {"https://example.com/org": None},
        {"https://example.com/org": 7},
        {"https://example.com/org": "a\nb"},
        {"https://example.com/org": "x" * 129},
        {"app": {"tier": "gold"}},
        {"app": {"tier": 1}},
        {"scope": {"a": 1}},
        {"scope": [1]},
    ):
        assert refused(tokens, issuer.token(**claims | bad))[0] == 403


# -- keys --------------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_asked_for_and_tokens_are_good_once_it_is_there(issuer: Issuer) -> None:
    wanted: list[int] = []
    tokens = make(issuer, "ec", on_unknown_key=lambda: wanted.append(1))
    token = issuer.token("rsa")
    assert refused(tokens, token)[0] == 401
    assert refused(tokens, token)[0] == 401
    assert wanted == [1], "the second was known to be bad"
    tokens.set_keys(parse_jwks(issuer.jwks("ec", "rsa"), RULES["algorithms"]))
    assert ask(tokens, token).tenant == "acme"
    tokens.set_keys(parse_jwks(issuer.jwks("ec"), RULES["algorithms"]))
    assert refused(tokens, token)[0] == 401, "a key that was withdrawn verifies nothing, not even what it did before"


def test_an_issuer_that_does_not_answer_is_no_401_for_keys_unknown(issuer: Issuer) -> None:
    never = Tokens(TokenRules(**RULES))
    assert refused(never, issuer.token())[0] == 503
    tokens = make(issuer, "ec")
    tokens.lost()
    assert refused(tokens, issuer.token("rsa"))[0] == 503
    assert ask(tokens, issuer.token("ec")).tenant == "acme"


def test_what_a_key_set_may_hold(issuer: Issuer) -> None:
    small = rsa.generate_private_key(65537, 1024).public_key()
    weak = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(small))
    secret = {"kty": "oct", "k": "AAAA", "kid": "s", "alg": "HS256"}
    keys = [
        *(secret, weak, {"kty": "RSA", "n": "!", "e": "AQAB"}, {"kty": "EC", "crv": "P-256"}, {}, 7),
        *(issuer.jwk("rsa", use="enc"), issuer.jwk("rsa", key_ops=["encrypt"]), issuer.jwk("rsa", alg="HS256")),
        issuer.jwk("ec", use="sig", kid=5),
    ]
    found = parse_jwks(json.dumps({"keys": keys}), ALGORITHMS)
    assert [(key.id, set(key.algorithms)) for key in found] == [("", {"ES256"})]
    for text in ("", "[]", "{}", '{"keys": {}}', "[" * 100_000):
        with pytest.raises(ValueError, match="it is no"):
            parse_jwks(text, ALGORITHMS)


def test_a_private_key_in_a_set_is_taken_for_its_public_half(issuer: Issuer) -> None:
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(issuer.private["ec"])) | {"kid": "ec"}
    assert "d" in private
    [key] = parse_jwks(json.dumps({"keys": [private]}), ALGORITHMS)
    assert not hasattr(key.key, "private_numbers")


def test_a_flood_of_bad_tokens_costs_one_signature_each(issuer: Issuer) -> None:
    tokens = make(issuer)
    head, claims, _ = issuer.token().split(".")
    bad = f"{head}.{claims}.{b64(bytes(256)).decode()}"
    calls = []
    verify = tokens._signatures.decode_complete
    tokens._signatures.decode_complete = lambda *a, **k: calls.append(1) or verify(*a, **k)  # type: ignore[method-assign]
    assert {refused(tokens, bad)[0] for _ in range(5)} == {401}
    assert len(calls) == 1


def test_the_crypto_library_is_not_imported_until_tokens_are_configured() -> None:
    code = "import sys, llmproxy.app, llmproxy.cli; print({'jwt', 'cryptography', 'hiredis'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_only_the_digest_of_a_token_is_kept(issuer: Issuer) -> None:
    tokens, token = make(issuer), issuer.token()
    ask(tokens, token)
    assert list(tokens._verified._good) == [hashlib.sha256(token.encode()).digest()]
