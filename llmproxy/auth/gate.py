"""Where a request's head is looked at: who asks, or why not."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from llmproxy.auth import refusals
from llmproxy.auth.authenticator import Authenticator
from llmproxy.auth.credential import KEY_MAX_BYTES, credential_of
from llmproxy.auth.refusals import Refused
from llmproxy.core.errors import Forbidden, ProxyError
from llmproxy.core.identity import Identity


class Gate:
    """Asks `authenticators` in turn. With `lets_anonymous`, a request without a key passes as nobody; one with a bad
    key does not. `results` counts what became of them. `wall` gives Unix seconds."""

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        *,
        wall: Callable[[], float],
        results: Counter[str],
        lets_anonymous: bool = False,
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._wall = wall
        self._results = results
        self._lets_anonymous = lets_anonymous

    def admit(self, authorization: bytes | None, headers: Iterable[tuple[bytes, bytes]]) -> Identity | None:
        """Who asks; None for nobody in particular. Raises `ProxyError`."""
        try:
            identity = self._identify(authorization, headers)
        except Refused as error:
            self._results[error.reason] += 1
            raise
        except Forbidden:
            self._results["forbidden"] += 1
            raise
        except ProxyError:
            self._results["unavailable"] += 1
            raise
        self._results["ok" if identity is not None else "anonymous"] += 1
        return identity

    def _identify(self, authorization: bytes | None, headers: Iterable[tuple[bytes, bytes]]) -> Identity | None:
        credential = credential_of(authorization, headers)
        if credential is None:
            if self._lets_anonymous:
                return None
            raise refusals.missing()
        if len(credential.secret) <= KEY_MAX_BYTES:
            now = self._wall()
            for authenticator in self._authenticators:
                identity = authenticator.authenticate(credential, now)
                if identity is not None:
                    return identity
        raise refusals.unknown()
