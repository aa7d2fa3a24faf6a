"""One key as it is stored: everything but the key. JSON, under the key's SHA-256."""

import msgspec

from llmproxy.core.identity import Identity
from llmproxy.core.limits import Quota


class KeyRecord(msgspec.Struct, omit_defaults=True):
    """Times are Unix seconds. A key that was revoked, or replaced by another, stays on record."""

    name: str
    tenant: str
    tier: str
    created_at: float
    models: tuple[str, ...] | None = None
    limits: Quota | None = None
    priority: str | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    replaced_at: float | None = None
    """`rotate` gave the name to another key; this one may have a while left (`expires_at`)."""

    def identity(self) -> Identity:
        """Its holder."""
        return Identity(
            self.tenant,
            self.tier,
            self.name,
            models=self.models,
            limits=self.limits,
            priority=self.priority,
            expires_at=self.expires_at,
        )

    def state(self, now: float) -> str:
        """In a word."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "replaced" if self.replaced_at is not None else "active"


_DECODER = msgspec.json.Decoder(KeyRecord)


def encode(record: KeyRecord) -> bytes:
    """As JSON."""
    return msgspec.json.encode(record)


def decode(raw: bytes) -> KeyRecord:
    """From JSON. Raises ValueError."""
    return _DECODER.decode(raw)
