"""Keys that the configuration lists."""

from collections.abc import Mapping

from llmproxy.auth import refusals
from llmproxy.auth.credential import Credential
from llmproxy.core.identity import Identity


class StaticKeys:
    """`keys` is SHA-256 digest -> holder. Replaced whole on reload."""

    def __init__(self, keys: Mapping[bytes, Identity]) -> None:
        self._keys = dict(keys)

    def authenticate(self, credential: Credential, now: float) -> Identity | None:
        identity = self._keys.get(credential.digest)
        if identity is not None and identity.expires_at is not None and now >= identity.expires_at:
            raise refusals.expired()
        return identity
