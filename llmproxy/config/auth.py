"""Who may ask: keys in the file, keys in Redis, tokens of an issuer."""

import hashlib
import json
import re
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from llmproxy.config.quota import QuotaConfig
from llmproxy.config.section import Section
from llmproxy.config.units import Duration
from llmproxy.config.values import Name, ReadableFile, RedisAddress, file_context

_KEY_MAX_BYTES = 8192
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def _sha256_of(key: str) -> str:
    if not re.fullmatch(r"[!-~]+", key) or len(key) > _KEY_MAX_BYTES:
        raise ValueError("a key is printable ASCII without blanks, 8 KiB at most")
    return hashlib.sha256(key.encode()).hexdigest()


def _hashed(value: str) -> str:
    return _sha256_of(value) if value else ""


class KeyConfig(Section):
    """One key. Only its SHA-256 is kept, however it was given."""

    name: Name = Field(description="The key's name, in logs and metrics in its place; its limits are counted under it.")
    tier: str = Field(description="Its tier.")
    tenant: str = Field(
        "",
        pattern=r"^[^\x00-\x1f\x7f]{0,128}$",
        description="Whose it is; keys of one tenant share its limits. By default its name.",
    )
    sha256: str = Field(
        "",
        pattern=r"^([0-9a-fA-F]{64})?$",
        description='The key\'s SHA-256 in hexadecimal (`printf %s "$KEY" | sha256sum`).',
    )
    value: Annotated[str, AfterValidator(_hashed)] = Field(
        "", repr=False, description="Instead the key itself, best as `${NAME}`."
    )
    file: ReadableFile | None = Field(None, description="Instead a file that holds the key and nothing else.")
    models: tuple[str, ...] | None = Field(
        None,
        description="The models it may be used for, as clients name them (`llama-*`: all that begin so); else all.",
    )
    expires: str = Field(
        "", description="When it ends: `2027-01-31`, or `2027-01-31T18:00:00Z`; without a zone, UTC. Empty: never."
    )
    priority: Literal["low", "normal", "high"] | None = Field(None, description="Instead of its tier's.")
    limits: QuotaConfig | None = Field(None, description="This key's own limits, beside its tenant's.")

    _digest: bytes = PrivateAttr(b"")

    @field_validator("expires")
    @classmethod
    def _a_time(cls, value: str) -> str:
        if value:
            _instant(value)
        return value

    @model_validator(mode="after")
    def _one_key(self, info: ValidationInfo) -> "KeyConfig":
        given = [name for name in ("sha256", "value", "file") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give the key once: as sha256, as value or as file")
        if self.file is None:
            self._digest = bytes.fromhex(self.sha256 or self.value)
        else:
            try:
                text = Path(self.file).read_text().strip()
            except (OSError, ValueError):
                raise ValueError("file cannot be read") from None
            self._digest = bytes.fromhex(_sha256_of(text))
        return self

    @property
    def digest(self) -> bytes:
        """Its SHA-256."""
        return self._digest

    @property
    def expires_at(self) -> float | None:
        """Unix seconds; None: never."""
        return _instant(self.expires) if self.expires else None


class ClaimsConfig(Section):
    tenant: str = Field("sub", min_length=1, description="Claim that names the tenant.")
    tier: str = Field("tier", description="Claim that names the tier.")
    models: str = Field("models", description="Claim that lists the models it may be used for; without it, all.")


class JwtConfig(Section):
    issuer: str = Field(min_length=1, description="The token's `iss`, exactly.")
    audience: tuple[str, ...] = Field(min_length=1, description="The token's `aud` must be, or hold, one of these.")
    jwks: str = Field(
        "",
        description="The issuer's public keys (JWK Set): a URL, or a file. Empty: where the issuer's "
        "`/.well-known/openid-configuration` says.",
    )
    algorithms: tuple[Algorithm, ...] = Field(
        ("RS256", "ES256", "EdDSA"), min_length=1, description="Signatures that count. Symmetric ones never do."
    )
    leeway: Duration = Field(30.0, le=600, description="How far the issuer's clock may be off.")
    refresh: Duration = Field(600.0, ge=10, description="How often the keys are fetched again, when they are at a URL.")
    tier: str = Field("", description="Tier of tokens without a claim that names one. Empty: they have no limits.")
    claims: ClaimsConfig = Field(
        ClaimsConfig(), description="Which claims mean what; dots lead into nested ones (`realm_access.tier`)."
    )

    _jwks: bytes = PrivateAttr(b"")

    @field_validator("jwks")
    @classmethod
    def _usable(cls, value: str, info: ValidationInfo) -> str:
        if "://" in value:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError(f"{value!r} is no URL such as https://id.example.com/jwks.json")
            return value
        context = file_context(info)
        if not value or context is None:
            return value
        path = context.base / value
        if context.on_file is not None:
            context.on_file(path)
        if not path.is_file():
            raise ValueError(f"there is no file {value!r}")
        return str(path)

    @model_validator(mode="after")
    def _keys_at_hand(self) -> "JwtConfig":
        if find_spec("jwt") is None or find_spec("cryptography") is None:
            raise ValueError("tokens need a package more: pip install 'llmproxy-gateway[jwt]'")
        if not self.jwks and not self.issuer.startswith(("https://", "http://")):
            raise ValueError("jwks is needed: the issuer is no URL that could be asked for it")
        if self.is_file:
            try:
                self._jwks = Path(self.jwks).read_bytes()
                keys = json.loads(self._jwks)["keys"]
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                keys = None
            if not isinstance(keys, list):
                raise ValueError(f"{self.jwks!r} is no JWK Set: it must be JSON with a list of `keys`")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the keys are in a file."""
        return bool(self.jwks) and "://" not in self.jwks

    @property
    def jwks_text(self) -> bytes:
        """What the file says."""
        return self._jwks


class AuthConfig(Section):
    """`auth: none` says what is so anyway without keys: nobody is asked for one."""

    store: RedisAddress = Field(
        "",
        repr=False,
        description="Redis with the keys that `llmproxy keys` makes: `redis://host:6379/0`, `rediss://`, "
        "`sentinel://host:26379,host/name` or `cluster://host,host`.",
    )
    stale_for: Duration = Field(900.0, description="How long keys from the store stay good when it cannot be reached.")
    jwt: JwtConfig | None = Field(None, description="Tokens (JWT) of an OpenID Connect issuer as keys.")
    anonymous: str = Field(
        "",
        description="Tier of requests without a key, each address a tenant of its own. With keys, it lets such "
        "requests in; empty: they are answered 401.",
    )

    @model_validator(mode="before")
    @classmethod
    def _none_in_a_word(cls, value: Any) -> Any:
        return {} if value == "none" else value


def _instant(text: str) -> float:
    """Unix seconds."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 2027-01-31 or 2027-01-31T18:00:00Z") from None
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
