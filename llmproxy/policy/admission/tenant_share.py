"""One tenant's share of a pool's backends while there are others.

Fair queueing shares out what is begun, but a request that comes when all backends compute prompts of another tenant
has to wait for the first of them: engines do not interrupt. So a tenant may have prompts computed on no more than a
share of the backends at once (one always), as long as anybody else has been seen within the last minute; a tenant that
is alone may have them all.
"""

from typing import Final

_SEEN_S: Final = 60.0


class TenantShare:
    """`share` 1: no bound, and nothing is counted."""

    __slots__ = ("_computing", "_last", "_other_at", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._computing: dict[str, int] = {}
        self._last = ""
        self._other_at = -_SEEN_S

    def seen(self, tenant: str, now: float) -> None:
        """A request of this tenant came."""
        if tenant != self._last:
            if self._last:
                self._other_at = now
            self._last = tenant

    def closed(self, backends: int, now: float) -> frozenset[str]:
        """Tenants that have their share."""
        if self.share >= 1.0 or now - self._other_at > _SEEN_S:
            return frozenset()
        most = max(int(self.share * backends), 1)
        return frozenset(tenant for tenant, count in self._computing.items() if count >= most)

    def began(self, tenant: str) -> None:
        """A prompt of this tenant is sent to be computed."""
        self._computing[tenant] = self._computing.get(tenant, 0) + 1

    def ended(self, tenant: str) -> None:
        """It has been, or is over."""
        left = self._computing.get(tenant, 0) - 1
        if left > 0:
            self._computing[tenant] = left
        else:
            self._computing.pop(tenant, None)
