"""One tenant's share of a pool's backends while there are others.

Fair queueing shares out what is begun, but a request that comes when all backends compute prompts of another tenant
has to wait for the first of them: engines do not interrupt. So a tenant may have prompts computed on no more than a
share of the backends at once (one always), as long as anybody else has been seen within the last minute; a tenant that
is alone may have them all.

The share is fixed, or, with `AUTO`, what others leave: as many backends as they have had computing lately in the mean,
and three quarters of the square root of that for chance, are kept for them, one at least. A tenant may always have one
more than an equal part. Only others of the same or of a better priority count, and only prompts that keep a backend
busy for so long that others mind waiting (`HEAVY_S`). So a flood beside tenants who ask seldom does without one
backend, and tenants of equal weight hardly notice each other. Of few backends such a reserve is all or nothing; so a
tenant that lately had more than twice an equal part in the mean begins nothing, either, that would leave no backend
idle for whoever comes next. Where nothing is computed at all, anybody may begin.
"""

from math import ceil, exp, sqrt
from typing import Final

from llmproxy.core.backend import Backend

AUTO: Final = 0.0
HEAVY_S: Final = 0.05
_SEEN_S: Final = 60.0
_WINDOW_S: Final = 10.0
_MORE_THAN_ITS_PART: Final = 2.0
_TENANTS_MAX: Final = 2_000
_BANDS: Final = 4


class _Mean:
    """A number of backends: now, and in the mean over the last while."""

    __slots__ = ("at", "count", "mean")

    def __init__(self, now: float) -> None:
        self.at = now
        self.count = 0
        self.mean = 0.0

    def change(self, by: int, now: float) -> None:
        self.pass_time(now)
        self.count += by

    def pass_time(self, now: float) -> float:
        passed = now - self.at
        if passed > 0:
            kept = exp(-passed / _WINDOW_S)
            self.mean = self.mean * kept + self.count * (1.0 - kept)
            self.at = now
        return self.mean


class _Use:
    """What a tenant's prompts are computed on."""

    __slots__ = ("backends", "band", "mean", "prompts")

    def __init__(self, band: int, now: float) -> None:
        self.band = band
        self.backends: dict[Backend, int] = {}
        self.mean = _Mean(now)
        self.prompts = 0


class TenantShare:
    """`share` 1: no bound, and nothing is counted. Bands are 0 (the best) to 3."""

    __slots__ = ("_bands", "_busy", "_computing", "_seen", "_seen_in", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._computing: dict[str, _Use] = {}
        self._busy: dict[Backend, int] = {}
        """Where prompts are computed, and of how many tenants."""
        self._bands = [_Mean(0.0) for _ in range(_BANDS)]
        self._seen: dict[str, tuple[float, int]] = {}
        """When each tenant was seen last, and in which band; the longest ago first."""
        self._seen_in = [0] * _BANDS

    def seen(self, tenant: str, band: int, now: float) -> None:
        """A request of this tenant came."""
        self._unsee(tenant)
        self._seen[tenant] = (now, band)
        self._seen_in[band] += 1
        self._forget(now)

    def closed(self, backends: int, now: float) -> frozenset[str]:
        """Tenants that have their share."""
        if self.share >= 1.0:
            return frozenset()
        self._forget(now)
        if len(self._seen) < 2:
            return frozenset()
        if self.share != AUTO:
            most = max(int(self.share * backends), 1)
            return frozenset(tenant for tenant, use in self._computing.items() if use.prompts >= most)
        return frozenset(
            tenant for tenant, use in self._computing.items() if self._has_its_share(tenant, use, backends, now)
        )

    def began(self, tenant: str, band: int, backend: Backend, now: float) -> None:
        """A prompt of this tenant is sent to be computed."""
        use = self._computing.get(tenant)
        if use is None:
            use = self._computing[tenant] = _Use(band, now)
        use.prompts += 1
        count = use.backends[backend] = use.backends.get(backend, 0) + 1
        if count == 1:
            self._busy[backend] = self._busy.get(backend, 0) + 1
            use.mean.change(1, now)
            self._bands[use.band].change(1, now)

    def ended(self, tenant: str, backend: Backend, now: float) -> None:
        """It has been, or is over."""
        use = self._computing.get(tenant)
        if use is None or backend not in use.backends:
            return
        use.prompts -= 1
        use.backends[backend] -= 1
        if not use.backends[backend]:
            del use.backends[backend]
            self._busy[backend] -= 1
            if not self._busy[backend]:
                del self._busy[backend]
            use.mean.change(-1, now)
            self._bands[use.band].change(-1, now)
        if not use.prompts and tenant not in self._seen:
            del self._computing[tenant]

    def _has_its_share(self, tenant: str, use: _Use, backends: int, now: float) -> bool:
        own = 1 if tenant in self._seen and self._seen[tenant][1] <= use.band else 0
        if sum(self._seen_in[: use.band + 1]) <= own:
            return False
        mean, part = use.mean.pass_time(now), backends / len(self._seen)
        others = max(sum(one.pass_time(now) for one in self._bands[: use.band + 1]) - mean, 0.0)
        reserve = max(ceil(others + 0.75 * sqrt(others)), 1)
        least = max(min(ceil(part) + 1, backends - 1), 1)
        if len(use.backends) >= max(backends - reserve, least):
            return True
        return mean > _MORE_THAN_ITS_PART * part and len(self._busy) >= max(backends - 1, 1)

    def _forget(self, now: float) -> None:
        """Whoever has not been seen for long. Who still computes something is forgotten when that is over."""
        seen = self._seen
        while seen:
            tenant = next(iter(seen))
            if now - seen[tenant][0] <= _SEEN_S and len(seen) <= _TENANTS_MAX:
                return
            self._unsee(tenant)
            use = self._computing.get(tenant)
            if use is not None and not use.prompts:
                del self._computing[tenant]

    def _unsee(self, tenant: str) -> None:
        known = self._seen.pop(tenant, None)
        if known is not None:
            self._seen_in[known[1]] -= 1
