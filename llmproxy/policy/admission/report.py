"""What a queue looks like, for people who ask."""

from typing import Any, Final, TypeVar

from llmproxy.policy.admission.admission import Admission
from llmproxy.policy.admission.ticket import Band

W = TypeVar("W")

TENANTS_MAX: Final = 50


def by_priority(admission: Admission[W]) -> dict[str, int]:
    """How many wait in each band."""
    return {band.name.lower(): admission.queue.waiting_in(band) for band in Band}


def report(admission: Admission[W], now: float) -> dict[str, Any]:
    """Of tenants the `TENANTS_MAX` with the longest lines. Seconds, bytes, and requests a second."""
    queue = admission.queue
    tenants = sorted(queue.tenants(), key=lambda tenant: -tenant.waiting)
    share, adaptive = admission.saturation.share, admission.saturation.adaptive
    return {
        "waiting": queue.waiting,
        "waiting_bytes": queue.bytes,
        "by_priority": by_priority(admission),
        "drain_rate_per_s": queue.drain.per_s(now),
        "retry_after_s": queue.retry_after_s(now),
        "prefill_share_limit": None if share is None else share.limit,
        "adaptive_limits": None if adaptive is None else adaptive.limits(),
        "lanes": [
            {"name": lane.name, "computing": admission.lanes.computing(number), "max_share": lane.max_share}
            for number, lane in enumerate(admission.lanes.lanes, 1)
        ],
        "tenants": [
            {
                "tenant": tenant.name,
                "waiting": tenant.waiting,
                "waiting_bytes": tenant.waiting_bytes,
                "service": tenant.service,
                "open": tenant.open,
            }
            for tenant in tenants[:TENANTS_MAX]
        ],
    }
