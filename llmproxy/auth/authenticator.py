"""The interface behind which ways of knowing a key sit."""

from typing import Protocol

from llmproxy.auth.credential import Credential
from llmproxy.core.identity import Identity


class Authenticator(Protocol):
    """Decides at once; `now` is Unix seconds."""

    def authenticate(self, credential: Credential, now: float) -> Identity | None:
        """Whose key it is. None: none that is known here, ask the next. Raises `ProxyError` when it is known not to be
        good (401), or when it cannot be told (503)."""
